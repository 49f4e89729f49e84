"""Readers of shortcuts and appointments: what they start, and where they lead."""

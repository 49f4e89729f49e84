"""Readers of pages: each says what it saw, and none decides."""

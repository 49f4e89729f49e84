"""Peers: programs nobody here wrote, started on loopback, one module and one context manager for each."""

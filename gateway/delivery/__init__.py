"""The way out: claim what is due, find the way, send, settle, and tell the sender what became of it."""

"""The mailboxes' door: POP3 over the store."""

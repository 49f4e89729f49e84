"""The keeping: messages, deliveries and their history. The only SQL; SQLite or PostgreSQL by URL."""

"""A reader of PDF files (ISO 32000-1), for filters: octets in, `sights.Sight`s out.

It does not follow the table of objects, which a hostile file can bend, and every reader repairs in a way of its own: it
looks at what any reader could come to see. It knows nothing of mail, imports the standard library alone, and keeps to
limits of its own: what exceeds one, or cannot be read, is `lexer.Unreadable`, never nothing.
"""

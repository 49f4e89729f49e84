"""Signatures over mail: DKIM (RFC 6376, RFC 8463) and ARC (RFC 8617), read and made. Nothing here decides."""

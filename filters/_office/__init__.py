"""Readers of office documents, for the filter `macros`: octets in, `seen.Sight`s out.

They know nothing of mail, import the standard library alone, and keep to limits of their own: what exceeds one, or
cannot be read, is `seen.Unreadable`, never nothing.
"""

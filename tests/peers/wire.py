"""A message on the wire has CRLF, in a maildir LF: the few helpers that tests need to compare both."""


def crlf(raw: bytes) -> bytes:
    return lf(raw).replace(b"\n", b"\r\n")


def lf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n")


def body(raw: bytes) -> bytes:
    """All after the first empty line, with LF; each hop may only add headers above."""
    return lf(raw).partition(b"\n\n")[2]


def dot_stuffed(raw: bytes) -> bytes:
    """The message with CRLF as it goes after DATA, with the final dot (RFC 5321 4.5.2)."""
    lines = crlf(raw).removesuffix(b"\r\n").split(b"\r\n")
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines) + b".\r\n"

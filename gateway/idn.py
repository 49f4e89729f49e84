"""Domain names as the DNS compares them: A-labels of IDNA 2008 (RFC 5891), lower case. One place, so that all agree."""

from __future__ import annotations

import codecs
import unicodedata

import idna


def prepare() -> None:
    """Load what the first name beyond ASCII would load: where mail is read, no file can be opened any more."""
    codecs.lookup("punycode")


def a_labels(domain: str) -> str:
    """*domain* in A-labels and lower case; `ValueError` where it is no domain in IDNA 2008.

    ASCII without A-labels is only made lower case.
    """
    if domain.isascii() and "xn--" not in domain.lower():
        return domain.lower()
    try:
        return idna.encode(unicodedata.normalize("NFC", domain).lower(), strict=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError("is not a domain name") from None


def u_labels(domain: str) -> str:
    """*domain* as people write it; as it is, where that is not to be told."""
    try:
        return idna.decode(domain)
    except ValueError:
        return domain

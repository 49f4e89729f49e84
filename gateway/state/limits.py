"""How large a key, a value and a count of the shared state can be, wherever it is kept."""

import hashlib

MAX_KEY = 200
"""Characters of a key; a longer one, or one that is not ASCII, is kept as its hash."""

MAX_VALUE = 4096
"""Characters of a value."""

MAX_COUNT = 1 << 53
"""No counter goes further from zero: up to here, numbers of Lua are exact."""


def bounded(key: str) -> str:
    """*key*, or what stands for it."""
    short = len(key) <= MAX_KEY and key.isascii()
    return key if short else hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def checked(value: str) -> str:
    """*value*; ValueError where it is too long."""
    if len(value) > MAX_VALUE:
        raise ValueError(f"a shared value may have {MAX_VALUE} characters")
    return value


def counted(amount: int) -> int:
    """*amount*, or the most that can be added at once."""
    return max(-MAX_COUNT, min(MAX_COUNT, amount))

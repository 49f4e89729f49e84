"""How long to look: `FUZZ=100 pytest tests/fuzz` tries a hundred times as many examples as every run does."""

import os


def examples(usual: int) -> int:
    """So many examples, or a multiple of it."""
    return usual * int(os.environ.get("FUZZ", "1"))

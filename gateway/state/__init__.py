"""Small values and counters that all processes share, and that may be lost.

What must not be lost belongs to the store.
"""

from gateway.state.local import LocalState

__all__ = ["LocalState"]

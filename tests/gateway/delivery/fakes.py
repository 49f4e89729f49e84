"""A DNS that answers from a table, and builders for what the tests of delivery need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.delivery.reply import Failed, Reply
from gateway.model import Temporary

NOW = 1_800_000_000.0
BODY = b"Subject: x\r\n\r\nbody\r\n"
TAKEN = Reply(250, "2.0.0", "taken", "mx.there.example [8.8.8.1]")
LATER = Reply(450, "4.2.0", "later", "mx.there.example [8.8.8.1]")
NEVER = Reply(550, "5.1.1", "unknown", "mx.there.example [8.8.8.1]")
BOB = "bob@there.example"


def unreachable() -> Failed:
    """What is raised for a host that nobody can connect to."""
    return Failed(Reply(451, "4.4.1", "mx cannot be reached: no answer"))


class FakeDns:
    """Answers from `{"MX example.org": [...]}`; a `Temporary` in the table is raised; all else does not exist."""

    def __init__(self, table: Mapping[str, Any] | None = None) -> None:
        self.table = dict(table or {})
        self.asked: list[str] = []

    def _answer(self, question: str) -> Any:
        self.asked.append(question)
        answer = self.table.get(question, [])
        if isinstance(answer, Temporary):
            raise answer
        return answer

    async def a(self, name: str) -> Sequence[str]:
        return self._answer(f"A {name}")

    async def aaaa(self, name: str) -> Sequence[str]:
        return self._answer(f"AAAA {name}")

    async def mx(self, name: str) -> Sequence[tuple[int, str]]:
        return self._answer(f"MX {name}")

    async def txt(self, name: str) -> Sequence[bytes]:
        return self._answer(f"TXT {name}")

    async def ptr(self, address: str) -> Sequence[str]:
        return self._answer(f"PTR {address}")

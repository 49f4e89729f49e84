"""What waits to be sent, in one line for each way it goes: whose turn it is. No I/O.

The lines take turns, mail by mail, so that one with a thousand mails holds up none with a single one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.delivery.attempt import Lane, Work
from gateway.model import Delivery


@dataclass(slots=True)
class _Line:
    """The mail of one lane: what waits, and how much of it is under way. `in_turn`: it stands in `Lines._turns`."""

    waiting: deque[Work] = field(default_factory=deque)
    running: int = 0
    in_turn: bool = False


class Lines:
    """Works that wait, and how many of each lane are under way."""

    def __init__(self) -> None:
        self._lines: dict[Lane, _Line] = {}
        self._turns: deque[tuple[Lane, _Line]] = deque()

    def add(self, work: Work) -> None:
        """Put *work* at the end of its line."""
        line = self._lines.setdefault(work.lane, _Line())
        line.waiting.append(work)
        self._queue_up(work.lane, line)

    def next(self, per_lane: int) -> Work | None:
        """The work whose turn it is, under way from now on; None where no lane has one that may begin.

        A lane of which *per_lane* works are under way waits until one of them is `done`.
        """
        while self._turns:
            lane, line = self._turns.popleft()
            line.in_turn = False
            if line.waiting and line.running < per_lane:
                line.running += 1
                work = line.waiting.popleft()
                self._queue_up(lane, line)
                return work
        return None

    def done(self, work: Work) -> int:
        """*work* is no longer under way. Return how many still wait in its line."""
        line = self._lines[work.lane]
        line.running -= 1
        self._queue_up(work.lane, line)
        if not (line.running or line.waiting):
            del self._lines[work.lane]
        return len(line.waiting)

    def full(self, enough: int) -> dict[Lane, set[str]]:
        """The lanes in which at least *enough* works wait, each with the domains of these."""
        lines = {lane: line.waiting for lane, line in self._lines.items() if len(line.waiting) >= enough}
        return {
            lane: {one.destination for work in waiting for one in work.deliveries} for lane, waiting in lines.items()
        }

    def clear(self) -> Iterator[Delivery]:
        """Take away all that waits."""
        for line in self._lines.values():
            while line.waiting:
                yield from line.waiting.popleft().deliveries

    def _queue_up(self, lane: Lane, line: _Line) -> None:
        if line.waiting and not line.in_turn:
            line.in_turn = True
            self._turns.append((lane, line))

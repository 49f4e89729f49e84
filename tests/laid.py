"""`gateway.model.Payloads` for tests: what parts hold, by their paths; what filters add is kept for the test to see."""

from collections.abc import Mapping, Sequence

from gateway.model import Part


class Laid:
    """Parts that hold *octets*, in a mail with these *words*."""

    def __init__(self, octets: Mapping[str, bytes], words: Sequence[bytes] = ()) -> None:
        self._octets = octets
        self._words = words
        self.added: list[tuple[str, str, bytes]] = []
        """Path of the part, name of the file, and its octets."""

    def of(self, part: Part, most: int) -> bytes:
        return self._octets.get(part.path, b"")[:most]

    def words(self) -> Sequence[bytes]:
        return self._words

    def add(self, part: Part, name: str, octets: bytes) -> None:
        self.added.append((part.path, name, octets))

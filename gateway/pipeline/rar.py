"""Whether a RAR archive is locked, by its headers alone: libarchive tells it of RAR 4 files only.

The rule: no more than `MOST` headers are looked at; what cannot be read is for libarchive to fail on.
"""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

RAR4, RAR5 = b"Rar!\x1a\x07\0", b"Rar!\x1a\x07\x01\0"
MOST = 10_000
_MAX_HEADER = 2 << 20
_FARTHEST = 1 << 62
_FILE, _SERVICE, _ENCRYPTION, _END = 2, 3, 4, 5
_ENCRYPTED = 1


class _Block(NamedTuple):
    """A header of RAR 5.0: its type, its extra area, and where the next one begins."""

    kind: int
    extra: bytes
    next: int


def is_nameless(file: BinaryIO) -> bool:
    """Whether the headers themselves are encrypted (rar -hp): not even names can be told."""
    file.seek(0)
    head = file.read(64)
    if head.startswith(RAR4):  # technote.txt: the main header and its flag for encrypted headers
        return head[9:10] == b"\x73" and bool(int.from_bytes(head[10:12], "little") & 0x80)
    block = _block(file, len(RAR5)) if head.startswith(RAR5) else None
    return block is not None and block.kind == _ENCRYPTION


def is_locked(file: BinaryIO) -> bool:
    """Whether a file of a RAR 5.0 archive has a record of encryption."""
    file.seek(0)
    at = len(RAR5)
    if file.read(at) != RAR5:
        return False
    for _ in range(MOST):
        block = _block(file, at)
        if block is None or block.kind == _END:
            return False
        if block.kind in {_FILE, _SERVICE} and _ENCRYPTED in _records(block.extra):
            return True
        at = block.next
    return False


def _block(file: BinaryIO, at: int) -> _Block | None:
    """The header at *at* (RAR 5.0 archive format, "General archive block format"), or None where there is none."""
    file.seek(min(at + 4, _FARTHEST))
    head = file.read(64)
    size, start = _vint(head, 0)
    if not head or not 0 < size <= _MAX_HEADER:
        return None
    file.seek(min(at + 4 + start, _FARTHEST))
    header = file.read(size)
    kind, place = _vint(header, 0)
    flags, place = _vint(header, place)
    extra, place = _vint(header, place) if flags & 1 else (0, place)
    data, place = _vint(header, place) if flags & 2 else (0, place)
    return _Block(
        kind, header[len(header) - extra :] if 0 < extra <= len(header) else b"", at + 4 + start + size + data
    )


def _records(extra: bytes) -> set[int]:
    """The types of the records in an extra area."""
    kinds, place = set(), 0
    while place < len(extra):
        size, start = _vint(extra, place)
        kinds.add(_vint(extra, start)[0])
        place = start + max(size, 1)
    return kinds


def _vint(octets: bytes, place: int) -> tuple[int, int]:
    """The number at *place*, seven bits in each octet, and where it ends."""
    number = 0
    for position, octet in enumerate(octets[place : place + 10]):
        number |= (octet & 127) << 7 * position
        if octet < 128:
            return number, place + position + 1
    return number, len(octets)

"""Where a message waits while it comes in: in a memfd, and from a certain size on in a file that has no name.

Rule: never whole in our memory, and nothing is left behind, whatever kills us.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from io import BufferedReader, FileIO
from pathlib import Path
from typing import BinaryIO

_BLOCK = 256 << 10
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM}


class Spool:
    """One message. Every method may raise `OSError`; `is_full` tells whether room is what lacks."""

    def __init__(self, folder: Path, memory: int) -> None:
        """*memory*: octets from which on the content moves to a file in *folder*."""
        self._folder = folder
        self._memory = memory
        self._size = 0
        self._file: FileIO | None = None

    def write(self, content: bytes) -> None:
        """Append *content*."""
        if not content:
            return
        self._size += len(content)
        if self._size > self._memory:
            self._move_to_disk()
        _write_all(self._opened(), content)

    def finish(self) -> BinaryIO:
        """The whole content from its start, for reading. It is the caller's to close."""
        file = self._opened()
        file.seek(0)
        self._file = None
        return BufferedReader(file)

    def close(self) -> None:
        """Forget everything; after `finish` there is nothing left to forget."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _opened(self) -> FileIO:
        if self._file is None:
            self._file = FileIO(os.memfd_create("message"), "r+")
        return self._file

    def _move_to_disk(self) -> None:
        self._memory = 1 << 62
        on_disk = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115 - it outlives this call
        memory, self._file = self._file, on_disk
        if memory is not None:
            with memory:
                memory.seek(0)
                shutil.copyfileobj(memory, on_disk, _BLOCK)


def _write_all(file: FileIO, content: bytes) -> None:
    """Raw writes may be short when the room runs out; the next one then says why."""
    written = file.write(content)
    while written < len(content):
        written += file.write(memoryview(content)[written:])


def is_full(error: OSError) -> bool:
    """Whether *error* says that there is no room."""
    return error.errno in _FULL

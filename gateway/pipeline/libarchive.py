"""libarchive by ctypes: the few functions with which an archive in memory is read, entry after entry.

The rule: no format and no filter is enabled but the ones asked for, none that starts a program, and no file is opened.
All is loaded by `prepare`, before the process is confined; where there is no libarchive, every archive is `Broken`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

LIBRARY = "libarchive.so.13"
BLOCK = 64 << 10
_OK, _EOF, _RETRY, _WARN = 0, 1, -10, -20
_FOLDER, _FILE, _LINK = 0o040000, 0o100000, 0o120000
_RAW, _TAR = 0x90000, 0x30000
_FILTERS = {"gzip": 1, "bzip2": 2, "lzma": 5, "xz": 6, "rpm": 8, "lzip": 9, "lz4": 13}
_BY_THEMSELVES = frozenset({"compress", "zstd"})
"""`archive_read_append_filter` does not know the second, and crashes on the first, which it would read at once."""
_READ = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
_SEEK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int)


class Broken(Exception):
    """libarchive cannot read it, or is not there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive: `link` is where it points, `bare` that it was only packed, and has no archive around it.
    `device`: it is one, or a pipe, or the folder of a tar with octets of its own: some programs make a file of these.

    `read` gives the next octets, at most so many, b"" at the end, until the next entry is asked for; `Broken` where
    they cannot be had: then no other entry may be asked for, for that is where libarchive 3.6 crashes.
    """

    name: str
    size: int
    encrypted: bool
    folder: bool
    device: bool
    bare: bool
    link: str
    read: Callable[[int], bytes]


class _Source(NamedTuple):
    file: BinaryIO
    buffer: ctypes.Array[ctypes.c_char]
    deadline: float


_sources: dict[int, _Source] = {}
_numbers = itertools.count(1)


def _read(_: int, number: int, block: Any) -> int:
    """Hand over the next block; libarchive takes any negative number for an error."""
    source = _sources[number]
    if time.process_time() > source.deadline:
        return -1
    try:
        octets = source.file.read(BLOCK)
    except Exception:  # noqa: BLE001  no exception may pass through C
        return -1
    ctypes.memmove(source.buffer, octets, len(octets))
    block[0] = ctypes.addressof(source.buffer)
    return len(octets)


def _seek(_: int, number: int, offset: int, whence: int) -> int:
    try:
        return _sources[number].file.seek(offset, whence)
    except Exception:  # noqa: BLE001  as above
        return -1


class _Library(NamedTuple):
    functions: Any
    read: Any
    seek: Any


@functools.cache
def prepare() -> _Library | None:
    """Load the library and make what it calls back: afterwards neither needs a file any more."""
    try:
        functions: Any = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    handle, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, *arguments in (
        ("archive_read_new", handle),
        ("archive_read_free", ctypes.c_int, handle),
        ("archive_read_append_filter", ctypes.c_int, handle, ctypes.c_int),
        ("archive_read_set_format_option", ctypes.c_int, handle, text, text, text),
        ("archive_read_add_passphrase", ctypes.c_int, handle, text),
        ("archive_read_set_read_callback", ctypes.c_int, handle, _READ),
        ("archive_read_set_seek_callback", ctypes.c_int, handle, _SEEK),
        ("archive_read_set_callback_data", ctypes.c_int, handle, handle),
        ("archive_read_open1", ctypes.c_int, handle),
        ("archive_read_next_header", ctypes.c_int, handle, ctypes.POINTER(handle)),
        ("archive_read_data", ctypes.c_ssize_t, handle, text, ctypes.c_size_t),
        ("archive_format", ctypes.c_int, handle),
        ("archive_entry_pathname_utf8", text, handle),
        ("archive_entry_pathname", text, handle),
        ("archive_entry_symlink_utf8", text, handle),
        ("archive_entry_hardlink_utf8", text, handle),
        ("archive_entry_size", ctypes.c_int64, handle),
        ("archive_entry_filetype", ctypes.c_uint, handle),
        ("archive_entry_is_encrypted", ctypes.c_int, handle),
    ):
        function = getattr(functions, name)
        function.restype, function.argtypes = result, arguments
    return _Library(functions, _READ(_read), _SEEK(_seek))


@contextlib.contextmanager
def opened(
    file: BinaryIO,
    formats: Sequence[str],
    packing: str = "",
    password: bytes | None = None,
    deadline: float = math.inf,
    without: Sequence[str] = (),
) -> Iterator[Iterator[Entry]]:
    """The entries of *file*, an archive of one of *formats* (libarchive's names), itself packed by *packing* or not.

    *without* names extensions of ISO 9660 that are not heeded ("joliet", "rockridge").

    `Broken` where it cannot be opened, and where it cannot be read on; also after *deadline*, in seconds of this
    process's processor time.
    """
    library = prepare()
    if library is None:
        raise Broken
    number, functions = next(_numbers), library.functions
    _sources[number] = _Source(file, ctypes.create_string_buffer(BLOCK), deadline)
    archive = ctypes.c_void_p(functions.archive_read_new())
    try:
        file.seek(0)
        _expect(functions, archive, formats, packing, without)
        if password:
            functions.archive_read_add_passphrase(archive, password)
        functions.archive_read_set_read_callback(archive, library.read)
        functions.archive_read_set_seek_callback(archive, library.seek)
        functions.archive_read_set_callback_data(archive, number)
        _check(functions.archive_read_open1(archive))
        yield _entries(functions, archive)
    finally:
        functions.archive_read_free(archive)
        del _sources[number]


def _expect(
    functions: Any, archive: ctypes.c_void_p, formats: Sequence[str], packing: str, without: Sequence[str]
) -> None:
    """Let *archive* be what `opened` was told, and nothing else."""
    for name in formats:
        getattr(functions, f"archive_read_support_format_{name}")(archive)
    if "tar" in formats:  # some programs read on behind the blocks of zeros that end a tar
        functions.archive_read_set_format_option(archive, b"tar", b"read_concatenated_archives", b"1")
    for name in without:
        functions.archive_read_set_format_option(archive, b"iso9660", name.encode(), None)
    if packing:
        _check(_unpacked(functions, archive, packing))


def _unpacked(functions: Any, archive: ctypes.c_void_p, packing: str) -> int:
    """Have exactly one layer of packing taken off: what is packed in it again is an archive within an archive."""
    if packing in _BY_THEMSELVES:
        return int(getattr(functions, f"archive_read_support_filter_{packing}")(archive))
    return int(functions.archive_read_append_filter(archive, _FILTERS[packing]))


def _check(status: int) -> None:
    if status != _OK:
        raise Broken


def _entries(functions: Any, archive: ctypes.c_void_p) -> Iterator[Entry]:
    entry = ctypes.c_void_p()
    while (status := functions.archive_read_next_header(archive, ctypes.byref(entry))) != _EOF:
        if status < _WARN:
            raise Broken
        if status != _RETRY:
            yield _entry(functions, archive, entry)


def _entry(functions: Any, archive: ctypes.c_void_p, entry: ctypes.c_void_p) -> Entry:
    name = functions.archive_entry_pathname_utf8(entry) or functions.archive_entry_pathname(entry) or b""
    kind = functions.archive_entry_filetype(entry) & 0o170000
    is_tar = functions.archive_format(archive) & 0xFF0000 == _TAR
    link = functions.archive_entry_symlink_utf8(entry) or functions.archive_entry_hardlink_utf8(entry) or b""
    return Entry(
        name.decode("utf-8", "replace"),
        max(0, functions.archive_entry_size(entry)),
        functions.archive_entry_is_encrypted(entry) > 0,
        kind == _FOLDER,
        kind not in {0, _FOLDER, _FILE, _LINK}
        or (is_tar and kind == _FOLDER and functions.archive_entry_size(entry) > 0),
        functions.archive_format(archive) == _RAW,
        link.decode("utf-8", "replace"),
        functools.partial(_data, functions, archive),
    )


def _data(functions: Any, archive: ctypes.c_void_p, most: int) -> bytes:
    buffer = ctypes.create_string_buffer(min(most, BLOCK))
    while (got := functions.archive_read_data(archive, buffer, len(buffer))) == _RETRY:
        pass
    if got < 0:
        raise Broken
    return buffer.raw[:got]

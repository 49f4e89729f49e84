"""What the archives of one mail hold, as parts like any other. It runs in the confined child.

The rule: what an archive says of its files is never trusted; what exceeds a limit makes the mail `Unscannable`.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import BinaryIO

from gateway.model import Part
from gateway.pipeline.mime import file_name
from gateway.pipeline.sniff import PREFIX, sniff
from gateway.pipeline.tray import Unscannable
from gateway.stages import Content as ContentPolicy

Limits = ContentPolicy.Settings


class Archives:
    """The archives of one mail, and what is left of their limits; *keep* takes each part, *doubt* what is unclear."""

    def __init__(self, limits: Limits, keep: Callable[[Part], None], doubt: Callable[[str], None]) -> None:
        self._limits = limits
        self._keep = keep
        self._doubt = doubt
        self._members = 0
        self._octets = 0

    def look(self, file: BinaryIO, path: str, depth: int = 1) -> None:
        """Look into *file*, which begins as a zip, or bears the name of one and is one behind other octets."""
        begins = file.read(4)
        if begins.startswith(b"PK") or zipfile.is_zipfile(file):
            self._unzip(file, begins, path, depth)

    def _unzip(self, file: BinaryIO, begins: bytes, path: str, depth: int) -> None:
        """Add what the zip *file* holds; its members are opened only as far as `sniff` needs, archives in it whole."""
        if depth > self._limits.archive_depth:
            raise Unscannable(f"archives are nested more than {self._limits.archive_depth} deep")
        try:
            with zipfile.ZipFile(file) as archive:
                if begins == b"PK\3\4" and min((i.header_offset for i in archive.infolist()), default=1):
                    self._doubt(f"the archive in part {path} holds more than its directory names")
                for info in archive.infolist():
                    self._member(archive, info, path, depth)
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OSError) as error:
            raise Unscannable(f"the archive in part {path} cannot be read ({type(error).__name__})") from None

    def _member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, depth: int) -> None:
        self._members += 1
        if self._members > self._limits.archive_members:
            raise Unscannable(f"archives hold more than {self._limits.archive_members} files")
        encrypted = bool(info.flag_bits & 1)
        name = file_name(info.filename)
        is_folder = info.filename.endswith("/")  # is_dir() of 3.11 fails where there is no name
        first = b"" if encrypted or is_folder else self._unpacked(archive, info, PREFIX)
        inner = f"{path}/{name}"
        sniffed = sniff(first)
        self._keep(Part(inner, "", name, sniffed, info.file_size, encrypted))
        if sniffed == "application/zip" or (first and _is_zip_name(name)):
            left = self._limits.archive_size - self._octets
            self.look(io.BytesIO(self._unpacked(archive, info, left + 1)), inner, depth + 1)

    def _unpacked(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
        with archive.open(info) as member:
            data = member.read(most)
        self._octets += len(data)
        if self._octets > self._limits.archive_size:
            raise Unscannable(f"archives hold more than {self._limits.archive_size} octets")
        return data


def claimed(sniffed: str, kind: str, names: Iterable[str]) -> bool:
    """Whether a part is an archive by its first bytes (`sniff`), by its declared media type or by one of its names."""
    return sniffed == "application/zip" or "zip" in kind or any(_is_zip_name(name) for name in names)


def _is_zip_name(name: str) -> bool:
    return name.rstrip(" .").lower().endswith((".zip", ".zipx"))

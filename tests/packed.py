"""Archives for tests, octet by octet: those that no program would make, and those whose programs are not free."""

from __future__ import annotations

import base64
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

SAMPLES = Path(__file__).parent / "archives"
"""Archives of other programs. Each holds run.exe, which begins with MZ and does nothing; the password is Geheim12."""

RUN = b"MZ harmless"


def mail(packed: bytes, name: str = "a.bin", text: str = "hello", subject: str = "files") -> bytes:
    """A mail with *text* and with *packed* as its second part."""
    encoded = base64.encodebytes(packed).replace(b"\n", b"\r\n")
    return (
        f"From: a@b.example\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"
        f"--B\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n{text}\r\n--B\r\n"
        f'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="{name}"\r\n'
        "Content-Transfer-Encoding: base64\r\n\r\n"
    ).encode() + (encoded + b"--B--\r\n")


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


@dataclass(frozen=True)
class Member:
    """A file of a zip, stored: what its header and its directory say of it can be changed apart from each other."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"
    method: int = 0
    flags: int = 0
    size: int = -1
    packed: int = -1
    offset: int = -1
    extra: bytes = b""

    def header(self) -> bytes:
        size, packed = (len(self.data) if n < 0 else n for n in (self.size, self.packed))
        fixed = (
            20,
            self.flags,
            self.method,
            0,
            0,
            zlib.crc32(self.data),
            packed,
            size,
            len(self.name),
            len(self.extra),
        )
        return struct.pack("<4s5H3I2H", b"PK\3\4", *fixed) + self.name + self.extra + self.data

    def record(self, offset: int) -> bytes:
        size, packed = (len(self.data) if n < 0 else n for n in (self.size, self.packed))
        offset = offset if self.offset < 0 else self.offset
        fixed = (20, 20, self.flags, self.method, 0, 0, zlib.crc32(self.data), packed, size, len(self.name))
        return (
            struct.pack("<4s6H3I5H2I", b"PK\1\2", *fixed, len(self.extra), 0, 0, 0, 0, offset) + self.name + self.extra
        )


def crafted(members: Iterable[Member | tuple[Member, Member]], before: bytes = b"", behind: bytes = b"") -> bytes:
    """A zip of *members*: each the same in header and directory, or a pair of both."""
    body, records = before, []
    for member in members:
        header, record = member if isinstance(member, tuple) else (member, member)
        records.append(record.record(len(body)))
        body += header.header()
    body += behind
    directory = b"".join(records)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(records), len(records), len(directory), len(body), 0)
    return body + directory + end


def two(member: Member, **changes: bytes | int) -> tuple[Member, Member]:
    """*member*, and what the directory says of it instead."""
    return member, replace(member, **changes)  # type: ignore[arg-type]  the fields are octets and numbers


def overlapping(files: int = 250, size: int = 40 << 20) -> bytes:
    """A zip bomb of *files* that all are the same octets: 10 GB in 50 KB."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bytes(size)) + deflate.flush()
    member = Member(b"a", packed, 8, size=size)
    return crafted([member, *((replace(member, data=b""), replace(member, offset=0)) for _ in range(files))])


def million(files: int = 1_000_000) -> bytes:
    """A zip64 of so many empty files."""
    header, record = Member(b"a", b"").header(), Member(b"a", b"").record(0)
    body, directory = header * files, record * files
    end = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, files, files, len(directory), len(body))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(body) + len(directory), 1)
    return (
        body + directory + end + locator + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *[0xFFFF] * 2, *[0xFFFFFFFF] * 2, 0)
    )


def nested(packed: bytes, depth: int, copies: int = 1) -> bytes:
    """*packed* in zips in zips, *depth* of them, each with so many *copies*."""
    for _ in range(depth):
        packed = zipped({f"{number}.zip": packed for number in range(copies)})
    return packed


def rar5(name: bytes, data: bytes, *, locked: bool = False, nameless: bool = False) -> bytes:
    """RAR 5.0, stored (RAR 5.0 archive format); *locked* has an encryption record, *nameless* an encryption header."""

    def block(content: bytes) -> bytes:
        sized = _vint(len(content)) + content
        return struct.pack("<I", zlib.crc32(sized)) + sized

    mark = b"Rar!\x1a\x07\x01\0"
    if nameless:
        return mark + block(bytes((4, 0, 0, 0, 15)) + bytes(16)) + bytes(64)
    record = _vint(1) + bytes((0, 0, 15)) + bytes(32)
    extra = _vint(len(record)) + record if locked else b""
    fields = _vint(2) + _vint(3 if locked else 2) + (_vint(len(extra)) if locked else b"") + _vint(len(data))
    fields += _vint(4) + _vint(len(data)) + _vint(0o644) + struct.pack("<I", zlib.crc32(data)) + _vint(0) + _vint(1)
    return (
        mark
        + block(bytes((1, 0, 0)))
        + block(fields + _vint(len(name)) + name + extra)
        + data
        + block(bytes((5, 0, 0)))
    )


def _vint(number: int) -> bytes:
    octets = bytearray()
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    return bytes((*octets, number))


def rar4(name: bytes, data: bytes, *, locked: bool = False, nameless: bool = False) -> bytes:
    """RAR 4, stored (technote.txt of RAR 4.20)."""

    def block(kind: int, flags: int, content: bytes) -> bytes:
        rest = struct.pack("<BHH", kind, flags, len(content) + 7) + content
        return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest

    fields = struct.pack(
        "<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x21 << 16, 20, 0x30, len(name), 0o100644
    )
    file = block(0x74, 0x8000 | (4 if locked else 0), fields + name) + data
    return b"Rar!\x1a\x07\0" + block(0x73, 0x80 if nameless else 0, bytes(6)) + file + block(0x7B, 0x4000, b"")


def lha(name: bytes, data: bytes) -> bytes:
    """LHA, stored, with a header of level 0."""
    content = b"-lh0-" + struct.pack("<IIIBBB", len(data), len(data), 0, 0x20, 0, len(name)) + name
    content += struct.pack("<H", _crc16(data))
    return bytes((len(content), sum(content) & 0xFF)) + content + data + b"\0"


def _crc16(data: bytes) -> int:
    value = 0
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


def ar(name: bytes, data: bytes) -> bytes:
    """The archive that Debian packages are."""
    return (
        b"!<arch>\n"
        + b"%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (name, 0, 0, 0, b"100644", len(data))
        + data
        + b"\n" * (len(data) % 2)
    )


def cpio(name: bytes, data: bytes) -> bytes:
    """The new ASCII format without checksum."""

    def entry(name: bytes, data: bytes, mode: int) -> bytes:
        numbers = (1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name + b"\0"
        return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)

    return entry(name, data, 0o100644) + entry(b"TRAILER!!!", b"", 0)


def compressed(data: bytes) -> bytes:
    """A .Z: each octet is a code of 9 bits, which is all that a short file needs."""
    codes = sum(octet << 9 * place for place, octet in enumerate(data))
    return b"\x1f\x9d\x90" + codes.to_bytes((9 * len(data) + 7) // 8, "little")


def rpm(name: bytes, data: bytes) -> bytes:
    """A lead, two empty headers, and a cpio behind gzip."""
    lead = b"\xed\xab\xee\xdb\3\0" + bytes(90)
    header = b"\x8e\xad\xe8\x01" + bytes(12)
    return lead + header + header + gzip.compress(cpio(name, data))

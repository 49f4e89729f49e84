"""Documents made for tests, harmless all: compound files, VBA projects, workbooks, rich text. Written as the formats say."""

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence

END, FREE, FAT = 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFD
NOTHING = bytes(16)


def compound(streams: Mapping[str, bytes], clsids: Mapping[str, bytes] | None = None) -> bytes:
    """A compound file ([MS-CFB]) of *streams* by path ("Macros/VBA/dir"); *clsids* by the path of a storage, "" the root."""
    names = ["", *sorted({path[:n] for path in streams for n, c in enumerate(path) if c == "/"}), *streams]
    body, mini, fat, mini_fat, starts = bytearray(), bytearray(), [], [], {}
    for path, octets in streams.items():
        if 0 < len(octets) < 4096:
            starts[path] = len(mini_fat)
            count = -(-len(octets) // 64)
            mini_fat += [*range(len(mini_fat) + 1, len(mini_fat) + count), END]
            mini += octets.ljust(count * 64, b"\0")
        else:
            starts[path] = _put(octets, body, fat)
    starts[""] = _put(bytes(mini), body, fat)
    first_mini = _put(struct.pack(f"<{len(mini_fat)}I", *mini_fat), body, fat, b"\xff")
    directory = b"".join(
        _entry(
            names,
            number,
            starts.get(path, 0),
            len(mini) if not path else len(streams.get(path, b"")),
            path in streams,
            (clsids or {}).get(path, NOTHING),
        )
        for number, path in enumerate(names)
    )
    first = _put(directory, body, fat)
    count = -(-len(fat) // 127)
    tables = list(range(len(fat), len(fat) + count))
    fat += [FAT] * count
    body += struct.pack(f"<{count * 128}I", *fat, *[FREE] * (count * 128 - len(fat)))
    header = struct.pack(
        "<8s16xHHHHH6xIIIIIIIIII", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 0x3E, 3, 0xFFFE, 9, 6,
        0, count, first, 0, 4096, first_mini, len(mini_fat) and -(-len(mini_fat) // 128), END, 0, *tables[:1],
    )  # fmt: skip
    return header + struct.pack("<108I", *tables[1:], *[FREE] * (109 - len(tables))) + bytes(body)


def _put(octets: bytes, body: bytearray, fat: list[int], fill: bytes = b"\0") -> int:
    if not octets:
        return END
    start, count = len(fat), -(-len(octets) // 512)
    fat += [*range(start + 1, start + count), END]
    body += octets.ljust(count * 512, fill)
    return start


def _entry(names: Sequence[str], number: int, start: int, size: int, is_stream: bool, clsid: bytes) -> bytes:
    """A directory entry; what lies in one storage hangs to the right, one behind the other, in their order."""
    path = names[number]
    children = sorted((n for n in range(1, len(names)) if _parent(names[n]) == path), key=lambda n: _order(names[n]))
    family = sorted(
        (n for n in range(1, len(names)) if path and _parent(names[n]) == _parent(path)), key=lambda n: _order(names[n])
    )
    after = family[family.index(number) + 1 :] if path else []
    name = (path.rpartition("/")[2] if path else "Root Entry").encode("utf-16-le") + b"\0\0"
    kind = 5 if not path else 2 if is_stream else 1
    child = children[0] if children and not is_stream else FREE
    return struct.pack(
        "<64sHBBIII16s20xIQ", name, len(name), kind, 1, FREE, after[0] if after else FREE, child, clsid, start, size
    )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _order(path: str) -> tuple[int, str]:
    return len(path.rpartition("/")[2]), path.rpartition("/")[2].upper()


def packed(octets: bytes) -> bytes:
    """A container of [MS-OVBA] 2.4.1, with copy tokens where something stands twice."""
    chunks = (octets[n : n + 4096] for n in range(0, len(octets), 4096))
    return b"\x01" + b"".join(map(_chunk, chunks))


def _chunk(plain: bytes) -> bytes:
    out, at = bytearray(), 0
    while at < len(plain):
        flags, tokens = 0, bytearray()
        for bit in range(8):
            back, length = _repeated(plain, at)
            if length >= 3:
                bits = max((at - 1).bit_length(), 4)
                tokens += struct.pack("<H", (back - 1) << (16 - bits) | (length - 3))
                flags |= 1 << bit
                at += length
            else:
                tokens += plain[at : at + 1]
                at += 1
        out += bytes([flags]) + tokens
    return struct.pack("<H", 0xB000 | (len(out) - 1)) + out


def _repeated(plain: bytes, at: int) -> tuple[int, int]:
    if at < 1:
        return 0, 0
    longest = (0xFFFF >> max((at - 1).bit_length(), 4)) + 3
    for length in range(min(longest, 24, len(plain) - at), 2, -1):
        if (found := plain.rfind(plain[at : at + length], 0, at)) >= 0:
            return at - found, length
    return 0, 0


def project(
    modules: Mapping[str, str],
    storage: str = "Macros",
    cache: bytes = b"",
    lost: Sequence[str] = (),
    compiled: int = 200,
) -> dict[str, bytes]:
    """The streams of a VBA project: *modules* by name, source as typed. *cache* stands in _VBA_PROJECT, as p-code's names
    do, and each module has *compiled* octets of it; the modules that are *lost* have no source any more."""
    before = b"\x01\x16\x01" + bytes(compiled)
    listed = b"".join(_record(0x19, n.encode()) + _record(0x1A, n.encode()) + _record(0x32, n.encode("utf-16-le"))
                      + _record(0x31, struct.pack("<I", len(before))) + _record(0x21, b"") + _record(0x2B, b"") for n in modules)  # fmt: skip
    directory = b"".join([
        _record(0x01, struct.pack("<I", 1)), _record(0x02, struct.pack("<I", 0x409)), _record(0x14, struct.pack("<I", 0x409)),
        _record(0x03, struct.pack("<H", 1252)), _record(0x04, b"VBAProject"), _record(0x05, b""), _record(0x40, b""),
        _record(0x06, b""), _record(0x3D, b""), _record(0x07, bytes(4)), _record(0x08, bytes(4)),
        struct.pack("<HIIH", 9, 4, 1, 1), _record(0x0C, b""), _record(0x3C, b""),
        _record(0x0F, struct.pack("<H", len(modules))), _record(0x13, b"\xff\xff"), listed, _record(0x10, b""),
    ])  # fmt: skip
    prefix = f"{storage}/" if storage else ""
    lines = "\r\n".join(f"Module={name}" for name in modules)
    streams = {f"{prefix}PROJECT": f'ID="{{1}}"\r\n{lines}\r\n'.encode(), f"{prefix}VBA/dir": packed(directory)}
    streams[f"{prefix}VBA/_VBA_PROJECT"] = b"\xcc\x61\xff\xff\0\0\0" + cache
    for name, source in modules.items():
        text = f'Attribute VB_Name = "{name}"\r\n{source}'.encode("latin-1")
        streams[f"{prefix}VBA/{name}"] = before + (bytes(64) if name in lost else packed(text))
    return streams


def _record(kind: int, body: bytes) -> bytes:
    return struct.pack("<HI", kind, len(body)) + body


def word(
    extra: Mapping[str, bytes] | None = None, text: bytes = b"Dear all", flags: int = 0, template: str = ""
) -> bytes:
    """A Word 97 file, as far as readers of macros look: FIB, text, table, and the streams *extra*."""
    strings = ["", template]
    table = struct.pack("<HHH", 0xFFFF, 2, 0) + b"".join(
        struct.pack("<H", len(s)) + s.encode("utf-16-le") for s in strings
    )
    main = struct.pack("<HHHHHH", 0xA5EC, 0xC1, 0, 0x409, 0, flags).ljust(410, b"\0") + struct.pack(
        "<II", 0, len(table)
    )
    return compound(
        {"WordDocument": main.ljust(1024, b"\0") + text.ljust(4096, b"\0"), "0Table": table, **(extra or {})}
    )


def workbook(
    *records: bytes, extra: Mapping[str, bytes] | None = None, macro_sheet: int | None = None, kind: int = 1
) -> bytes:
    """An Excel 97 file: globals of *records*; one sheet of Excel 4 macros with the state *macro_sheet* (0 to 2), if any.
    *kind* is what its entry says (1: macros)."""
    return compound(
        {"Workbook": biff(*records, macro_sheet=macro_sheet, kind=kind).ljust(4096, b"\0"), **(extra or {})}
    )


def biff(*records: bytes, macro_sheet: int | None = None, kind: int = 1) -> bytes:
    begin, end = record(0x809, struct.pack("<HHHHII", 0x0600, 5, 0x0DBB, 0x07CC, 0, 6)), record(0x0A)
    if macro_sheet is None:
        return begin + b"".join(records) + end
    name = b"Sheet1"
    at = len(begin) + sum(map(len, records)) + 4 + 8 + len(name) + len(end)
    sheet = record(0x85, struct.pack("<IBBBB", at, macro_sheet, kind, len(name), 0) + name)
    return (
        begin + b"".join(records) + sheet + end + record(0x809, struct.pack("<HHHHII", 0x0600, 0x40, 0, 0, 0, 6)) + end
    )


def record(kind: int, body: bytes = b"") -> bytes:
    """One record of a workbook."""
    return struct.pack("<HH", kind, len(body)) + body


def defined_name(builtin: int = 0, name: bytes = b"") -> bytes:
    """A NAME record: a built-in one by its number, or one by its name."""
    text = bytes([builtin]) if builtin else name
    return record(
        0x18, struct.pack("<HBBHHHBBBB", 0x20 if builtin else 0, 0, len(text), 0, 0, 0, 0, 0, 0, 0) + b"\0" + text
    )


def dde_link(program: str, topic: str) -> bytes:
    """A SUPBOOK record that links to a program."""
    path = f"{program}\3{topic}".encode("latin-1")
    return record(0x1AE, struct.pack("<HHB", 0, len(path), 0) + path)


def package(name: str, octets: bytes) -> bytes:
    """What a package holds, without the length before it."""
    path = f"C:\\{name}\0".encode("latin-1")
    return (
        b"\2\0"
        + f"{name}\0".encode("latin-1")
        + path
        + struct.pack("<HHI", 0, 3, len(path))
        + path
        + struct.pack("<I", len(octets))
        + octets
    )


def native(name: str, octets: bytes) -> bytes:
    """The stream Ole10Native of a package."""
    inside = package(name, octets)
    return struct.pack("<I", len(inside)) + inside


def ole1(name: str, octets: bytes) -> bytes:
    """An object of OLE 1 as rich text has them ([MS-OLEDS] 2.2.5)."""
    text = name.encode() + b"\0"
    return struct.pack("<III", 0x501, 2, len(text)) + text + bytes(8) + struct.pack("<I", len(octets)) + octets


def active_mime(octets: bytes) -> bytes:
    return b"ActiveMime\0\0" + bytes(18) + struct.pack("<H", 4) + bytes(18) + zlib.compress(octets)


def slides(octets: bytes, compressed: bool = True) -> bytes:
    """A PowerPoint file with one object."""
    body = struct.pack("<I", len(octets)) + zlib.compress(octets) if compressed else octets
    stream = struct.pack("<HHI", 0x10 if compressed else 0, 0x1011, len(body)) + body
    return compound({"PowerPoint Document": stream.ljust(4096, b"\0")})


def notebook(*files: bytes) -> bytes:
    """A section of OneNote, as far as files in it go."""
    guid = bytes.fromhex("e716e3bd65261145a4c48d4d0b7a9eac")
    parts = (guid + struct.pack("<QIQ", len(one), 0, 0) + one + bytes(16) for one in files)
    return bytes.fromhex("e4525c7b8cd8a74daeb15378d02996d3") + bytes(512) + b"".join(parts)


def zipped(members: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def relationship(kind: str, target: str, mode: str = "External") -> str:
    """A part of relationships with one of them."""
    schema = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="yes"?><Relationships xmlns='
        '"http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="rId1" Type="{schema}/{kind}" Target="{target}" TargetMode="{mode}"/></Relationships>'
    )


def body(inner: str) -> str:
    """The main part of a Word document."""
    return f'<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p>{inner}</w:p></w:body></w:document>'


def field(*code: str) -> str:
    """A field, its code in one element or several."""
    texts = "".join(f'<w:r><w:instrText xml:space="preserve">{one}</w:instrText></w:r>' for one in code)
    return f'<w:r><w:fldChar w:fldCharType="begin"/></w:r>{texts}<w:r><w:fldChar w:fldCharType="end"/></w:r>'


def rich(*groups: str) -> bytes:
    return ("{\\rtf1\\ansi Dear all" + "".join(groups) + "}").encode("latin-1")


def objdata(octets: bytes, words: str = "") -> str:
    return "{\\object\\objemb" + words + "{\\*\\objdata " + octets.hex() + "}}"


def packed_rich(octets: bytes) -> bytes:
    """Rich text as Outlook packs the texts of mails (MS-OXRTFCP), without saving any room, and without its end."""
    runs = b"".join(b"\0" + octets[at : at + 8] for at in range(0, len(octets), 8))
    return struct.pack("<II4sI", len(runs) + 12, len(octets), b"LZFu", 0) + runs

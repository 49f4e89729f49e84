"""What do the first bytes of a file say that it is? A table of signatures; never the name, never the declared type."""

from __future__ import annotations

import re

PREFIX = 4096
"""How many octets of a file `sniff` wants to see."""

TNEF = "application/vnd.ms-tnef"
CMS = "application/pkcs7-mime"
OPENED = {TNEF, CMS}
"""Kinds of file that mail programs open themselves."""

_LHA = ("lh0", "lh1", "lh2", "lh3", "lh4", "lh5", "lh6", "lh7", "lhd", "lhx", "lzs", "lz4", "lz5")
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"MZ", "application/x-dosexec"),
    (0, b"\x7fELF", "application/x-executable"),
    (0, b"\xfe\xed\xfa\xce", "application/x-mach-binary"),
    (0, b"\xfe\xed\xfa\xcf", "application/x-mach-binary"),
    (0, b"\xce\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"\xcf\xfa\xed\xfe", "application/x-mach-binary"),
    (0, b"\xca\xfe\xba\xbe", "application/java-vm"),
    (0, b"#!", "text/x-shellscript"),
    (0, b"L\0\0\0\x01\x14\x02\0", "application/x-ms-shortcut"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", "application/onenote"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"Rar!\x1a\x07", "application/x-rar"),
    (0, b"MSCF", "application/vnd.ms-cab-compressed"),
    (0, b"\x1f\x8b", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"LZIP", "application/x-lzip"),
    (0, b"\x5d\0\0", "application/x-lzma"),
    (0, b"\x04\x22\x4d\x18", "application/x-lz4"),
    (0, b"\x02\x21\x4c\x18", "application/x-lz4"),
    *((0, b"%c\x2a\x4d\x18" % number, "application/x-skippable") for number in range(0x50, 0x60)),
    (0, b"\x1f\x9d", "application/x-compress"),
    (0, b"!<arch>\n", "application/x-archive"),
    (0, b"xar!", "application/x-xar"),
    (0, b"\xed\xab\xee\xdb", "application/x-rpm"),
    (0, b"070701", "application/x-cpio"),
    (0, b"070702", "application/x-cpio"),
    (0, b"070707", "application/x-cpio"),
    (0, b"\xc7\x71", "application/x-cpio"),
    (0, b"\x71\xc7", "application/x-cpio"),
    *((2, b"-%s-" % method.encode(), "application/x-lha") for method in _LHA),
    (0, b"SZDD\x88\xf0\x27\x33", "application/x-szdd"),
    (7, b"**ACE**", "application/x-ace"),
    (0, b"\x60\xea", "application/x-arj"),
    (257, b"ustar", "application/x-tar"),
    (20, b"\xdc\xa7\xc4\xfd", "application/x-zoo"),
    (0, b"SIT!", "application/x-stuffit"),
    (0, b"StuffIt", "application/x-stuffit"),
    (0, b"ALZ\x01", "application/x-alz"),
    (0, b"EGGA", "application/x-alz"),
    (0, b"ArC\x01", "application/x-freearc"),
    (0, b"7kSt\xa0\x31\x83\xd3", "application/x-zpaq"),
    (0, b"zPQ", "application/x-zpaq"),
    (0, b"RE~^", "application/x-rar-1"),
    (0, b"ISc(", "application/x-installshield"),
    (0, b"KWAJ\x88\xf0\x27\xd1", "application/x-szdd"),
    (0, b"LRZI", "application/x-lrzip"),
    (0, b"\x89LZO\0\r\n\x1a\n", "application/x-lzop"),
    (0, b"\x1f\x1e", "application/x-pack"),
    (0, b"\x1f\xa0", "application/x-pack"),
    (0, b"\0\x05\x16\0", "application/applefile"),
    (0, b"!BDN", "application/vnd.ms-outlook-pst"),
    (0, b"MSWIM\0\0\0", "application/x-ms-wim"),
    (0, b"WLPWM\0\0\0", "application/x-ms-wim"),
    (0, b"hsqs", "application/x-squashfs"),
    (0, b"ITSF", "application/vnd.ms-htmlhelp"),
    (0, b"conectix", "application/x-vhd"),
    (0, b"vhdxfile", "application/x-vhd"),
    (0, b"KDMV", "application/x-vm-disk"),
    (0, b"COWD", "application/x-vm-disk"),
    (0, b"QFI\xfb", "application/x-vm-disk"),
    (64, b"\x7f\x10\xda\xbe", "application/x-vm-disk"),
    (0, b"koly", "application/x-apple-diskimage"),
    (512, b"EFI PART", "application/x-disk-image"),
    (1024, b"H+\0\x04", "application/x-disk-image"),
    (1024, b"HX\0\x05", "application/x-disk-image"),
    (1080, b"\x53\xef\x01\0", "application/x-disk-image"),
    (0, b"{\\rtf", "application/rtf"),
    (0, b"%PDF-", "application/pdf"),
    (0, b"\x78\x9f\x3e\x22", "application/vnd.ms-tnef"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (8, b"WEBP", "image/webp"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"OggS", "audio/ogg"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\0asm", "application/wasm"),
)
_MARKUP = (
    (b"<!doctype html", "text/html"),
    (b"<html", "text/html"),
    (b"<script", "text/html"),
    (b"<svg", "image/svg+xml"),
    (b"<?xml", "text/xml"),
    (b"<job", "text/x-wsf"),
    (b"<package", "text/x-wsf"),
    (b"[internetshortcut]", "application/x-url-shortcut"),
)
_BY_FIRST = {octet: tuple(one for one in _SIGNATURES if one[0] or one[1][0] == octet) for octet in range(256)}
"""Those that a file with this first octet may have: texts are asked for many times."""

_CMS = re.compile(
    rb"0(?:[\0-\x80]|\x81.|\x82..|\x83...|\x84....)\x06[\x09-\x0b]\x2a\x86\x48\x86\xf7\x0d\x01(?:\x07|\x09\x10\x01)",
    re.DOTALL,
)
"""A sequence that begins with the identifier of a kind of content (RFC 5652 3)."""
_MESSAGE = re.compile(
    rb"\s{0,9}(?:received|return-path|from|to|date|subject|message-id|mime-version|content-type|x-[a-z-]{1,40})[ \t]*:",
    re.IGNORECASE,
)
_FIELD = re.compile(
    rb"(?:\xef\xbb\xbf)?\s{0,9}(?:(?:From [^\r\n]{1,200}|\d{1,10}[ ]{0,9})\r?\n)?[!-9;-~]{1,80}[ \t]{0,9}:"
)
_ENTITY = re.compile(rb"^(?:mime-version|content-type|content-transfer-encoding)[ \t]*:", re.IGNORECASE | re.MULTILINE)


def sniff(first: bytes) -> str:
    """The media type that *first* (up to `PREFIX` octets) speaks for, or "" where it says nothing."""
    for offset, signature, media_type in _BY_FIRST[first[0]] if first else ():
        if first.startswith(signature, offset):
            return media_type
    if _CMS.match(first):
        return CMS
    if b"%PDF-" in first[:1024]:  # readers accept a header that stands this late (ISO 32000-1, annex H.3)
        return "application/pdf"
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n")[:64].lower()
    return next((media_type for mark, media_type in _MARKUP if start.startswith(mark)), "")


def is_message(first: bytes) -> bool:
    """Whether *first*, the first octets of a file, may be the header of a mail."""
    return bool(_MESSAGE.match(first) or (_FIELD.match(first) and _ENTITY.search(first)))

"""Does a picture of the mail hide a link, as a QR code or one of its like?

Those inside PDFs are looked at too. Pictures are decoded by libraries that only the confined child loads. Links are
handed on in facts, for filters that know addresses. What cannot be decoded is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from filters._pdf.lexer import Meter, Unreadable
from filters._pdf.pictures import pictures
from gateway.model import Finding, Found, Mail, Part, Payloads, Stage

SECONDS = 0.4
"""Seconds of CPU after which no further picture of a mail is begun."""
MAX_STEPS = 50_000
"""Values of a PDF that are read in search of its pictures."""
MAX_FRAMES = 3
"""Frames of a moving picture that are looked at."""
MAX_SCANS = 64
"""Scans of a JPEG: each goes over the whole picture once more. Programs make ten or so."""
MAX_SIDE = 1600
"""Pixels to which the longer side is brought down before codes are looked for."""
MIN_SIDE = 11
"""A Micro QR code has 11 by 11 modules, a QR code 21 by 21."""
MAX_TEXT = 480
"""Characters of a code that are handed on."""
MAX_CODES = 10
"""Codes of one picture that are told."""
MAX_KNOWN = 256
"""Pictures of which it is remembered what they show: logos come again with every mail of their owner."""

_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")
_TYPES = frozenset(f"image/{one.lower()}" for one in _FORMATS)
_MOVING = frozenset({"GIF", "TIFF", "WEBP"})
_CODES = ("QRCode", "MicroQRCode", "RMQRCode", "Aztec", "DataMatrix")  # what the cameras of phones read, and its kin
_SCHEME = re.compile(r"(?:https?|ftp|upi|bitcoin|intent):", re.IGNORECASE)
_BARE = re.compile(r"(?:[a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}(?:[:/?#]\S*)?", re.IGNORECASE)
_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]")


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is looked at."""

    images: int = 20
    """Pictures and PDFs of one mail."""

    size: int = 16_000_000
    """Octets that a picture may have."""

    pixels: int = 16_000_000
    """Pixels that a picture may have."""


class Filter:
    """Looks at one picture after another, within what one mail may cost."""

    stage: ClassVar[Stage] = Stage.MESSAGE
    codes: ClassVar[frozenset[str]] = frozenset({"qr_link", "qr_text", "unreadable"})
    after: ClassVar[frozenset[str]] = frozenset()
    by_part: ClassVar[bool] = True

    def __init__(self, settings: Settings, payloads: Payloads) -> None:
        if min(settings.images, settings.size, settings.pixels) < 1:
            raise ValueError("images.images, images.size and images.pixels must be at least 1")
        self._settings = settings
        self._payloads = payloads
        self._known: dict[bytes, list[str]] = {}

    def check(self, mail: Mail, found: Found) -> Sequence[Finding]:  # noqa: ARG002  it reads no other filter
        """For each picture at most one finding of each code."""
        pictures = [part for part in mail.content.parts if _is_picture(part) or _is_pdf(part)]
        until, findings = time.process_time() + SECONDS, list[Finding]()
        for number, part in enumerate(pictures):
            if number >= self._settings.images or time.process_time() > until:
                left = len(pictures) - number
                return [*findings, Finding("unreadable", f"too many pictures: {left} of them were not looked at")]
            findings += self._of(part)
        return findings

    def _of(self, part: Part) -> Iterator[Finding]:
        octets = self._payloads.of(part, self._settings.size + 1)
        try:
            if len(octets) > self._settings.size:
                raise _Undecodable("is larger than is read")  # noqa: TRY301  said where all else is said
            texts = self._texts(octets, pdf=_is_pdf(part))
        except _Undecodable as error:
            yield Finding("unreadable", f"{_named(part)} {error}", part.path)
            return
        links = [text for text in texts if _is_link(text)]
        others = [text for text in texts if not _is_link(text)]
        if links:
            facts = tuple(f"link={link}" for link in links)
            yield Finding("qr_link", f"{_named(part)} shows a code that leads to {links[0][:100]}", part.path, facts)
        if others:
            yield Finding("qr_text", f"{_named(part)} shows a code", part.path, tuple(f"text={one}" for one in others))

    def _texts(self, octets: bytes, *, pdf: bool) -> list[str]:
        digest = hashlib.sha256(octets).digest()
        if digest not in self._known:
            texts = _texts(octets, self._settings.pixels, pdf=pdf)
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[digest] = texts
        return self._known[digest]


class _Undecodable(Exception):
    """A picture cannot be looked at. The text says why, in our words, going on where "the picture" began."""


def prepare() -> None:
    """Load what decodes pictures, with what it loads for the first picture of each kind. Before confinement."""
    images: Any = importlib.import_module("PIL.Image")
    images.MAX_IMAGE_PIXELS = None  # we ask for the size ourselves, before anything is decoded
    files: Any = importlib.import_module("PIL.ImageFile")
    files.LOAD_TRUNCATED_IMAGES = True  # mail programs show what there is
    importlib.import_module("PIL.ImageOps")
    images.preinit()
    for name in ("Tiff", "WebP"):
        importlib.import_module(f"PIL.{name}ImagePlugin")
    for kind in _FORMATS:
        sample = io.BytesIO()
        images.new("L", (32, 32)).save(sample, kind)
        _texts(sample.getvalue(), 1 << 20)


def _texts(octets: bytes, pixels: int, *, pdf: bool = False) -> list[str]:
    """What the codes say that a picture, or a PDF, shows, cleaned, each once."""
    kind = importlib.import_module("zxingcpp")
    formats = [getattr(kind.BarcodeFormat, name) for name in _CODES]
    found: dict[str, None] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for frame in _pages(octets, pixels) if pdf else _frames(octets, pixels):
                for code in kind.read_barcodes(frame, formats=formats, text_mode=kind.TextMode.Plain):
                    found[_cleaned(code.text)[:MAX_TEXT]] = None
        except _Undecodable:
            raise
        except Unreadable as error:
            raise _Undecodable(str(error)) from None
        except Exception:  # noqa: BLE001  plugins raise whatever comes to them, MemoryError too
            raise _Undecodable("cannot be decoded") from None
    return [text for text in found if text][:MAX_CODES]


def _pages(octets: bytes, pixels: int) -> Iterator[Any]:
    """The pictures that a PDF has, as `_frames` gives them; what is broken in it is passed over."""
    images: Any = importlib.import_module("PIL.Image")
    operations: Any = importlib.import_module("PIL.ImageOps")
    meter = Meter(MAX_STEPS, 4 * pixels, SECONDS)
    for picture in pictures(octets, meter, pixels // 4):
        meter.tick()
        if picture.mode:
            made = _grey(images.frombytes(picture.mode, picture.size, picture.octets), images)
            yield operations.autocontrast(made)  # colours may be numbers of a palette, close to each other
            continue
        with contextlib.suppress(_Undecodable, OSError, SyntaxError):
            yield from _frames(picture.octets, pixels)


def _frames(octets: bytes, pixels: int) -> Iterator[Any]:
    """The first frames, in grey, of a size in which codes are found."""
    _check_before(octets, pixels)
    images: Any = importlib.import_module("PIL.Image")
    with images.open(io.BytesIO(octets), formats=_FORMATS) as picture:
        for number in range(MAX_FRAMES if picture.format in _MOVING else 1):
            if number and not _turned(picture, number):
                return
            if picture.width * picture.height > pixels:
                raise _Undecodable("has more pixels than are decoded")
            if min(picture.size) >= MIN_SIDE:
                picture.draft("L", (MAX_SIDE // 2, MAX_SIDE // 2))
                yield _grey(picture, images)


def _turned(picture: Any, number: int) -> bool:
    """Whether there is frame *number*, to which *picture* is turned."""
    try:
        picture.seek(number)
    except EOFError:
        return False
    return True


def _check_before(octets: bytes, pixels: int) -> None:
    """What has to be known before a library is let near."""
    if octets.startswith(b"\xff\xd8") and octets.count(b"\xff\xda") > MAX_SCANS:
        raise _Undecodable("goes over itself more often than any program makes it")
    if octets[8:12] == b"WEBP" and 4 * _webp_pixels(octets) > pixels:  # its decoder keeps three copies
        raise _Undecodable("has more pixels than are decoded")


def _webp_pixels(octets: bytes) -> int:
    """What the header says of the canvas (RFC 9649, 2.5 to 2.7)."""
    head = octets[:30].ljust(30, b"\0")
    if head[12:16] == b"VP8X":
        return (int.from_bytes(head[24:27], "little") + 1) * (int.from_bytes(head[27:30], "little") + 1)
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return ((bits & 0x3FFF) + 1) * ((bits >> 14 & 0x3FFF) + 1)
    width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width * height


def _grey(picture: Any, images: Any) -> Any:
    """*picture* in grey and small; what is transparent becomes the grey on which both black and white stand out."""
    if picture.mode not in {"L", "RGB", "RGBA", "CMYK"}:
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode in {"LA", "PA"} else "L")
    factor = -(-max(picture.size) // MAX_SIDE)
    picture = picture.reduce(factor) if factor > 1 else picture
    if picture.mode == "RGB" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    if picture.mode != "RGBA":
        return picture.convert("L")
    ground = images.new("L", picture.size, 128)
    ground.paste(picture.convert("L"), mask=picture.getchannel("A"))
    return ground


def _is_picture(part: Part) -> bool:
    return part.sniffed in _TYPES or (not part.sniffed and part.media_type in _TYPES)


def _is_link(text: str) -> bool:
    return bool(_SCHEME.match(text) or _BARE.fullmatch(text))


def _is_pdf(part: Part) -> bool:
    return part.sniffed == "application/pdf"


def _cleaned(stranger: str) -> str:
    return _INVISIBLE.sub("", stranger).strip()


def _named(part: Part) -> str:
    return _INVISIBLE.sub("?", part.filename)[:100] or "a picture without a name"

"""Pictures drawn here: every format, every way in which a code can be drawn, and pictures that are made to cost much."""

import importlib
import io
import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from filters import images
from filters.images import Filter, Settings
from gateway.model import Finding, Part
from tests.laid import Laid, asked, mail_of

URL = "https://login.example/?id=1"
MB = 1 << 20
zxing: Any = importlib.import_module("zxingcpp")


@pytest.fixture(autouse=True, scope="module")
def _prepared():
    images.prepare()


def check(*octets: bytes, settings: Settings | None = None, sniffed: str = "image/png") -> list[Finding]:
    parts = [Part(str(n), "image/png", "a.png", sniffed, len(one) * 4 // 3) for n, one in enumerate(octets)]
    payloads = Laid({str(n): one for n, one in enumerate(octets)})
    return list(asked(Filter(settings or Settings(), payloads), mail_of(*parts)))


def codes(*octets: bytes, settings: Settings | None = None) -> list[str]:
    return [finding.code for finding in check(*octets, settings=settings)]


def code(text: str = URL, kind: str = "QRCode", scale: int = 4) -> Image.Image:
    """A code, black on white, with a quiet zone."""
    made = zxing.create_barcode(text, getattr(zxing.BarcodeFormat, kind))
    drawn = zxing.write_barcode_to_image(made, scale=scale)
    return Image.fromarray(drawn) if not isinstance(drawn, Image.Image) else drawn


def octets(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def on_page(drawn: Image.Image, size: tuple[int, int] = (1200, 900)) -> Image.Image:
    page = Image.new("L", size, 255)
    page.paste(drawn, (size[0] // 3, size[1] // 3))
    return page


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_link_in_a_code_is_found_in_every_format(kind):
    (found,) = check(octets(code(), kind))
    assert (found.code, found.part, found.facts) == ("qr_link", "0", (f"link={URL}",))


@pytest.mark.parametrize("kind", ["QRCode", "MicroQRCode", "Aztec", "DataMatrix"])
def test_a_link_is_found_in_every_kind_of_code(kind):
    (found,) = check(octets(code("http://a.co/", kind)))
    assert found.facts == ("link=http://a.co/",)


def transparent(dark: int) -> Image.Image:
    """Modules of one shade on nothing at all."""
    drawn = code()
    picture = Image.new("LA", drawn.size, (dark, 0))
    picture.putalpha(ImageOps.invert(drawn))
    return picture


def palette() -> Image.Image:
    return code().convert("RGB").quantize(4)


WAYS = {
    "inverted": lambda: ImageOps.invert(code()),
    "turned": lambda: code().rotate(90),
    "tilted": lambda: code(scale=6).rotate(17, expand=True, fillcolor=255),
    "mirrored": lambda: ImageOps.mirror(code()),
    "on a page": lambda: on_page(code()),
    "on a large page": lambda: on_page(code(scale=12), (4000, 3000)),
    "black on nothing": lambda: transparent(0),
    "white on nothing": lambda: transparent(255),
    "red on blue": lambda: ImageOps.colorize(code(), (120, 0, 0), (140, 190, 255)),
    "a palette": palette,
    "one bit": lambda: code().convert("1"),
    "four colours": lambda: code().convert("CMYK"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_code_is_found_however_it_is_drawn(way):
    picture = WAYS[way]()
    assert codes(octets(picture, "TIFF" if picture.mode == "CMYK" else "PNG")) == ["qr_link"]


def test_a_code_in_a_picture_that_breaks_off_is_found():
    whole = octets(on_page(code(), (600, 900)))
    assert codes(whole[:-40]) == ["qr_link"]


def test_a_code_in_a_later_frame_is_found():
    blank = Image.new("L", code().size, 255)
    assert codes(octets(blank, "GIF", save_all=True, append_images=[code()])) == ["qr_link"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HTTPS://A.EXAMPLE", ["qr_link"]),
        ("a.example/path", ["qr_link"]),
        ("www.a.example", ["qr_link"]),
        ("upi://pay?x", ["qr_link"]),
        ("WIFI:S:net;;", ["qr_text"]),
        ("M1DOE/JOHN 123", ["qr_text"]),
        ("mailto:a@b.example", ["qr_text"]),
        ("\u202e\u200b", []),
    ],
)
def test_what_a_code_says_is_a_link_or_a_text(text, expected):
    assert codes(octets(code(text))) == expected


def test_what_a_code_says_is_handed_on_clean():
    (found,) = check(octets(code("http://a.example/\u202e\r\n\x07x")))
    assert found.facts == ("link=http://a.example/x",)


@pytest.mark.parametrize(
    "picture", [Image.new("RGB", (1, 1)), Image.new("L", (600, 400), 200), Image.linear_gradient("L")]
)
def test_pictures_without_codes_are_nothing(picture):
    assert codes(octets(picture)) == []


@pytest.mark.parametrize(
    "broken", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM" + bytes(60), b"RIFF\0\0\0\0WEBPVP8X", b"%!PS-Adobe\n"]
)
def test_what_cannot_be_decoded_is_told(broken):
    assert codes(broken) == ["unreadable"]


def test_only_pictures_and_pdfs_are_looked_at():
    assert check(octets(code()), sniffed="text/plain") == []


def in_pdf(data: bytes, picture: Image.Image, more: bytes) -> bytes:
    head = b"<</Type/XObject/Subtype/Image/Width %d/Height %d%s>>stream\n" % (*picture.size, more)
    return b"%PDF-1.7\n1 0 obj" + head + data + b"\nendstream endobj"


@pytest.mark.parametrize(
    ("mode", "more"),
    [("L", b"/ColorSpace/DeviceGray"), ("RGB", b"/ColorSpace/DeviceRGB"), ("CMYK", b"/X 1"), ("1", b"/ImageMask true")],
)
def test_a_code_in_a_pdf_is_found(mode, more):
    drawn = code().convert(mode)
    (found,) = check(
        in_pdf(zlib.compress(drawn.tobytes()), drawn, b"/Filter/FlateDecode" + more), sniffed="application/pdf"
    )
    assert (found.code, found.facts) == ("qr_link", (f"link={URL}",))


def test_a_code_in_a_pdf_as_jpeg_or_in_two_colours_is_found():
    drawn = code()
    assert (
        check(in_pdf(octets(drawn, "JPEG"), drawn, b"/Filter/DCTDecode"), sniffed="application/pdf")[0].code
        == "qr_link"
    )
    numbers = drawn.point(lambda grey: grey > 128).tobytes()
    assert check(in_pdf(zlib.compress(numbers), drawn, b"/Filter/Fl"), sniffed="application/pdf")[0].code == "qr_link"


@pytest.mark.parametrize("data", [b"", b"nonsense", zlib.compress(b"x" * 10)])
@pytest.mark.parametrize("how", [b"/FlateDecode", b"/DCTDecode", b"/JPXDecode"])
def test_a_pdf_with_broken_pictures_is_nothing(data, how):
    assert check(in_pdf(data, code(), b"/Filter" + how), sniffed="application/pdf") == []


def test_a_pdf_of_very_many_pictures_is_told_and_costs_little():
    drawn = Image.new("L", (1900, 2000), 255)
    file = in_pdf(zlib.compress(drawn.tobytes()), drawn, b"/Filter/FlateDecode") * 200
    before = time.process_time()
    assert [one.code for one in check(file, sniffed="application/pdf")] == ["unreadable"]
    assert time.process_time() - before < 1


def test_what_a_picture_shows_is_remembered_and_that_it_could_not_be_decoded_is_not(monkeypatch):
    monkeypatch.setattr(images, "MAX_KNOWN", 2)
    decoded: list[bytes] = []
    monkeypatch.setattr(images, "_texts", lambda octets, *_, **__: decoded.append(octets) or texts(octets))
    texts = {b"a": [URL], b"b": [], b"c": []}.__getitem__
    payloads = {"1": b"a", "2": b"b", "3": b"c"}
    one = Filter(Settings(), Laid(payloads))
    parts = tuple(Part(path, "image/png", "a.png", "image/png", 1) for path in ("1", "1", "2", "1", "3", "3", "2", "1"))
    assert [finding.code for finding in asked(one, mail_of(*parts))] == ["qr_link"] * 4
    assert decoded == [b"a", b"b", b"c", b"a"]
    broken = Filter(Settings(), Laid({"1": b"broken"}))
    monkeypatch.undo()
    assert [asked(broken, mail_of(parts[0]))[0].code for _ in range(2)] == ["unreadable"] * 2


def test_a_picture_of_too_many_octets_is_told():
    made = octets(code())
    assert codes(made, settings=Settings(size=len(made) - 1)) == ["unreadable"]
    assert codes(made, settings=Settings(size=len(made))) == ["qr_link"]


def test_more_pictures_than_are_looked_at_are_told():
    assert codes(*[octets(code())] * 3, settings=Settings(images=2)) == ["qr_link", "qr_link", "unreadable"]


def test_when_the_time_is_over_the_rest_is_told(monkeypatch):
    monkeypatch.setattr(images, "SECONDS", -1)
    assert codes(octets(code())) == ["unreadable"]


@pytest.mark.parametrize("wrong", [{"images": 0}, {"size": 0}, {"pixels": 0}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        Filter(Settings(**wrong), Laid({}))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def scans() -> bytes:
    """A JPEG whose last scan comes again and again."""
    whole = octets(Image.effect_noise((1000, 1000), 40), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * 2000 + b"\xff\xd9"


COSTLY = {
    "a small file that says it is large": lambda: png(60_000, 60_000, zlib.compress(bytes(1000))),
    "a png of very many pixels": lambda: png(20_000, 20_000, zlib.compress(bytes(40 * MB))),
    "a gif that says it is large": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02L\x01\0;",
    "a webp that says it is large": lambda: (
        octets(code(), "WEBP", lossless=True)[:21] + b"\xff\xff\xff\xff" + bytes(40)
    ),
    "a tiff of many octets": lambda: octets(Image.new("L", (7000, 7000)), "TIFF"),
    "a jpeg that goes over itself": scans,
}


@pytest.mark.parametrize("name", COSTLY)
def test_pictures_made_to_cost_much_are_told_and_cost_little(name):
    made = COSTLY[name]()
    before = time.process_time()
    assert codes(made) == ["unreadable"]
    assert time.process_time() - before < 0.5


def test_of_very_many_frames_the_first_are_looked_at():
    made = octets(Image.new("L", (40, 40)), "GIF")
    frame = made[made.index(b",") : -1]
    before = time.process_time()
    assert codes(made[:-1] + frame * 100_000 + b";") == []
    assert time.process_time() - before < 0.5


def test_the_largest_picture_that_is_decoded_costs_little():
    made = octets(Image.new("RGBA", (4000, 4000), (9, 9, 9, 200)), compress_level=1)
    before = time.process_time()
    assert codes(made) == []
    assert time.process_time() - before < 1


WHOLE = {kind: octets(code(scale=2), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}
CHANGES = st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 8), st.binary(max_size=6)), min_size=1, max_size=10)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*WHOLE]), CHANGES)
def test_a_picture_that_was_changed_anywhere_is_decoded_or_told(kind, changes):
    made = WHOLE[kind]
    for at, length, new in changes:
        made = made[:at] + new + made[at + length :]
    before = time.process_time()
    check(made)
    assert time.process_time() - before < 1

"""Ways to hide a file from a mail gateway and show it to a mail program: each a mail around the octets that it hides.

Made while the tests run, so that what they hide stands in no file.
"""

import base64
import binascii
import bz2
import quopri
import struct
import zlib
from collections.abc import Iterator

CRLF = b"\r\n"
B64 = b"Content-Transfer-Encoding: base64"
BINARY = b"Content-Type: application/octet-stream"
NAMED = b'Content-Disposition: attachment; filename="letter.dat"'


def lines(*pieces: bytes) -> bytes:
    return CRLF.join(pieces)


def short(hidden: bytes) -> bytes:
    """In base64, on lines that do not look like it."""
    encoded = base64.b64encode(hidden)
    return CRLF.join(encoded[at : at + 20] for at in range(0, len(encoded), 20))


def base64_of(hidden: bytes) -> bytes:
    return base64.encodebytes(hidden).replace(b"\n", CRLF)


def head(*fields: bytes) -> bytes:
    return lines(b"From: a@far.example", b"Subject: a letter", b"MIME-Version: 1.0", *fields, b"", b"")


def mixed(*parts: bytes, kind: bytes = b"multipart/mixed; boundary=B", mark: bytes = b"B", end: bytes = b"--") -> bytes:
    body = b"".join(b"--" + mark + CRLF + part + CRLF for part in parts)
    return head(b"Content-Type: " + kind) + body + b"--" + mark + end + CRLF


TEXT = lines(b"Content-Type: text/plain", b"", b"See the file.")


def attached(hidden: bytes, *fields: bytes) -> bytes:
    return lines(*(fields or (BINARY, B64, NAMED)), b"", base64_of(hidden))


def tricks(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Each trick by its name, and the mail."""
    yield from _plain(hidden)
    yield from _encodings(hidden)
    yield from _bodies(hidden)
    yield from _folded_twice(hidden)
    yield from _types(hidden)
    yield from _boundaries(hidden)
    yield from _structures(hidden)
    yield from _texts(hidden)
    yield from _uuencoded(hidden)
    yield from _packed_texts(hidden)
    yield from _mails(hidden)
    yield from _signed(hidden)
    yield from _openpgp(hidden)
    yield from _containers(hidden)


def _plain(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    yield "as it is", head() + hidden + CRLF
    yield "attached", mixed(TEXT, attached(hidden))
    yield "attached, 7 bit", mixed(TEXT, lines(BINARY, NAMED, b"", hidden))
    yield (
        "attached, quoted",
        mixed(TEXT, lines(BINARY, b"Content-Transfer-Encoding: quoted-printable", NAMED, b"", quoted(hidden))),
    )


def quoted(hidden: bytes, end: bytes = b"=\r\n") -> bytes:
    return end.join(b"".join(b"=%02X" % octet for octet in hidden[at : at + 20]) for at in range(0, len(hidden), 20))


def _encodings(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """The field that says how the body is encoded."""
    for name, field in {
        "in quotes": b'Content-Transfer-Encoding: "base64"',
        "with a comment behind": b"Content-Transfer-Encoding: base64 (as they say)",
        "with a comment before": b"Content-Transfer-Encoding: (as they say) base64",
        "with a semicolon": b"Content-Transfer-Encoding: base64;",
        "with a parameter": b"Content-Transfer-Encoding: base64; x=y",
        "in capitals": b"CONTENT-TRANSFER-ENCODING: BASE64",
        "white space before the colon": b"Content-Transfer-Encoding : base64",
        "a tab before the colon": b"Content-Transfer-Encoding\t: base64",
        "folded": b"Content-Transfer-Encoding:\r\n base64",
        "folded twice": b"Content-Transfer-Encoding:\r\n \r\n base64",
        "no space behind the colon": b"Content-Transfer-Encoding:base64",
        "x- before": b"Content-Transfer-Encoding: x-base64",
        "with a dot": b"Content-Transfer-Encoding: base64.",
        "two words": b"Content-Transfer-Encoding: 7bit base64",
        "two words, base64 first": b"Content-Transfer-Encoding: base64 7bit",
        "7bit first": b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64",
        "7bit last": b"Content-Transfer-Encoding: base64\r\nContent-Transfer-Encoding: 7bit",
        "quoted-printable first": b"Content-Transfer-Encoding: quoted-printable\r\nContent-Transfer-Encoding: base64",
        "an encoded word": b"Content-Transfer-Encoding: =?us-ascii?q?base64?=",
        "behind a line that is no field": b"no field\r\nContent-Transfer-Encoding: base64",
        "behind a line of one blank": b" \r\nContent-Transfer-Encoding: base64",
        "a control character in the name": b"Content-Transfer-Encoding\x01: base64",
        "a control character in the value": b"Content-Transfer-Encoding: base64\x0b",
        "an underscore": b"Content_Transfer_Encoding: base64",
        "Content-Encoding": b"Content-Encoding: base64",
        "none at all": b"X-Nothing: here",
    }.items():
        yield f"encoding: {name}", mixed(TEXT, attached(hidden, BINARY, field, NAMED))
        if name in {
            "in quotes",
            "7bit first",
            "white space before the colon",
            "folded twice",
            "behind a line that is no field",
        }:
            yield f"encoding of the whole mail: {name}", head(BINARY, field, NAMED) + base64_of(hidden)

    for name, field in {
        "a comment in the name": b"Content-Transfer-Encoding(x): base64",
        "a semicolon in the name": b"Content-Transfer-Encoding;: base64",
        "a dot in the name": b"Content-Transfer-Encoding.: base64",
        "two colons": b"Content-Transfer-Encoding:: base64",
        "folded in the word": b"Content-Transfer-Encoding: bas\r\n e64",
        "folded before the colon": b"Content-Transfer-Encoding\r\n : base64",
        "folded twice, behind a line that is no field": b"no field\r\nContent-Transfer-Encoding:\r\n \r\n base64",
    }.items():
        yield f"encoding: {name}", mixed(TEXT, lines(BINARY, field, NAMED, b"", short(hidden)))


def _bodies(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """What stands in the body that says that it is base64."""
    clean = base64.b64encode(hidden)
    half = len(hidden) // 2
    for name, body in {
        "junk between": CRLF.join(b"!" + clean[at : at + 8] + b"*" for at in range(0, len(clean), 8)),
        "blanks between": b" ".join(clean[at : at + 3] for at in range(0, len(clean), 3)),
        "one character a line": CRLF.join(clean[at : at + 1] for at in range(len(clean))),
        "8-bit octets between": b"\xe9".join(clean[at : at + 16] for at in range(0, len(clean), 16)),
        "padding in the middle": base64.b64encode(hidden[: half - half % 3 + 1])
        + CRLF
        + base64.b64encode(hidden[half - half % 3 + 1 :]),
        "padding first": b"====" + CRLF + clean,
        "padding after each line": CRLF.join(
            base64.b64encode(hidden[at : at + 10]) for at in range(0, len(hidden), 10)
        ),
        "no padding": clean.rstrip(b"="),
        "text behind": clean + CRLF + b"-- " + CRLF + b"a list of letters",
        "an empty line before": CRLF + CRLF + clean,
        "a comment line before": b"# letter" + CRLF + clean,
        "a line of words before": b"Good day" + CRLF + short(hidden),
        "lines of dashes between": short(hidden).replace(CRLF, b"\r\n--\r\n"),
    }.items():
        yield f"base64: {name}", mixed(TEXT, lines(BINARY, B64, NAMED, b"", body))

    for name, end in {
        "blanks behind": b"= \t\r\n",
        "twice": b"=\r\n=\r\n",
        "a control character behind": b"=\x0b\r\n",
    }.items():
        body = lines(BINARY, b"Content-Transfer-Encoding: quoted-printable", NAMED, b"", quoted(hidden, end))
        yield f"soft line breaks: {name}", mixed(TEXT, body)


def _folded_twice(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Fields in which a line of one blank may end the header, in a mail whose parts we do not see."""
    for way, body in ((b"base64", short(hidden)), (b"quoted-printable", quoted(hidden))):
        field = b"Content-Transfer-Encoding:\r\n \r\n " + way
        whole = mixed(TEXT, lines(BINARY, field, NAMED, b"", body))
        yield f"folded twice: {way!r}", whole.replace(b"Content-Type", b"Content-Type\r\n ", 1)


def _types(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """The field that says that there are several parts."""
    for name, kind in {
        "text first": b"text/plain\r\nContent-Type: multipart/mixed; boundary=B",
        "text last": b"multipart/mixed; boundary=B\r\nContent-Type: text/plain",
        "white space before the colon": b"text/plain\r\nContent-Type : multipart/mixed; boundary=B",
        "a comment before": b"(x) multipart/mixed; boundary=B",
        "a comment behind": b"multipart/mixed (x); boundary=B",
        "a comment before the parameter": b"multipart/mixed; (x) boundary=B",
        "blanks around the slash": b"multipart / mixed; boundary=B",
        "no semicolon": b"multipart/mixed boundary=B",
        "two semicolons": b"multipart/mixed;; boundary=B",
        "an unknown multipart": b"multipart/x-letters; boundary=B",
        "no subtype": b"multipart; boundary=B",
        "in quotes": b'"multipart/mixed"; boundary=B',
        "digest": b"multipart/digest; boundary=B",
    }.items():
        yield f"type: {name}", mixed(TEXT, attached(hidden), kind=kind)
    for field in (b"Content-Type(x)", b"Content-Type;", b"Content-Type\r\n ", b"=Content-Type"):
        whole = mixed(TEXT, lines(BINARY, B64, NAMED, b"", short(hidden)))
        yield f"type: in {field!r}", whole.replace(b"Content-Type", field, 1)


def _boundaries(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """The line between the parts."""
    for name, kind, mark in (
        ("two, the first counts", b"multipart/mixed; boundary=B; boundary=C", b"B"),
        ("two, the last counts", b"multipart/mixed; boundary=C; boundary=B", b"B"),
        ("in sections", b'multipart/mixed; boundary*0=B; boundary*1="1"', b"B1"),
        ("in sections and whole", b"multipart/mixed; boundary=C; boundary*0=B; boundary*1=1", b"B1"),
        ("extended", b"multipart/mixed; boundary*=us-ascii''%42", b"B"),
        ("quoted with a blank behind", b'multipart/mixed; boundary="B "', b"B"),
        ("a blank in it", b'multipart/mixed; boundary="B B"', b"B B"),
        ("a blank in it, without quotes", b"multipart/mixed; boundary=B B", b"B B"),
        ("in another case", b"multipart/mixed; boundary=b", b"B"),
        ("quoted characters", b'multipart/mixed; boundary="\\B"', b"B"),
        ("one quote", b'multipart/mixed; boundary="B', b"B"),
        ("single quotes", b"multipart/mixed; boundary='B'", b"B"),
        ("a comment behind", b"multipart/mixed; boundary=B (x)", b"B"),
        ("empty", b'multipart/mixed; boundary=""', b""),
        ("not declared", b"multipart/mixed", b"B"),
        ("another one", b"multipart/mixed; boundary=C", b"B"),
        ("too long", b"multipart/mixed; boundary=" + b"B" * 300, b"B" * 300),
        ("blanks around the sign", b"multipart/mixed; boundary = B", b"B"),
        ("a semicolon in it", b'multipart/mixed; boundary="B;C"', b"B;C"),
        ("an encoded word", b"multipart/mixed; boundary==?us-ascii?q?B?=", b"B"),
        ("8 bit", b'multipart/mixed; boundary="\xe9"', b"\xe9"),
    ):
        yield f"boundary: {name}", mixed(TEXT, attached(hidden), kind=kind, mark=mark)
    file = attached(hidden)
    yield "boundary: more behind it", mixed(TEXT, file).replace(b"--B\r\n", b"--Bx\r\n")
    yield "boundary: blanks behind it", mixed(TEXT, file).replace(b"--B\r\n", b"--B \t\r\n")
    yield "boundary: no closing", mixed(TEXT, file, end=b"")
    yield (
        "boundary: a blank before it",
        mixed(TEXT, file).replace(b"--B\r\nContent-Type: app", b" --B\r\nContent-Type: app"),
    )


def _structures(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Where the part stands."""
    file, whole = attached(hidden), mixed(TEXT, attached(hidden))
    yield "behind the closing delimiter", mixed(TEXT) + b"--B" + CRLF + file + CRLF + b"--B--" + CRLF
    yield "behind the closing delimiter, without one", mixed(TEXT) + CRLF + file
    yield "behind the end, by another boundary", mixed(TEXT) + b"--C" + CRLF + file + CRLF + b"--C--" + CRLF
    yield (
        "before the first delimiter",
        head(b"Content-Type: multipart/mixed; boundary=B") + file + b"\r\n--B\r\n" + TEXT + b"\r\n--B--\r\n",
    )
    yield (
        "an inner boundary that is the outer one",
        mixed(b"Content-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n" + file + b"\r\n--B--"),
    )
    yield (
        "an inner boundary that begins as the outer one",
        mixed(b"Content-Type: multipart/mixed; boundary=BB\r\n\r\n--BB\r\n" + file + b"\r\n--BB--"),
    )
    yield (
        "an inner multipart that is not closed",
        mixed(b"Content-Type: multipart/mixed; boundary=C\r\n\r\n--C\r\n" + file),
    )
    yield (
        "a multipart in base64",
        mixed(
            lines(
                b"Content-Type: multipart/mixed; boundary=C", B64, b"", base64_of(b"--C\r\n" + file + b"\r\n--C--\r\n")
            )
        ),
    )
    yield "a mail", mixed(TEXT, lines(b"Content-Type: message/rfc822", b"", whole.replace(b"B", b"B")))
    yield "a mail in base64", mixed(TEXT, lines(b"Content-Type: message/rfc822", B64, b"", base64_of(whole)))
    yield (
        "a mail in base64, twice",
        mixed(
            TEXT,
            lines(
                b"Content-Type: message/rfc822",
                B64,
                b"",
                base64_of(lines(b"Content-Type: message/rfc822", B64, b"", base64_of(whole))),
            ),
        ),
    )
    yield "a mail as a file", mixed(TEXT, attached(whole, b"Content-Type: application/octet-stream; name=a.eml", B64))
    saved = b"%d\n" % len(whole) + whole.replace(CRLF, b"\n") + b"<?xml version='1.0'?><plist/>\n"
    yield (
        "a mail as Apple's program saves it",
        mixed(TEXT, attached(saved, BINARY, B64, NAMED.replace(b".dat", b".emlx"))),
    )
    yield "a fragment", head(b"Content-Type: message/partial; id=x; number=1; total=1") + whole
    yield "elsewhere", mixed(TEXT, lines(b"Content-Type: message/external-body; access-type=x", b"", file))
    yield "no MIME-Version", whole.replace(b"MIME-Version: 1.0\r\n", b"")
    yield "a header that ends with a line of one blank", mixed(TEXT, file.replace(b"\r\n\r\n", b"\r\n \r\n", 1))
    yield "a part without an empty line", mixed(TEXT, file.replace(b"\r\n\r\n", b"\r\n", 1))
    yield "a part that begins with an empty line", mixed(TEXT, b"\r\n" + file)
    yield "two headers", mixed(TEXT, lines(b"X-One: 1", b"", file))
    yield "in many mails", b"".join([head(b"Content-Type: message/rfc822")] * 18) + whole
    deep = attached(hidden)
    for number in range(18):
        mark = b"B%dE" % number
        deep = lines(b"Content-Type: multipart/mixed; boundary=" + mark, b"", b"--" + mark, deep, b"--" + mark + b"--")
    yield "in many multiparts", head(deep)


def yencoded(hidden: bytes, name: bytes = b"letter.dat") -> bytes:
    octets = bytes((octet + 42) % 256 for octet in hidden)
    for critical in b"=\r\n\0":
        octets = octets.replace(bytes([critical]), b"=" + bytes([(critical + 64) % 256]))
    return b"=ybegin line=128 size=%d name=%s\r\n%s\r\n=yend size=%d\r\n" % (len(hidden), name, octets, len(hidden))


UU_TO_XX = bytes.maketrans(
    b"`" + bytes(range(32, 96)), b"++-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)


def texts(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Texts with the file in them."""
    uu = b"".join(binascii.b2a_uu(hidden[at : at + 45]) for at in range(0, len(hidden), 45)).replace(b"\n", CRLF)
    uu_file = b"begin 644 letter.dat\r\n" + uu + b"`\r\nend\r\n"
    yenc = yencoded(hidden)
    yield from {
        "uuencode": uu_file,
        "xxencode": b"begin 644 letter.dat\r\n" + uu.translate(UU_TO_XX) + b"+\r\nend\r\n",
        "uuencode without an end": b"begin 644 letter.dat\r\n" + uu,
        "uuencode, by its other name": b"begin-base64 644 letter.dat\r\n" + base64_of(hidden) + b"====\r\n",
        "yEnc": yenc,
        "yEnc, by a name that another has": b"".join(
            yencoded(octets, name) for octets, name in ((b"one", b"a"), (b"two", b"a (2)"), (hidden, b"a"))
        ),
        "BinHex": binhex(hidden),
        "base64": base64_of(hidden),
        "base64 on one line": base64.b64encode(hidden) + CRLF,
    }.items()


def _texts(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that stand in the text of the mail."""
    in_texts = dict(texts(hidden))
    uu_file = in_texts["uuencode"]
    for name, text in in_texts.items():
        yield f"in a text: {name}", head() + b"Good day\r\n\r\n" + text + b"\r\nbye\r\n"
    yield (
        "in a text, quoted: uuencode",
        head(b"Content-Transfer-Encoding: quoted-printable")
        + quopri.encodestring(uu_file.replace(CRLF, b"\n")).replace(b"\n", CRLF),
    )
    yield "in a text in base64: uuencode", head(B64) + base64_of(uu_file)
    yield (
        "declared as uuencode",
        mixed(TEXT, lines(BINARY, b"Content-Transfer-Encoding: x-uuencode", NAMED, b"", uu_file)),
    )
    for charset, codec in (("utf-16", "utf-16"), ("ucs-2", "utf-16-be"), ("utf-32", "utf-32"), ("cp037", "cp037")):
        for name in ("base64", "uuencode"):
            wide = base64_of(in_texts[name].decode().encode(codec))
            yield f"in {charset}: {name}", head(b"Content-Type: text/plain; charset=" + charset.encode(), B64) + wide
    wide = b"\r\n".join(
        b"+%s-" % base64.b64encode(line.decode().encode("utf-16-be")).rstrip(b"=") for line in uu_file.splitlines()
    )
    yield "in UTF-8, as editors mark it: uuencode", head(B64) + base64_of(b"\xef\xbb\xbf" + uu_file)
    yield "in UTF-7: uuencode", head(b"Content-Type: text/plain; charset=utf-7", B64) + base64_of(wide)
    yield (
        "in HTML: a data URI",
        head(b"Content-Type: text/html") + b"<a href='data:x/y;base64," + base64.b64encode(hidden) + b"'>",
    )


def _uuencoded(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """What many take for uuencode."""
    uu = [binascii.b2a_uu(hidden[at : at + 45])[:-1] for at in range(0, len(hidden), 45)]
    for name, begin, body in (
        ("in capitals", b"BEGIN 644 a", lines(*uu)),
        ("a mode of many digits", b"begin 1000000644 a", lines(*uu)),
        ("a mode that is none", b"begin 999 a", lines(*uu)),
        ("tabs", b"begin\t644\ta", lines(*uu)),
        ("no name", b"begin 644", lines(*uu)),
        ("a long name", b"begin 644 " + b"a" * 500, lines(*uu)),
        ("empty lines between", b"begin 644 a", (CRLF + CRLF).join(uu)),
        ("other lines between", b"begin 644 a", b"\r\nSome: words\r\n".join(uu)),
        ("more at the end of each line", b"begin 644 a", lines(*(line + b" x" for line in uu))),
        ("a table first", b"begin 644 a", lines(b"table", b"@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_", *uu)),
        ("blanks before each line", b"begin 644 a", lines(*(b" " + line for line in uu))),
    ):
        text = begin + CRLF + body + b"\r\n`\r\nend\r\n"
        yield f"uuencode: {name}", head() + b"Good day\r\n\r\n" + text
        declared = lines(BINARY, b"Content-Transfer-Encoding: x-uuencode", NAMED, b"", text)
        yield f"declared as uuencode: {name}", mixed(TEXT, declared)
    bare = lines(BINARY, b"Content-Transfer-Encoding: x-uuencode", NAMED, b"", *uu)
    yield "declared as uuencode: nothing begins it", mixed(TEXT, bare)


def _packed_texts(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Texts that are unpacked like archives."""
    in_texts = dict(texts(hidden))
    for name, text in (
        ("a.uue", in_texts["uuencode"]),
        ("a.xxe", in_texts["xxencode"]),
        ("a.hqx", in_texts["BinHex"]),
        ("a.b64", in_texts["base64"]),
    ):
        field = b'Content-Disposition: attachment; filename="' + name.encode() + b'"'
        yield f"packed: {name}", mixed(TEXT, attached(text, BINARY, B64, field))
    yield (
        "packed: BinHex by its type",
        mixed(TEXT, attached(binhex(hidden), b"Content-Type: application/mac-binhex40", B64)),
    )


def _mails(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Mails that say that they are something else."""
    file = lines(BINARY, b"Content-Transfer-Encoding: quoted-printable", NAMED, b"", quoted(hidden))
    for kind in (
        b"message/x-letter",
        b"text/plain; name=a.eml",
        b"application/x-letter; name=a.eml",
        b"text/html; name=a.mht",
    ):
        yield (
            f"a mail that is {kind!r}",
            mixed(
                TEXT,
                lines(b"Content-Type: " + kind, b"", mixed(TEXT, file, mark=b"C", kind=b"multipart/mixed; boundary=C")),
            ),
        )
    yield "in a text, with its header", head() + b"Good day\r\n\r\n--B\r\n" + file + CRLF
    ended = lines(BINARY, b"Content-Transfer-Encoding: quoted-printable", quoted(hidden))
    yield "a header that ends at a line that is no field", mixed(TEXT, ended)


def binhex(hidden: bytes) -> bytes:
    """RFC 1741, without check sums."""
    plain = (
        bytes([1])
        + b"x"
        + b"\0"
        + b"TEXTttxt"
        + b"\0\0"
        + struct.pack(">II", len(hidden), 0)
        + b"\0\0"
        + hidden
        + b"\0\0"
    )
    packed = base64.b64encode(plain.replace(b"\x90", b"\x90\0")).rstrip(b"=")
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    coded = packed.translate(
        bytes.maketrans(alphabet, b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr")
    )
    body = CRLF.join((b":" + coded + b":")[at : at + 64] for at in range(0, len(coded) + 2, 64))
    return b"(This file must be converted with BinHex 4.0)\r\n\r\n" + body + CRLF


def tnef(hidden: bytes, *, mapi: bool = False) -> bytes:
    """A winmail.dat with one attachment, as an attribute or as a MAPI property."""

    def attribute(number: int, data: bytes) -> bytes:
        return struct.pack("<BII", 2, number, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)

    def variable(tag: int, kind: int, data: bytes) -> bytes:
        return struct.pack("<HHII", kind, tag, 1, len(data)) + data + b"\0" * (-len(data) % 4)

    named = variable(0x3707, 0x1F, "letter.dat\0".encode("utf-16-le"))
    properties = struct.pack("<I", 2) + named + variable(0x3701, 0x102, hidden)
    file = attribute(0x69005, properties) if mapi else attribute(0x18010, b"letter.dat\0") + attribute(0x6800F, hidden)
    return struct.pack("<IH", 0x223E9F78, 1) + attribute(0x69002, b"\0" * 14) + file


def tnef_text(packed: bytes) -> bytes:
    """A winmail.dat with nothing but the rich text of a mail, *packed* as Outlook does."""
    properties = struct.pack("<IHHII", 1, 0x102, 0x1009, 1, len(packed)) + packed + b"\0" * (-len(packed) % 4)
    attribute = struct.pack("<BII", 1, 0x69003, len(properties)) + properties
    return struct.pack("<IH", 0x223E9F78, 1) + attribute + struct.pack("<H", sum(properties) & 0xFFFF)


def ber(tag: int, *values: bytes, open_ended: bool = False) -> bytes:
    """An element of BER (X.690), its length said or not."""
    value = b"".join(values)
    if open_ended:
        return bytes([tag, 0x80]) + value + b"\0\0"
    size = len(value).to_bytes(4, "big").lstrip(b"\0") or b"\0"
    return bytes([tag]) + (size if len(value) < 0x80 else bytes([0x80 | len(size)]) + size) + value


SIGNED = bytes.fromhex("2a864886f70d010702")
COMPRESSED = bytes.fromhex("2a864886f70d0109100109")
DATA = bytes.fromhex("2a864886f70d010701")


def cms(content: bytes, kind: bytes = SIGNED, *, pieces: int = 0, detached: bool = False) -> bytes:
    """A CMS message (RFC 5652) around *content*, with no signature; in pieces of so many octets, no length is said."""
    octets = ber(0x04, content)
    if pieces:
        each = (ber(0x04, content[at : at + pieces]) for at in range(0, len(content), pieces))
        octets = ber(0x24, *each, open_ended=True)
    opened = bool(pieces)
    wrapped = b"" if detached else ber(0xA0, octets, open_ended=opened)
    held = ber(0x30, ber(0x06, DATA), wrapped, open_ended=opened)
    message = ber(0x30, ber(0x02, b"\1"), ber(0x31), held, ber(0x31), open_ended=opened)
    return ber(0x30, ber(0x06, kind), ber(0xA0, message, open_ended=opened), open_ended=opened)


def _signed(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Mails in the octets of their signature, as S/MIME sends them (RFC 8551 3.5.2)."""
    whole = mixed(TEXT, attached(hidden))
    for name, octets in {
        "signed": cms(whole),
        "signed, in pieces": cms(whole, pieces=50),
        "signed, twice": cms(b"Content-Type: application/pkcs7-mime\r\n" + B64 + b"\r\n\r\n" + base64_of(cms(whole))),
        "signed, a file": cms(hidden),
        "signed, in a file": cms(cms(hidden)),
        "compressed": cms(zlib.compress(whole), COMPRESSED),
        "data": ber(0x30, ber(0x06, DATA), ber(0xA0, ber(0x04, whole))),
    }.items():
        for kind in (b"application/pkcs7-mime; name=smime.p7m", b"application/octet-stream; name=a.p7m"):
            yield f"{name}, as {kind!r}", head(b"Content-Type: " + kind, B64) + base64_of(octets)
    yield (
        "signed, in base64 twice",
        mixed(TEXT, attached(base64_of(cms(hidden)), BINARY, B64, b"Content-Disposition: attachment; filename=a.p7m")),
    )


def openpgp(hidden: bytes, name: bytes = b"", *, packing: int = 1, pieces: bool = False) -> bytes:
    """An OpenPGP message (RFC 9580) around *hidden*, as `gpg --sign` makes it, with no signature: packed, not encrypted."""
    body = b"b" + bytes([len(name)]) + name + b"\0\0\0\0" + hidden
    if pieces:  # RFC 9580 4.2.1.4
        first, rest = body[:64], body[64:]
        literal = b"\xcb\xe6" + first + b"\xff" + struct.pack(">I", len(rest)) + rest
    else:
        literal = b"\xae" + struct.pack(">I", len(body)) + body
    once = b"\x90\x0d\x03" + b"\0" * 12
    plain, deflate = once + literal + b"\x88\x02ab", zlib.compressobj(wbits=-15)
    packed = (plain, deflate.compress(plain) + deflate.flush(), zlib.compress(plain), bz2.compress(plain))[packing]
    return b"\xa3" + bytes([packing]) + packed


def armoured(message: bytes) -> bytes:
    return (
        b"-----BEGIN PGP MESSAGE-----\r\nVersion: 1\r\n\r\n"
        + base64_of(message)
        + b"=abcd\r\n-----END PGP MESSAGE-----\r\n"
    )


def _openpgp(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Files in messages of OpenPGP that anybody can read."""
    message = openpgp(hidden, b"letter.dat")
    yield "OpenPGP: in a text", head() + b"Good day\r\n\r\n" + armoured(message)
    named = b"Content-Disposition: attachment; filename=letter."
    for suffix, octets in ((b"gpg", message), (b"asc", armoured(message))):
        yield f"OpenPGP: a file {suffix!r}", mixed(TEXT, attached(octets, BINARY, B64, named + suffix))
    kind = b'multipart/encrypted; protocol="application/pgp-encrypted"; boundary=B'
    control = lines(b"Content-Type: application/pgp-encrypted", b"", b"Version: 1")
    yield "OpenPGP: a mail", mixed(control, lines(BINARY, b"", armoured(message)), kind=kind)


def _containers(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Files in files, and names that tell nothing."""
    for name, stream in {
        "winmail.dat": tnef(hidden),
        "winmail.dat, by its properties": tnef(hidden, mapi=True),
    }.items():
        yield name, mixed(TEXT, attached(stream, b"Content-Type: application/ms-tnef; name=winmail.dat", B64))
    yield (
        "winmail.dat by another name",
        mixed(TEXT, attached(tnef(hidden), BINARY, B64, b"Content-Disposition: inline")),
    )
    yield "winmail.dat in winmail.dat", mixed(TEXT, attached(tnef(tnef(hidden)), BINARY, B64))
    yield (
        "uuencode in winmail.dat in a mail in base64",
        mixed(TEXT, attached(mixed(attached(tnef(hidden), BINARY, B64)), b"Content-Type: message/rfc822", B64)),
    )

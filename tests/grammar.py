"""Odd mails by a grammar: each rule has one plain form and many that programs read differently. The same number makes
the same mail. What a mail may not have at our door (a bare CR or LF, NUL, lines of more than 998 octets) none has."""

import base64
import binascii
from collections.abc import Callable
from random import Random

from tests.tricks import CRLF, lines, quoted, short

NAME = b"letter.exe"
TEXT = lines(b"Content-Type: text/plain", b"", b"See the file.")
STRANGE_LINES = (b"X-Foo: 1", b"no field", b" folded", b"--", b": x", b"=20", b"From me", b"\xe9: x", b"X-\xe9: y")


class Grammar:
    """The rules. *share* of their forms are odd ones."""

    def __init__(self, number: int) -> None:
        self.random = Random(number)
        self.share = self.random.choice((0.03, 0.08, 0.2))

    def odd(self, plain: bytes, *others: bytes) -> bytes:
        return self.random.choice(others) if self.random.random() < self.share else plain

    def field(self, name: bytes, value: bytes) -> bytes:
        name = self.odd(name, name.upper(), name.lower(), name.swapcase())
        colon = self.odd(b":", b" :", b"\t:", b"::", b";:", b"\x01:", b" \x0b:", b"\r\n :", b"(x):", b".:")
        space = self.odd(b" ", b"", b"\t", b"\r\n ", b"\r\n \r\n ", b"\x0b", b" (x) ", b"\xa0", b"\x08", b"\x7f")
        return name + colon + space + value

    def value(self, text: bytes) -> bytes:
        return self.odd(
            b'"' + text + b'"',
            *(
                text,
                b"'" + text + b"'",
                b'"' + text,
                text + b'"',
                b'""' + text + b'""',
                b'"\\' + text + b'"',
                text + b"(x)",
            ),
            *(
                b"(x)" + text,
                b'(x)"' + text + b'"',
                text[:1] + b'"' + text[1:] + b'"',
                b'"' + text + b' "',
                text + b",x",
            ),
            *(
                b"=?us-ascii?q?" + text + b"?=",
                b'"=?utf-8?b?' + base64.b64encode(text) + b'?="',
                text + b"\x01",
                b"=" + text,
            ),
        )

    def parameter(self, name: bytes, text: bytes) -> bytes:
        half = len(text) // 2
        return self.odd(
            name + b"=" + self.value(text),
            *(name + b" = " + self.value(text), name + b"==" + text, name + b":" + text, name.upper() + b"=" + text),
            *(name + b"*=us-ascii''" + text, name + b"*0=" + text[:half] + b"; " + name + b"*1=" + text[half:]),
            *(name + b"*1=" + text[half:] + b"; " + name + b"*0=" + text[:half], name + b"*0*=''" + text),
            *(name + b"=other; " + name + b"=" + text, name + b"=" + text + b"; " + name + b"=other"),
        )

    def parameters(self, *pairs: tuple[bytes, bytes]) -> bytes:
        between = (b";", b";\r\n\t", b" ;", b";;", b" ", b"; x=y;", b";(x)", b'; x="a;b";', b"; x;", b"; =;")
        return b"".join(self.odd(b"; ", *between) + self.parameter(*pair) for pair in pairs)

    def type(self, kind: bytes) -> bytes:
        return self.odd(
            kind,
            *(
                kind.upper(),
                b'"' + kind + b'"',
                kind.replace(b"/", b" / "),
                kind.partition(b"/")[0],
                kind + b"/x",
                b"(x)" + kind,
            ),
            *(
                b"text/plain; " + kind,
                kind + b", text/plain",
                kind.replace(b"/", b"/\r\n "),
                kind + b"\x0b",
                b"=" + kind,
            ),
        )

    def encoding(self, word: bytes) -> bytes:
        return self.odd(
            word,
            *(
                b'"' + word + b'"',
                word + b" (x)",
                b"(x) " + word,
                word + b";",
                word + b"; x=y",
                word + b".",
                b"x-" + word,
            ),
            *(
                word + b"\x0b",
                word[:3] + b"\r\n " + word[3:],
                word + b" 7bit",
                b"7bit " + word,
                b"\x01" + word,
                word + b"=",
            ),
        )

    def base64(self, hidden: bytes) -> bytes:
        plain = short(hidden)
        return self.odd(
            plain,
            *(
                plain.rstrip(b"="),
                plain + b"====",
                CRLF + plain,
                b"# x\r\n" + plain,
                b"Good day\r\n" + plain,
                b"=\r\n" + plain,
            ),
            *(plain.replace(CRLF, b"\r\n--\r\n"), plain.replace(CRLF, b" \r\n  "), plain + b"\r\n\r\ntext behind"),
            *(plain.replace(CRLF, b"!\r\n*"), plain.replace(CRLF, b"\xe9\r\n"), b"QQ==\r\n" + plain, plain + b"A"),
            CRLF.join(base64.b64encode(hidden[at : at + 10]) for at in range(0, len(hidden), 10)),
        )

    def quoted(self, hidden: bytes) -> bytes:
        return quoted(hidden, self.odd(b"=\r\n", b"= \r\n", b"=\t \r\n", b"=\r\n=\r\n")) + self.odd(b"", b"=", b"=\r\n")

    def uuencoded(self, hidden: bytes) -> bytes:
        uu = [binascii.b2a_uu(hidden[at : at + 45])[:-1] for at in range(0, len(hidden), 45)]
        junk = self.odd(CRLF, b"\r\n\r\n", b"\r\njunk?\r\n", b" x\r\n", b"\r\n ")
        begin = self.odd(
            b"begin 644 ", b"BEGIN 644 ", b"begin  644  ", b"begin\t644\t", b"begin 999 ", b"begin 0100644 "
        )
        end = self.odd(b"`\r\nend", b"end", b"", b"`\r\nEND", b"`\r\n end", b" \r\nend of file")
        return begin + self.odd(NAME, b"", b"a b.exe") + CRLF + junk.join(uu) + CRLF + end

    def file(self, hidden: bytes) -> bytes:
        ways: dict[bytes, Callable[[bytes], bytes]] = {
            b"base64": self.base64,
            b"quoted-printable": self.quoted,
            b"x-uuencode": self.uuencoded,
        }
        way = self.random.choice(list(ways))
        kind = self.odd(
            b"application/octet-stream",
            b"text/plain",
            b"image/jpeg",
            b"message/x-letter",
            b"application/zip",
            b"letter",
        )
        fields = [
            self.field(b"Content-Type", self.type(kind) + self.parameters((b"name", NAME))),
            self.field(b"Content-Transfer-Encoding", self.encoding(way)),
            self.field(b"Content-Disposition", b"attachment" + self.parameters((b"filename", NAME))),
        ]
        return self.header(fields) + ways[way](hidden)

    def header(self, fields: list[bytes]) -> bytes:
        if self.random.random() < self.share:
            fields.insert(self.random.randrange(len(fields) + 1), self.random.choice(STRANGE_LINES))
        end = self.odd(
            b"\r\n\r\n", b"\r\n \r\n", b"\r\n", b"\r\n\r\n\r\n", b"\r\n\r\nX: y\r\n\r\n", b"\r\nno field\r\n\r\n"
        )
        return lines(*fields) + end

    def multipart(self, *parts: bytes) -> bytes:
        boundary = self.odd(
            b"B", b"B B", b"B" * 71, b"B--", b"--B", b"B;C", b"B(c)", b"B ", b"B'", b"=_B", b"B,C", b"\xe9"
        )
        kind = b"multipart/" + self.odd(
            b"mixed", b"alternative", b"digest", b"x-letters", b"signed", b"appledouble", b"form-data"
        )
        fields = [self.field(b"Content-Type", self.type(kind) + self.parameters((b"boundary", boundary)))]
        mark = b"--" + self.odd(boundary, boundary.lower(), boundary + b"x", boundary.strip(), b"C")
        between = (
            self.odd(mark, mark + b" ", mark + b"\t", mark + b"x", b" " + mark, mark + b"\x0c", mark + b" x")
            for _ in parts
        )
        inside = b"".join(line + CRLF + part + CRLF for line, part in zip(between, parts, strict=True))
        before = self.odd(b"", b"This is a multi-part message in MIME format.\r\n", b"\r\n", b"--C\r\n", TEXT + CRLF)
        return self.header(fields) + before + inside + mark + self.odd(b"--", b"", b"-", b"-- x", b"--\r\n\r\nbehind")

    def entity(self, hidden: bytes, depth: int = 0) -> bytes:
        rule = self.random.random()
        if depth < 2 and rule < 0.15:
            return self.multipart(TEXT, self.entity(hidden, depth + 1))
        if depth < 2 and rule < 0.3:
            kind = self.odd(
                b"message/rfc822", b"message/global", b"message/news", b"application/octet-stream; name=a.eml"
            )
            return self.header([self.field(b"Content-Type", kind)]) + self.mail(hidden, depth + 1)
        return self.file(hidden)

    def mail(self, hidden: bytes, depth: int = 0) -> bytes:
        version = self.odd(b"MIME-Version: 1.0", b"MIME-Version: 2.0", b"MIME-Version: (x) 1.0", b"X-Nothing: here")
        return lines(
            b"From: a@far.example", b"Subject: a letter", version, self.multipart(TEXT, self.entity(hidden, depth))
        )


def mail(number: int, hidden: bytes) -> bytes:
    """The mail of that *number*, with *hidden* in it."""
    return Grammar(number).mail(hidden) + CRLF

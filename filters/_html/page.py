"""What a page does when a browser opens it: run script, build a file, ask for a password, lead elsewhere.

The rule: no script is run, and no call is understood. What is encoded in the page is decoded and read like the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from filters._html.literals import MANY, base64_of, joined, runs, unescaped
from filters._html.markup import Tag, lowered, tags
from filters._html.seen import Meter, Sight, kind

MAX_WITHIN = 3
"""Pages encoded within each other."""
MAX_ADDRESS = 480
SMALL = 32768
"""Characters of a page that is hardly more than its script."""

_ELSEWHERE = re.compile(r"(?:https?|ftp|wss?):|[/\\]{2}", re.IGNORECASE)
_SHARE = re.compile(r"file:[/\\]{2}[^/\\]|file:[/\\]{4,}+(?![a-z][:|])|\\\\[^\\/\s]|smb:", re.IGNORECASE)
_LAUNCH = re.compile(
    r"(?:search-ms|ms-msdt|ms-search|ms-officecmd|ms-appinstaller|ms-cxh|ms-cxh-full|ms-its|jnlp|vbscript):"
    r"|mk:@|shell:[:a-z]|search:[^\s]{0,200}crumb",
    re.IGNORECASE,
)
_SECRET = re.compile(
    r"pass(?:w|code|phrase|$)|\bpwd|passwd|^pass|kennwort|contrase|mot.?de.?passe|senha\b|^pin$|cvv", re.IGNORECASE
)
_BUILT_SECRET = re.compile(
    r"""\.type\s{0,5}=\s{0,5}["'`]password|["']type["']\s{0,5},\s{0,5}["']password|-text-security\s{0,5}:\s{0,5}(?!none)"""
    r"""|(?<![\[\w])type\s{0,5}[:=]\s{0,5}\\?["']?password\b"""
)
_HANDLER = re.compile(r"""on(?<=[\s"'/]on)(?!ce|ly\b|line)[a-z]{3,24}\s{0,5}=(?!=)""")
_MOVES = re.compile(
    r"""location(?:\.href|\[["']href["']\])?(?:\s{0,5}=(?![=>])|(?:\.|\[["'])(?:replace|assign)(?:["']\])?\s{0,5}\()"""
    r"""\s{0,5}(?:["'`]([^"'`\s]{0,480}))?"""
)
_CLICKS = re.compile(r"onload\s{0,5}=[^>]{0,300}\.(?:click|submit)\(")
_REFRESH = re.compile(r"\s*[\d.]*\s*[;,]?\s*(?:url\s*=)?\s*[\"']?([^\"']{1,2000})", re.IGNORECASE)
_DATA = re.compile(
    r"data:(?:text/html|text/xml|application/(?:xhtml\+xml|xml|zip|x-zip[\w-]*|x-rar[\w-]*|x-7z[\w-]*|x-msdownload|hta"
    r"|x-ms[\w-]{1,40}|x-iso[\w-]*|vnd\.ms-(?!fontobject)[\w.-]{1,60}|vnd\.openxml[\w.-]{1,80}|msword|pdf|x-javascript"
    r"|javascript|java-archive))(?:;[^,;\"'\s]{0,60}){0,5},[^\"'\s]{24}"
)
_ENTITY = re.compile(r"""<!entity\s[^>"']{0,200}(?:\ssystem\s|["'][^"']{0,2000}(?:&#|<))""")
_DECODES = (
    *("atob", "fromCharCode", "fromCodePoint", "charCodeAt", "codePointAt", "unescape", "decodeURI", "Uint8Array"),
    *("TextDecoder", "fromBase64", "CryptoJS", "crypto.subtle", "parseInt"),
)
_SAVES = ("new Blob", "createObjectURL", "msSave", "showSaveFilePicker", ".download", "download=")
_RUNS = (
    *("eval(", "Function(", "document.write", "innerHTML", "insertAdjacentHTML", "srcdoc", "execScript"),
    "parseFromString",
)
# So long may be a file under a cipher.
_LITERAL = re.compile(r"""(?:(data:[^"'`\s,]{0,80},)|["'`>])([^"'`\s<>{};()]{2048,}+)""")
# So many whole numbers that are written as letters are a page under a cipher; those of charts are drawn.
_NUMBERS = re.compile(r"(?<![0-9,\s-])[0-9,\s-]{2048,}+(?![.\d])")
_OBFUSCATED = re.compile(
    r"(?:_0x[0-9a-f]{3,6}+\b[^_]{0,80}+){25}|(?<![\[\]()!+])[\[\]()!+]{300}"
    r"|(?<![0-9a-fA-F])(?:(?:\\x[0-9a-fA-F]{2}){80}|(?:\\u00[0-9a-fA-F]{2}){80})"
)
_PAGE = re.compile(
    r"\s*(?:\ufeff|\xef\xbb\xbf)?\s*"
    r"<(?:!doctype|\?xml|html|head|body|script|svg|form|meta|iframe|!--|div|style|input|center|table|title|p\b)",
    re.IGNORECASE,
)
_MEDIA = ("data:image/", "data:font/", "data:audio/", "data:video/", "data:application/font", "data:application/x-font")
_UNASKED = frozenset({"onload", "onerror", "onpageshow", "onfocus", "ontoggle", "onbegin", "onanimationstart"})
"""Events that come without anybody's doing."""
_LINKS = frozenset({"a", "area"})
_FRAMES = frozenset({"iframe", "frame", "portal", "fencedframe"})
_FETCHES = _FRAMES | {"script", "object", "embed", "applet", "base"}
_PRINTABLE = bytes({*range(32, 127), 9, 10, 13, *b"\xef\xbb\xbf"})
_PICTURES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "d09G", "PHN2Zy", "AAEAAA", "PD94bWw", "T1RUTw")


@dataclass(slots=True)
class _Page:
    """One page, or one that is encoded in it."""

    text: str
    meter: Meter
    within: int = 0
    scripts: bool = False
    lower: str = ""

    def __post_init__(self) -> None:
        self.lower = lowered(self.text)

    def sights(self) -> Iterator[Sight]:
        self.meter.count(len(self.text))
        for tag in tags(self.text, self.lower, self.meter):
            yield from self._tag(tag)
        self.scripts = self.scripts or "javascript:" in self.lower or bool(_HANDLER.search(self.lower))
        yield from self._data_links()
        if self.scripts:
            yield Sight("script", "runs script")
            yield from self._script()

    def _tag(self, tag: Tag) -> Iterator[Sight]:
        for event in _UNASKED & tag.attributes.keys():
            yield from _moves(tag.get(event))  # its references are resolved
        if tag.name == "script":
            self.scripts = True
            if (address := tag.link("src")).lower().startswith("data:"):
                yield from self._inner(_within(address))
        elif tag.name == "input" and tag.get("type").lower() == "password":
            yield Sight("password_form", "asks for a password")
        elif tag.name == "input" and _SECRET.search(f"{tag.get('name')} {tag.get('placeholder')}".strip()):
            yield Sight("password_form", "has a field for a password")
        elif tag.name == "meta" and tag.get("http-equiv").lower() == "refresh":
            yield from _refresh(tag.get("content"))
        elif tag.name == "form" and _ELSEWHERE.match(link := tag.link("action")):
            yield Sight("form", "sends away what is filled in", link[:MAX_ADDRESS])
        yield from self._addresses(tag)

    def _addresses(self, tag: Tag) -> Iterator[Sight]:
        link = tag.link("href", "src", "data", "action", "background", "formaction", "code", "srcset", "classid")
        if not link:
            if tag.name in _FRAMES and (inner := tag.get("srcdoc")):
                yield from self._inner(inner)
            return
        self.scripts = self.scripts or link.lower().startswith("javascript:")
        if tag.name in _LINKS and link[:5].lower() == "data:":
            yield self._file(link, tag.get("download"))
        elif _SHARE.match(link):
            yield Sight("network_path", "leads to a share of files on the network", link[:MAX_ADDRESS])
        elif _LAUNCH.match(link):
            yield Sight("launch", "starts a program by its address")
        elif tag.name in _FETCHES and _ELSEWHERE.match(link):
            yield Sight("remote", f"loads <{tag.name}> from elsewhere", link[:MAX_ADDRESS])

    def _file(self, link: str, name: str) -> Sight:
        """What a browser saves as *name* when somebody follows *link*, whatever type it says (HTML 4.6.6)."""
        self.meter.count(len(link))
        octets = _within(link).encode("latin-1", "replace")
        what = kind(octets)
        return Sight("smuggled" if what else "", f"holds {what} in a link", octets=octets, file=name)

    def _data_links(self) -> Iterator[Sight]:
        if "<!entity" in self.lower and _ENTITY.search(self.lower):
            yield Sight("obfuscated", "hides what it holds in entities of its own")
        if _DATA.search(self.lower):
            yield Sight("smuggled", "holds a file, or another page, in a link")

    def _script(self) -> Iterator[Sight]:
        """What stands in the script, as written and decoded."""
        text = joined(self.text)
        yield from _moves(text)
        if _CLICKS.search(self.lower):
            yield Sight("redirect", "clicks on something by script when it is opened")
        if _BUILT_SECRET.search(lowered(text)):
            yield Sight("password_form", "asks for a password in a field that its script makes")
        if _is_obfuscated(text):
            yield Sight("obfuscated", "has script that is written to be unreadable")
        yield from self._decoded(text)
        yield from _ciphers(text)
        plain = unescaped(text)
        if plain and len(plain) + 2 * MANY < len(text):
            yield from self._inner(plain)

    def _decoded(self, text: str) -> Iterator[Sight]:
        for octets in runs(text, self.meter):
            if what := kind(octets):
                yield Sight("smuggled", f"holds {what} that is encoded in its script", octets=octets)
            elif _is_text(octets[:200]) and (_PAGE.match(plain := octets.decode("latin-1")) or _has(plain, _RUNS)):
                yield Sight("obfuscated", "holds another page, or script, that is encoded")
                yield from self._inner(plain)

    def _inner(self, text: str) -> Iterator[Sight]:
        if self.within < MAX_WITHIN:
            yield from _Page(text, self.meter, self.within + 1, self.scripts).sights()


def sights(text: str, meter: Meter) -> Iterator[Sight]:
    """What the page *text* does; the same sight may come again."""
    return _Page(text, meter).sights()


def _within(address: str) -> str:
    """What a data: address holds (RFC 2397)."""
    head, _, body = address.partition(",")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote(body, "latin-1")
    return base64_of(re.sub(r"[^A-Za-z0-9+/]", "", unquote(body)).encode("ascii")).decode("latin-1")


def _refresh(content: str) -> Iterator[Sight]:
    match = _REFRESH.match(content[:2000])
    if match and match[1].strip(" .;,0123456789"):
        yield Sight("redirect", "leads elsewhere by itself", match[1].strip()[:MAX_ADDRESS])


def _moves(text: str) -> Iterator[Sight]:
    """Where script leads: large scripts of honest pages do so too when they are asked, to addresses they work out."""
    for match in _MOVES.finditer(text):
        link = match[1] or ""
        if _ELSEWHERE.match(link):
            yield Sight("redirect", "leads elsewhere by script", link)
        elif len(text) < SMALL and not link.startswith("#"):
            yield Sight("redirect", "leads elsewhere by script")


def _ciphers(text: str) -> Iterator[Sight]:
    """A large literal of no kind that script decodes: to a file that it saves, or to a page that it shows."""
    saves = _has(text, _SAVES)
    if "fromCharCode" in text and "document.write(" in text and _NUMBERS.search(text):
        yield Sight("obfuscated", "builds what it shows from numbers in its script")
    if _has(text, _DECODES) and (saves or _has(text, _RUNS)) and any(map(_is_cipher, _LITERAL.finditer(text))):
        if saves:
            yield Sight("smuggled", "builds a file from what is encoded in its script")
        else:
            yield Sight("obfuscated", "builds what it shows from what is encoded in its script")


def _is_cipher(match: re.Match[str]) -> bool:
    """Whether a literal is none of the pictures and fonts that honest pages hold."""
    return not ((match[1] or match[2][:32]).startswith(_MEDIA) or match[2].startswith(_PICTURES))


def _is_obfuscated(text: str) -> bool:
    may_be = text.count("_0x") >= 25 or text.count("[]") >= 50 or text.count("\\x") + text.count("\\u") >= 80
    return may_be and bool(_OBFUSCATED.search(text))


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(word in text for word in words)


def _is_text(octets: bytes) -> bool:
    return len(octets) >= 30 and not octets.translate(None, _PRINTABLE)

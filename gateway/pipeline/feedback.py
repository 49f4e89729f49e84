"""DMARC aggregate reports: an attachment -> `Report` (RFC 9990, and RFC 7489 before it). Runs in the confined child.

A report is a stranger's text in a stranger's archive: it is unpacked and read within limits, without a document type,
and nothing but values of known kinds leaves. What is wrong with one is said in our words, and harms no mail.
"""

from __future__ import annotations

import io
import re
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from xml.sax import SAXException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException
from defusedxml.expatreader import DefusedExpatParser

from gateway.events import clean
from gateway.idn import a_labels
from gateway.model import Content, Part, Report, ReportRecord
from gateway.pipeline.content import Buffer, Limits, opened
from gateway.pipeline.tray import Unscannable

if TYPE_CHECKING:
    from xml.sax.xmlreader import AttributesImpl

_T = TypeVar("_T")

MAX_PACKED = 4 << 20
"""Octets of a gzip or zip file."""
MAX_XML = 10 << 20
"""Octets of a report, unpacked."""
MAX_RECORDS = 20_000
MAX_KEPT = 6 << 20
"""Octets that the records which are handed over have as JSON, about: the worker's reply has a limit too."""
MAX_ELEMENTS = 1_000_000
MAX_DEPTH = 16
MAX_TEXT = 1000
"""Characters of one element."""
MAX_SEVERAL = 10
"""Results, reasons and errors that are kept where there may be many."""
MAX_CANDIDATES = 3
"""Attachments of one mail that are tried."""
CPU = 1.5
"""Seconds of processor time for one report; a mail has two in all."""
_TOO_LARGE = f"the report is larger than {MAX_XML >> 20} MB"
_PORTION = 256 << 10  # not small: expat before 2.6 looks at a long token again with each portion

_TYPES = {
    "application/gzip",
    "application/x-gzip",
    "application/zip",
    "application/x-zip-compressed",
    "application/xml",
    "text/xml",
}
_SUFFIXES = (".xml", ".xml.gz", ".zip", ".gz")
_ROOT = "/feedback"
_RECORD = f"{_ROOT}/record"
_DKIM, _SPF = f"{_RECORD}/auth_results/dkim", f"{_RECORD}/auth_results/spf"
_REASON, _ERROR = f"{_RECORD}/row/policy_evaluated/reason/type", f"{_ROOT}/report_metadata/error"
_IN_HEAD = {
    f"{_ROOT}/{path}"
    for path in (
        *(f"report_metadata/{name}" for name in ("org_name", "email", "report_id")),
        *(f"report_metadata/date_range/{name}" for name in ("begin", "end")),
        "policy_published/domain",
    )
}
_IN_RECORD = {
    f"{_RECORD}/{path}"
    for path in (
        *("row/source_ip", "row/count"),
        *(f"row/policy_evaluated/{name}" for name in ("disposition", "dkim", "spf")),
        *("identifiers/header_from", "identifiers/envelope_from"),
    )
}
_IN_RESULT = {f"{check}/{name}" for check in (_DKIM, _SPF) for name in ("domain", "selector", "scope", "result")}
_WORDS = {"none", "quarantine", "reject"}
_MODES = {"r", "s"}
_POLICY = {
    **dict.fromkeys(("p", "sp", "np"), _WORDS),
    **dict.fromkeys(("adkim", "aspf"), _MODES),
    "testing": {"y", "n"},
    "discovery_method": {"psl", "treewalk"},
    "pct": {str(number) for number in range(101)},
}
"""What may be published, by its tag (RFC 9990 3.1.1.5; pct is RFC 7489's)."""
_IN_POLICY = {f"{_ROOT}/policy_published/{tag}": tag for tag in _POLICY}
_WANTED = {*_IN_HEAD, *_IN_RECORD, *_IN_RESULT, *_IN_POLICY}
_RESULTS = {"none", "pass", "fail", "policy", "neutral", "softfail", "temperror", "permerror"}
_REASONS = {
    *("forwarded", "sampled_out", "trusted_forwarder", "mailing_list", "local_policy", "policy_test_mode", "other"),
}
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SELECTOR = re.compile(r"[A-Za-z0-9._-]{1,63}")
_EARLIEST = 1_325_376_000  # 2012: before it there was no DMARC
_LATEST = 1 << 32
_LONGEST = 366 * 86400


class Unreadable(Exception):
    """It is no report. The text says why, in our words."""


def read(data: Buffer, content: Content, limits: Limits) -> Report:
    """The report in the message *data*, which was parsed as *content*; where there is none, its `fault` says why."""
    if why := content.unscannable or "; ".join(content.ambiguities):
        return Report(f"the mail that should hold a report cannot be read for certain: {why}")
    fault = "the mail holds no report"
    for span in _candidates(content.parts):
        try:
            return _report(data, span, limits)
        except (Unreadable, Unscannable) as error:
            fault = str(error)
    return Report(fault)


def _report(data: Buffer, span: tuple[int, int], limits: Limits) -> Report:
    if span[1] - span[0] > 2 * MAX_XML:
        raise Unreadable(_TOO_LARGE)
    with opened(data, span, limits) as file:
        return parsed(unpacked(file))


def _candidates(parts: Iterable[Part]) -> list[tuple[int, int]]:
    spans = (part.span for part in parts if part.span and _may_be_report(part))
    return [*dict.fromkeys(spans)][:MAX_CANDIDATES]


def _may_be_report(part: Part) -> bool:
    named = part.filename.rstrip(" .").lower().endswith(_SUFFIXES)
    return named or part.media_type in _TYPES or part.sniffed in _TYPES


# ---- Unpacking ----------------------------------------------------------------------------------------------------


def unpacked(file: BinaryIO) -> bytes:
    """The XML in *file*, which is gzip or zip where it begins so; `Unreadable` where it is too large or broken."""
    raw = file.read(MAX_XML + 1)
    if raw.startswith((b"\x1f\x8b", b"PK\3\4")):
        if len(raw) > MAX_PACKED:
            raise Unreadable(f"the archive of the report is larger than {MAX_PACKED >> 20} MB")
        raw = _gunzipped(raw) if raw.startswith(b"\x1f") else _unzipped(raw)
    if len(raw) > MAX_XML:
        raise Unreadable(_TOO_LARGE)
    return raw


def _gunzipped(packed: bytes) -> bytes:
    """The first member: a report has no other (RFC 9990 3.3), and a file may have a hundred thousand."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        data = decompressor.decompress(packed, MAX_XML + 1)
    except zlib.error:
        raise Unreadable("the gzip file of the report is broken") from None
    if not decompressor.eof and len(data) <= MAX_XML:
        raise Unreadable("the gzip file of the report breaks off")
    return data


def _unzipped(packed: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive, archive.open(_member(archive.infolist())) as member:
            return member.read(MAX_XML + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, OSError):
        raise Unreadable("the zip file of the report is broken") from None


def _member(members: Sequence[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """The one that has the name of a report; packed in a way whose memory is bounded, whatever it says."""
    files = [one for one in members if not one.filename.endswith("/")]  # is_dir() of 3.11 fails without a name
    found = next((one for one in files if one.filename.lower().endswith(".xml")), files[0] if len(files) == 1 else None)
    if found is None:
        raise Unreadable("the zip file holds no report")
    if found.flag_bits & 1 or found.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise Unreadable("the zip file of the report is encrypted, or packed in an unusual way")
    return found


# ---- Reading ------------------------------------------------------------------------------------------------------


def parsed(xml: bytes) -> Report:
    """What the report *xml* says. `Unreadable` where it is none, or says too little to be used."""
    reader = _Reader()
    parser = DefusedExpatParser(forbid_dtd=True)
    parser.setContentHandler(reader)
    try:
        for portion in _in_time(xml):
            parser.feed(portion)
        parser.close()
    except DefusedXmlException:
        raise Unreadable("the report has a document type, which none needs") from None
    except (SAXException, ValueError, LookupError):  # the latter two: what it calls its encoding
        raise Unreadable("the report is no well-formed XML") from None
    return reader.report()


def _in_time(xml: bytes) -> Iterator[bytes]:
    end = time.process_time() + CPU
    for at in range(0, len(xml), _PORTION):
        if time.process_time() > end:
            raise Unreadable("the report takes too long to read")
        yield xml[at : at + _PORTION]


class _Reader(ContentHandler):
    """What was read so far. An element is known by its path, without prefixes: reporters differ on namespaces."""

    def __init__(self) -> None:
        super().__init__()
        self._paths = [""]
        self._text: list[str] = []
        self._room = 0
        self._elements = 0
        self._values: dict[str, str] = {}
        self._results: list[tuple[str, str, str, str]] = []
        self._reasons: list[str] = []
        self._errors: list[str] = []
        self._records: list[ReportRecord] = []
        self._kept = 0
        self._faulty = self._left = self._left_mails = 0

    # The names are those of SAX
    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: ARG002, N802
        """An element begins: text before it means nothing."""
        self._elements += 1
        if len(self._paths) > MAX_DEPTH or self._elements > MAX_ELEMENTS:
            raise Unreadable("the report has too many elements, or too deep ones")
        self._paths.append(f"{self._paths[-1]}/{name.rpartition(':')[2][:40]}")
        if self._paths[1] != _ROOT:
            raise Unreadable("it is XML, but no report")
        self._text, self._room = [], MAX_TEXT

    def characters(self, content: str) -> None:
        """Some text of the innermost element."""
        if self._room > 0:
            self._text.append(content[: self._room])
            self._room -= len(content)

    def endElement(self, name: str) -> None:  # noqa: ARG002, N802
        """An element ends: keep what it says, or make a record of all that a record has said."""
        path = self._paths.pop()
        if path in _WANTED:
            self._values.setdefault(path, "".join(self._text).strip())
        elif path in {_DKIM, _SPF}:
            self._end_result(path)
        elif path == _REASON:
            _add(self._reasons, _word("".join(self._text), _REASONS))
        elif path == _RECORD:
            self._end_record()
        elif path == _ERROR:
            _add(self._errors, clean("".join(self._text).strip(), 200))
        self._text = []

    def _end_result(self, path: str) -> None:
        domain, selector, scope, result = (
            self._values.pop(f"{path}/{name}", "") for name in ("domain", "selector", "scope", "result")
        )
        dkim = path == _DKIM
        place = _matching(_SELECTOR, selector) if dkim else scope if scope in {"mfrom", "helo"} else ""
        _add(self._results, ("dkim" if dkim else "spf", _word(result, _RESULTS), _domain(domain), place))

    def _end_record(self) -> None:
        values = {path: self._values.pop(path, "") for path in _IN_RECORD}
        results, reasons = tuple(self._results), tuple(self._reasons)
        self._results, self._reasons = [], []
        if (record := _record(values, reasons, results)) is None:
            self._faulty += 1
        elif len(self._records) >= MAX_RECORDS or self._kept >= MAX_KEPT:
            self._left += 1
            self._left_mails += record.count
        else:
            self._records.append(record)
            self._kept += _weight(record)

    def report(self) -> Report:
        """All of it. `Unreadable` where it does not say who tells of which domain and of which days."""
        head = {path.rpartition("/")[2]: self._values.get(path, "") for path in _IN_HEAD}
        begins, ends = _time(head["begin"]), _time(head["end"])
        org, id_, domain = clean(head["org_name"], 200), clean(head["report_id"], 255), _domain(head["domain"])
        if not (org and id_ and domain):
            raise Unreadable("the report does not say who made it, its id, or the domain that it is about")
        if not begins <= ends <= begins + _LONGEST or not begins:
            raise Unreadable("the report does not say sensibly of which time it tells")
        if not self._records and not self._left:
            raise Unreadable("the report has no record that can be read")
        return Report(
            org=org,
            email=clean(head["email"], 320),
            id=id_,
            domain=domain,
            begins=begins,
            ends=ends,
            policy=tuple(self._policy()),
            errors=tuple(self._errors),
            records=tuple(self._records),
            faulty=self._faulty,
            left=self._left,
            left_mails=self._left_mails,
        )

    def _policy(self) -> Iterator[tuple[str, str]]:
        for path, tag in _IN_POLICY.items():
            if value := self._values.get(path):
                yield tag, _word(value, _POLICY[tag])


# ---- Values -------------------------------------------------------------------------------------------------------


def _record(
    values: dict[str, str], reasons: tuple[str, ...], results: tuple[tuple[str, str, str, str], ...]
) -> ReportRecord | None:
    """None where it does not say how many mails of which address it is about."""
    row, evaluated, identifiers = (f"{_RECORD}/{path}" for path in ("row", "row/policy_evaluated", "identifiers"))
    source, count = _address(values[f"{row}/source_ip"]), values[f"{row}/count"]
    if not source or not re.fullmatch("[0-9]{1,10}", count):
        return None
    return ReportRecord(
        source=source,
        count=int(count),
        disposition=_word(values[f"{evaluated}/disposition"], {*_WORDS, "pass"}),
        dkim=_word(values[f"{evaluated}/dkim"], {"pass", "fail"}),
        spf=_word(values[f"{evaluated}/spf"], {"pass", "fail"}),
        header_from=_domain(values[f"{identifiers}/header_from"]),
        envelope_from=_domain(values[f"{identifiers}/envelope_from"]),
        reasons=reasons,
        results=results,
    )


def _weight(record: ReportRecord) -> int:
    """About the octets that *record* has as JSON."""
    texts = (record.source, record.header_from, record.envelope_from, *record.reasons)
    return 150 + sum(map(len, texts)) + sum(30 + len(domain) + len(place) for _, _, domain, place in record.results)


def _add(several: list[_T], one: _T) -> None:
    if len(several) < MAX_SEVERAL:
        several.append(one)


def _word(text: str, known: set[str]) -> str:
    word = text.strip().lower()
    return word if word in known else "other"


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""


@lru_cache(1000)  # a report names few domains, many times
def _domain(text: str) -> str:
    """A domain in A-labels and lower case; "" for what is none."""
    if len(text) > 254:
        return ""
    try:
        name = a_labels(text.rstrip("."))
    except ValueError:
        return ""
    return _matching(_DOMAIN, name) if len(name) <= 253 else ""


def _address(text: str) -> str:
    """An IP address in its usual form, never IPv4 within IPv6; "" for what is none."""
    if len(text) > 45 or "%" in text:  # a zone (RFC 4007) could be any text
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _time(text: str) -> int:
    """Seconds since the epoch; 0 where that is no time at which there could have been a report."""
    moment = int(text) if re.fullmatch("[0-9]{1,12}", text) else 0
    return moment if _EARLIEST <= moment <= _LATEST else 0

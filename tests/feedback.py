"""DMARC reports for tests: samples as reporters write them, ones of any size, and the mails that bring them."""

import base64
import gzip
import io
import zipfile
from pathlib import Path

SAMPLES = Path(__file__).parent / "reports"
BEGINS = 1_735_689_600
"""The day that all samples tell of: 2025-01-01 (UTC)."""
BOUNDARY = "=_report"


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.xml").read_bytes()


def head(org: str = "reporter.example", number: str = "1", domain: str = "ours.example") -> str:
    return (
        f"<report_metadata><org_name>{org}</org_name><email>dmarc@{org}</email><report_id>{number}</report_id>"
        f"<date_range><begin>{BEGINS}</begin><end>{BEGINS + 86400}</end></date_range></report_metadata>"
        f"<policy_published><domain>{domain}</domain><p>reject</p></policy_published>"
    )


def record(source: str = "192.0.2.1", count: str = "2", header_from: str = "ours.example", more: str = "") -> str:
    return (
        f"<record><row><source_ip>{source}</source_ip><count>{count}</count><policy_evaluated>"
        "<disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row>"
        f"<identifiers><header_from>{header_from}</header_from></identifiers><auth_results><dkim>"
        "<domain>ours.example</domain><selector>s1</selector><result>pass</result></dkim><spf>"
        f"<domain>ours.example</domain><scope>mfrom</scope><result>softfail</result></spf></auth_results>{more}</record>\n"
    )


def report(*records: str, **words: str) -> bytes:
    return f"<feedback>{head(**words)}{''.join(records or (record(),))}</feedback>".encode()


def zipped(data: bytes, name: str = "report.xml", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def attachment(data: bytes, kind: str, name: str) -> bytes:
    """A body part with its header."""
    fields = f'Content-Type: {kind}; name="{name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
    return fields.encode() + base64.encodebytes(data).replace(b"\n", b"\r\n")


def mail(*parts: bytes, sender: str = "dmarc@reporter.example") -> bytes:
    """A mail with these attachments behind a text, as most reporters send it."""
    text = b"Content-Type: text/plain\r\n\r\nThis is a DMARC report.\r\n"
    divided = b"".join(b"--" + BOUNDARY.encode() + b"\r\n" + part + b"\r\n" for part in (text, *parts))
    kind = f'multipart/mixed; boundary="{BOUNDARY}"'
    return _fields(sender) + f"Content-Type: {kind}\r\n\r\n".encode() + divided + f"--{BOUNDARY}--\r\n".encode()


def bare(part: bytes, sender: str = "dmarc@reporter.example") -> bytes:
    """A mail that is the attachment and nothing else, as Google sends it."""
    return _fields(sender) + part


def _fields(sender: str) -> bytes:
    return (
        f"From: Reports <{sender}>\r\nTo: dmarc@ours.example\r\nDate: Mon, 23 Nov 2026 01:00:00 +0000\r\n"
        f"Message-ID: <1@reporter.example>\r\nSubject: Report Domain: ours.example Submitter: reporter.example\r\n"
        "MIME-Version: 1.0\r\n"
    ).encode()

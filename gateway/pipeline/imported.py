"""DMARC reports in files, for the time before they came here: read as those in mails are, by a confined worker.

A file is a mail, or what hangs on one: XML, gzip or zip.
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from gateway.model import Envelope, Mail, Recipient, Report, Session, new_id
from gateway.pipeline.policy import Policies

if TYPE_CHECKING:
    from gateway.pipeline.sandbox import Sandbox

MAX_FILE = 32 << 20
"""Octets of one file."""
_TO = "reports@localhost"
_FIELD = re.compile(rb"[!-9;-~]{1,80}[ \t]*:")
_ATTACHED = b"Content-Type: application/xml\r\nContent-Transfer-Encoding: base64\r\n\r\n"


async def read(policies: Policies, files: Iterable[bytes]) -> AsyncIterator[Report]:
    """The report in each of *files*, in their order. Raises `Temporary` where no confined worker can be had."""
    from gateway.pipeline.sandbox import Sandbox  # noqa: PLC0415 - it brings the parser along; the command has many verbs

    told = policies.stages.reports.model_copy(update={"receive": (_TO,)})
    stages = policies.stages.model_copy(update={"reports": told})
    sandbox = await Sandbox(replace(policies, stages=stages), 1).start()
    try:
        for content in files:
            yield await _report(sandbox, as_mail(content))
    finally:
        await sandbox.close()


async def _report(sandbox: Sandbox, message: bytes) -> Report:
    session = Session(ip_address("127.0.0.1"))
    mail = Mail(new_id(), session, Envelope(recipients=(Recipient(_TO),)))
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        answer = await sandbox.scan(mail, file)
    if answer.taken is not None:
        answer.taken.close()
    return answer.content.report or Report(f"it cannot be read: {answer.content.unscannable}")


def as_mail(content: bytes) -> bytes:
    """*content* if it is a mail, with CRLF; otherwise a mail that has nothing but it."""
    if _FIELD.match(content) and not content.startswith(b"<"):
        return re.sub(rb"\r?\n", b"\r\n", content)
    return _ATTACHED + base64.encodebytes(content).replace(b"\n", b"\r\n")

"""Reports in files: a mail is taken as it is, all else as what hangs on one."""

import asyncio
import email

import pytest

from gateway.pipeline import imported, policy
from tests.feedback import attachment, gzipped, mail, report, zipped

REPORT = report()


@pytest.mark.parametrize(
    "content", [REPORT, gzipped(REPORT), zipped(REPORT), b"", b"<a:b>", b"\xff\0nonsense", b" Subject: x"]
)
def test_what_is_no_mail_hangs_on_one_whole(content):
    message = email.message_from_bytes(imported.as_mail(content))
    assert message.get_content_type() == "application/xml"
    assert message.get_payload(decode=True) == content


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_mail_is_itself_with_the_line_ends_of_mails(end):
    written = mail(attachment(REPORT, "text/xml", "r.xml"))
    assert imported.as_mail(written.replace(b"\r\n", end)) == written


def test_files_are_read_in_their_order_and_what_is_none_says_why():
    files = [
        report(number="one"),
        b"nonsense",
        gzipped(report(number="two")),
        mail(attachment(REPORT, "text/xml", "r.xml")),
    ]

    async def run():
        return [one async for one in imported.read(policy.load(None, None), files)]

    first, none, second, third = asyncio.run(run())
    assert [one.id for one in (first, second, third)] == ["one", "two", "1"]
    assert [one.fault for one in (first, second, third)] == [""] * 3
    assert none.fault

"""A stranger says anything in any order: every reply is well formed, nothing of ours breaks, and only whole mails are taken."""

import asyncio
import re
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import events
from gateway.smtp.data import MAX_LINE
from gateway.stages import Edge
from tests.fuzz.effort import examples
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, serving

SAID = [
    b"EHLO a\r\n",
    b"HELO a\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"MAIL FROM:<>\r\n",
    b"RCPT TO:<c@d>\r\n",
    b"DATA\r\n",
    b"RSET\r\n",
]
SAID += [
    b"x\r\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"..\r\n",
    b"BDAT 3\r\nx\r\n",
    b"BDAT 1\r\n\r",
    b"BDAT 1 LAST\r\n\n",
    b"BDAT 0 LAST\r\n",
]
SAID += [
    b"BDAT -1\r\n",
    b"NOOP\r\n",
    b"NOOP\n",
    b"\r",
    b"\n",
    b"\0",
    b"\xff",
    b"VRFY x\r\n",
    b"AUTH PLAIN\r\n",
    b"STARTTLS\r\n",
]
SAID += [b"BDAT 20 LAST\r\n", b"RCPT TO:<e@f> NOTIFY=NEVER\r\n", b"MAIL FROM:<a@b> SIZE=9\r\n", b"x" * 999, b"QUIT\r\n"]
BEGUN = [b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b""]
REPLY = re.compile(rb"(?:[2-5][0-9][0-9]-[ -~]+\r\n)*[2-5][0-9][0-9] [ -~]+\r\n")


async def converse(said, folder):
    intake = Intake(Edge(strict_turns=False, errors=50))
    async with serving(intake, listener(secured="none"), folder) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for block in said:
            writer.write(block)
        writer.write_eof()
        heard = await asyncio.wait_for(reader.read(), DEADLINE)
        writer.close()
        await writer.wait_closed()
    return heard, intake.taken


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(BEGUN), st.lists(st.sampled_from(SAID), max_size=20))
def test_whatever_is_said_the_answers_are_in_form_and_the_mails_are_whole(begun, said):
    failures = []
    told = events.failure
    events.failure = lambda where, error, **_: failures.append(error)
    try:
        with tempfile.TemporaryDirectory() as folder:
            heard, taken = asyncio.run(converse([begun, *said], Path(folder)))
    finally:
        events.failure = told
    assert failures == []
    assert REPLY.sub(b"", heard) == b""
    assert heard.count(b"id=0id") <= len(taken)
    for _, envelope, content in taken:
        assert envelope.recipients
        assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
        assert content.endswith(b"\r\n") or not content
        assert all(len(line) <= MAX_LINE for line in content.split(b"\r\n"))

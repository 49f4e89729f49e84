"""The same edits to a signed mail, judged by us and by dkimpy: we hold nothing good that it does not."""

import asyncio
import re

import dkim
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.dkim.checker import Checker
from gateway.pipeline.signed import Bodies, outermost, signatures
from gateway.stages import Content
from tests.peers.signer import record, rsa_key, signed

MAIL = (
    b"Received: from x\r\n\tby y\r\nFrom: Ann <a@example.org>\r\nSubject: a  long\r\n subject\r\nTo: b@example.net\r\n"
    b"\r\nGood  day,\r\n\r\n\tall \t of you. \r\n \r\n\r\n"
)
FORMS = ["simple", "relaxed", "simple/relaxed", "relaxed/relaxed"]


class Zone:
    """A DNS with one key for every name."""

    async def txt(self, name: str) -> tuple[bytes, ...]:
        return (record(rsa_key()),)


def ours(message: bytes) -> bool:
    fields, start = outermost(message, Content.Settings())
    (one,) = signatures(fields, Bodies(message, start))
    return asyncio.run(Checker(Zone()).check(one, 1e9)).result == "pass"


def theirs(message: bytes) -> bool | None:
    """What dkimpy says; None where a line of the header is no field, which it does not read at all."""
    try:
        return dkim.verify(message, dnsfunc=lambda name, timeout=5: record(rsa_key()))
    except dkim.MessageFormatError:
        return None


def edited(message: bytes, at: int, octets: bytes, cut: bool) -> bytes:
    """*message* with *octets* in front of octet *at*, or in its place."""
    return message[:at] + octets + message[at + cut :]


EDITS = st.sampled_from([b"", b" ", b"\t", b"  ", b"\r\n ", b"\r\n\t", b"a", b"A", b":", b";", b"=", b"\xe4"])


@pytest.mark.parametrize("form", FORMS)
@given(place=st.integers(0, len(MAIL) - 1), octets=EDITS, cut=st.booleans())
@settings(max_examples=120, deadline=None)
def test_an_edit_of_the_mail_is_judged_alike(form, place, octets, cut):
    whole = signed(MAIL, c=form, h="received:from:subject:subject")
    at = len(whole) - len(MAIL) + place
    assume(not (cut and whole[at : at + 1] in b"\r\n") and (place or not octets.isspace()))
    assume(whole[at - 1 : at] != b"\r" or cut)  # a CR that stands alone is another message to each reader
    message = edited(whole, at, octets, cut)
    assume(
        not re.search(rb"\nFrom[ \t\r\n]+:", message)
    )  # dkimpy takes it for a line of a mailbox; RFC 6376 3.4.2 does not
    assert ours(message) == theirs(message) or theirs(message) is None


@pytest.mark.parametrize("form", FORMS)
@given(place=st.floats(0, 1, exclude_max=True), octets=EDITS, cut=st.booleans())
@settings(max_examples=120, deadline=None)
def test_an_edit_of_the_signature_holds_for_us_only_where_it_does_for_dkimpy(form, place, octets, cut):
    whole = signed(MAIL, c=form, t="1", x="2000000000", h="received : from:subject:\r\n subject")
    at = len(b"DKIM-Signature:") + int(place * (len(whole) - len(MAIL) - len(b"DKIM-Signature:\r\n")))
    assume(not (cut and whole[at : at + 1] in b"\r\n") and whole[at - 1 : at] != b"\r")
    assume(not (cut and whole[at : at + 1] == b"="))  # base64 is base64 without it (RFC 6376 2.10), not for dkimpy
    message = edited(whole, at, octets, cut)
    assert not ours(message) or theirs(message)

"""DKIM: what the answer to each signature means, and what signatures may cost."""

import asyncio
import ipaddress
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from filters.dkim import Filter, Settings
from gateway.dkim.checker import Checker
from gateway.model import Checked, Content, Finding, ListenerKind, Mail, Result, Session, Signature, Temporary, Tools
from gateway.pipeline import confined
from gateway.stages import Content as ContentPolicy
from tests.peers.signer import record, rsa_key, signed

NOW = 1_700_000_000.0
HOLDS = Checked("pass", "", 2048, fact="TXT s1._domainkey.a.test: v=DKIM1; p=AAAA")


def signature(domain: str = "a.test", **other: Any) -> Signature:
    return Signature(domain, "s1", **{"algorithm": "rsa-sha256", "value": "AbCdEfGhIjKl", **other})


class FakeSignatures:
    """Answers by the domain of the signature; an exception is raised, a number is waited for, in seconds."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[tuple[str, float]]()

    async def check(self, one: Signature, now: float) -> Checked:
        self.asked.append((one.domain, now))
        answer = self.answers.get(one.domain.partition(".")[0], HOLDS)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return HOLDS
        assert isinstance(answer, Checked)
        return answer


def mail(*signatures: Signature, **session: Any) -> Mail:
    content = Content(signatures=signatures)
    return Mail("id", Session(ipaddress.ip_address("192.0.2.1"), **session), content=content)


def findings(fake: FakeSignatures, mail_: Mail, settings: Settings | None = None) -> Sequence[Finding]:
    tools = Tools(None, None, "mx.demo.example", None, fake, None, None)  # type: ignore[arg-type]
    return asyncio.run(Filter(settings or Settings(), tools, lambda: NOW).check(mail_, {}))


def only(answer: Any, one: Signature | None = None, settings: Settings | None = None) -> Finding:
    (finding,) = findings(FakeSignatures(a=answer), mail(one or signature()), settings)
    return finding


def told(finding: Finding) -> str:
    assert finding.result is not None
    return finding.result.result


def test_a_signature_that_holds_is_told_with_domain_selector_algorithm_and_size() -> None:
    finding = only(HOLDS, signature(identity="@news.a.test"))
    assert finding.code == "pass"
    assert finding.detail == "the signature of a.test holds (selector s1, rsa-sha256, 2048 bits)"
    assert finding.facts == (HOLDS.fact,)
    assert finding.result == Result(
        "dkim",
        "pass",
        (
            ("header.d", "a.test"),
            ("header.i", "@news.a.test"),
            ("header.s", "s1"),
            ("header.a", "rsa-sha256"),
            ("header.b", "AbCdEfGh"),
        ),
    )


def test_it_is_checked_as_of_now() -> None:
    fake = FakeSignatures()
    findings(fake, mail(signature()))
    assert fake.asked == [("a.test", NOW)]


def test_mail_without_a_signature_has_none() -> None:
    assert findings(FakeSignatures(), mail()) == [Finding("none", "nobody signed it", result=Result("dkim", "none"))]


@pytest.mark.parametrize("session", [{"user": "jane"}, {"kind": ListenerKind.RELAY}, {"kind": ListenerKind.SUBMISSION}])
def test_our_own_people_and_hosts_are_not_asked_about(session: dict[str, Any]) -> None:
    fake = FakeSignatures()
    assert findings(fake, mail(signature(), **session)) == []
    assert fake.asked == []


@pytest.mark.parametrize(
    ("answer", "one", "code", "result"),
    [
        (HOLDS, {}, "pass", "pass"),
        (replace(HOLDS, testing=True), {}, "pass", "pass"),
        (Checked("pass", "", 256), {"algorithm": "ed25519-sha256"}, "pass", "pass"),
        (Checked("pass", "", 1024), {}, "pass", "pass"),
        (Checked("fail", "the body is another one"), {}, "fail", "fail"),
        (Checked("fail", "the header is another one", 1024, testing=True), {}, "testing", "neutral"),
        (Checked("permerror", "no key", testing=True), {}, "testing", "neutral"),
        (Checked("permerror", "no key"), {}, "permerror", "permerror"),
        (Checked("temperror", "nobody could tell"), {}, "temperror", "temperror"),
        (Checked("temperror", "nobody could tell", testing=True), {}, "temperror", "temperror"),
        (HOLDS, {"partial": True}, "partial", "policy"),
        (Checked("fail", "no"), {"partial": True}, "fail", "fail"),
        (Checked("permerror", "h= names no From"), {"fault": "h= names no From"}, "permerror", "permerror"),
    ],
)
def test_each_answer_has_its_code_and_its_result(answer: Checked, one: dict[str, Any], code: str, result: str) -> None:
    finding = only(answer, signature(**one))
    assert (finding.code, told(finding)) == (code, result)


def test_a_small_key_is_weak_where_the_site_wants_larger_ones() -> None:
    large = Settings(smallest_key=2048)
    finding = only(Checked("pass", "", 1024), settings=large)
    assert (finding.code, told(finding)) == ("weak", "policy")
    assert only(HOLDS, settings=large).code == "pass"
    assert only(Checked("pass", "", 256), signature(algorithm="ed25519-sha256"), large).code == "pass"


def test_a_site_may_count_a_signature_of_a_part() -> None:
    assert only(HOLDS, signature(partial=True), Settings(partial=True)).code == "pass"


def test_beside_one_that_holds_the_others_are_surplus_and_keep_their_results() -> None:
    fake = FakeSignatures(b=Checked("fail", "no"), c=Checked("temperror", "no"), e=Checked("permerror", "no"))
    mail_ = mail(*(signature(f"{name}.test") for name in "bcdea"))
    found = findings(fake, mail_)
    assert [one.code for one in found] == ["surplus", "surplus", "pass", "surplus", "pass"]
    assert [told(one) for one in found] == ["fail", "temperror", "pass", "permerror", "pass"]


@pytest.mark.parametrize("code", ["partial", "weak", "testing"])
def test_what_does_not_count_does_not_make_others_surplus(code: str) -> None:
    odd = {"partial": HOLDS, "weak": Checked("pass", "", 1024), "testing": Checked("fail", "", testing=True)}[code]
    fake = FakeSignatures(a=odd, b=Checked("fail", "no"))
    found = findings(fake, mail(signature(partial=code == "partial"), signature("b.test")), Settings(smallest_key=2048))
    assert [one.code for one in found] == [code, "fail"]


def test_no_more_than_eight_signatures_are_asked_about_and_it_says_so() -> None:
    fake = FakeSignatures(**{f"d{number}": Checked("fail", "no") for number in range(9)})
    found = findings(fake, mail(*(signature(f"d{number}.test") for number in range(9))))
    assert len(fake.asked) == 8
    assert found[-1] == Finding("permerror", "signatures beyond the first 8 are not looked at")
    assert len(found) == 9


def test_all_keys_are_asked_for_at_the_same_time_and_only_until_the_deadline() -> None:
    fake = FakeSignatures(**{f"d{number}": 5.0 for number in range(8)})
    begun = time.monotonic()
    found = findings(fake, mail(*(signature(f"d{number}.test") for number in range(8))), Settings(timeout=0.05))
    assert time.monotonic() - begun < 2
    assert {one.code for one in found} == {"temperror"}
    assert all("within 0.05 s" in one.detail for one in found)


def test_a_key_that_never_comes_does_not_take_the_others_along() -> None:
    found = findings(FakeSignatures(b=5.0), mail(signature("b.test"), signature()), Settings(timeout=0.05))
    assert [(one.code, told(one)) for one in found] == [("surplus", "temperror"), ("pass", "pass")]


def test_a_fault_of_the_checker_is_no_answer() -> None:
    with pytest.raises(Temporary):
        findings(FakeSignatures(a=Temporary("gone")), mail(signature()))


def test_a_signature_of_which_nothing_could_be_read_is_told_without_properties() -> None:
    fake = FakeSignatures(**{"": Checked("permerror", "a tag stands there twice")})
    (finding,) = findings(fake, mail(Signature(fault="a tag stands there twice")))
    assert finding.result == Result("dkim", "permerror")
    assert (
        finding.detail == "the signature of no domain cannot count: a tag stands there twice (selector ?, no algorithm)"
    )


@pytest.mark.parametrize(
    "settings",
    [Settings(signatures=0), Settings(signatures=9), Settings(smallest_key=512), Settings(timeout=0.0)],
    ids=str,
)
def test_settings_that_make_no_sense_are_told_at_once(settings: Settings) -> None:
    with pytest.raises(ValueError, match="is"):
        Filter(settings, Tools(None, None, "", None, FakeSignatures(), None, None))  # type: ignore[arg-type]


# --- from the octets of a mail to the finding ------------------------------------------------------------------------

TEXT = b"From: Jane <jane@example.org>\r\nSubject: hello\r\n\r\nIt is me.\r\n"
SMALL = (
    b"v=DKIM1; k=rsa; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAIWmlgix/84GJ+dfgjm7LTc9EPdfkftlgiPpCq4/"
    b"kbDAZmU0VvYKDljjleJ1dfvS+CGy9U/kk1tG3EeEvb82xAcCAwEAAQ=="
)
GOOD = record(rsa_key())
APPENDED = (b"me.\r\n", b"me.\r\n<b>Buy!</b>\r\n")


class Zone:
    """A DNS in which every name has the same TXT records."""

    def __init__(self, *records: bytes | Temporary) -> None:
        self.records, self.asked = records, list[str]()

    async def txt(self, name: str) -> Sequence[bytes]:
        self.asked.append(name)
        texts = []
        for one in self.records:
            if isinstance(one, Temporary):
                raise one
            texts.append(one)
        return texts


def arrived(message: bytes, zone: Zone) -> Sequence[Finding]:
    """What is found of *message*, scanned as the confined child does and checked as the product does."""
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        content = confined.scan(mail(), file.fileno(), confined.Task(ContentPolicy.Settings(), ())).content
    tools = Tools(None, None, "mx.demo.example", None, Checker(zone), None, None)  # type: ignore[arg-type]
    return asyncio.run(Filter(Settings(), tools, lambda: NOW).check(mail(*content.signatures), {}))


@pytest.mark.parametrize(
    ("tags", "changed", "records", "expected"),
    [
        ({}, (b"", b""), [GOOD], ("pass", "pass")),
        ({}, (b"hello", b"bye"), [GOOD], ("fail", "fail")),
        ({}, (b"It is me", b"It is he"), [GOOD], ("fail", "fail")),
        ({}, (b"", b""), [], ("permerror", "permerror")),
        ({}, (b"", b""), [GOOD, record(rsa_key(2048))], ("pass", "pass")),
        ({}, (b"", b""), [record(rsa_key(2048)), SMALL], ("fail", "fail")),
        ({}, (b"", b""), [Temporary("nobody could tell")], ("temperror", "temperror")),
        ({"l": "11"}, (b"", b""), [GOOD], ("pass", "pass")),
        ({"l": "11"}, APPENDED, [GOOD], ("partial", "policy")),
        ({"l": "0"}, (b"", b""), [GOOD], ("partial", "policy")),
        ({"l": "12"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"a": "rsa-sha1"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({}, (b"", b""), [SMALL], ("permerror", "permerror")),
        ({}, (b"", b""), [record(rsa_key(), t="y")], ("pass", "pass")),
        ({}, (b"hello", b"bye"), [record(rsa_key(), t="y")], ("testing", "neutral")),
        ({"i": "jane@news.example.org"}, (b"", b""), [GOOD], ("pass", "pass")),
        ({"i": "jane@news.example.org"}, (b"", b""), [record(rsa_key(), t="s")], ("permerror", "permerror")),
        ({"i": "jane@example.net"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"h": "subject"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"x": "1600000000"}, (b"", b""), [GOOD], ("fail", "fail")),
        ({"x": "1700000001"}, (b"", b""), [GOOD], ("pass", "pass")),
        ({"t": "1800000000"}, (b"", b""), [GOOD], ("fail", "fail")),
        ({"d": "org"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"d": "example.org'a.attack.example"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"d": "example..org"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"d": "a." * 124 + "org"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"s": "a\\000.attack.example"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({"s": "a b"}, (b"", b""), [GOOD], ("permerror", "permerror")),
        ({}, (b"From: Jane", b"From: Boss <boss@bank.example>\r\nFrom: Jane"), [GOOD], ("permerror", "permerror")),
        ({}, (b"From: Jane", b"From : Boss <boss@bank.example>\r\nFrom: Jane"), [GOOD], ("permerror", "permerror")),
        ({}, (b"From: Jane", b"From\t: Boss <boss@bank.example>\r\nFrom: Jane"), [GOOD], ("permerror", "permerror")),
        ({}, (b"From: Jane", b"From\r\n : Boss <b@bank.example>\r\nFrom: Jane"), [GOOD], ("permerror", "permerror")),
    ],
)
def test_what_each_signature_comes_to(
    tags: dict[str, str], changed: tuple[bytes, bytes], records: list[bytes | Temporary], expected: tuple[str, str]
) -> None:
    message = signed(TEXT, **tags).replace(*changed, 1) if changed[0] else signed(TEXT, **tags)
    (finding,) = arrived(message, Zone(*records))
    assert (finding.code, told(finding)) == expected, finding.detail


def test_five_hundred_signatures_cost_eight_questions_and_little_time() -> None:
    one = signed(TEXT, d="a.example").partition(b"From: ")[0]
    zone = Zone(record(rsa_key(2048)))
    begun = time.process_time()
    found = arrived(one * 500 + TEXT, zone)
    assert time.process_time() - begun < 1  # measured: 0.01 s
    assert len(zone.asked) == 8
    assert len(found) == 9
    assert {finding.code for finding in found} == {"fail", "permerror"}

"""The whole gateway under mails that are made to be costly to authenticate: what each costs, and what is said of it.

All are sent once, one after the other, beside a session that asks for nothing but an answer; then each test looks at one.
"""

import re
import smtplib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser

import pytest

from tests.bench import usage
from tests.e2e import bombs, mails
from tests.e2e import gateway as gateways
from tests.e2e.bombs import Bomb
from tests.e2e.gateway import Gateway
from tests.peers import hostile_dns
from tests.peers.certificates import Certificate
from tests.peers.hostile_dns import FAULTS, HARMLESS, HostileDns

pytestmark = pytest.mark.e2e

ALICE, PROBE = "alice@in.example", "127.0.7.7"
CPU = 2.0  # seconds, of all processes
QUESTIONS = 30  # at MAIL, and again for the message
ANSWER = 1.0  # seconds until another session has its answer
RECORDS = {("honest.test", "TXT"): ["v=spf1 ip4:127.0.0.0/8 -all"]}


@dataclass
class Outcome:
    """What became of one bomb: the reply, seconds of CPU and of the clock, the questions of each stage, the header."""

    code: int
    cpu: float
    seconds: float
    at_mail: Sequence[str]
    at_message: Sequence[str]
    raw: bytes = field(repr=False)
    header: EmailMessage = field(default_factory=EmailMessage)

    @property
    def results(self) -> str:
        """Our Authentication-Results on one line."""
        return re.sub(r"\s+", " ", self.header["Authentication-Results"])


@dataclass
class Probe:
    """A session that only wants to hear that we are there; `longest` is the longest that it waited, in seconds."""

    longest: float = 0.0

    def ask(self, client: smtplib.SMTP, over: threading.Event) -> None:
        while not over.wait(0.05):
            began = time.monotonic()
            assert client.noop()[0] == 250
            self.longest = max(self.longest, time.monotonic() - began)


@dataclass(frozen=True)
class Aftermath:
    outcomes: Mapping[str, Outcome]
    silent: Outcome
    probe: Probe


def listening(stem: str) -> str:
    """The shipped policy of a filter that judges loopback like the world, and accepts what it finds."""
    return re.sub(r"^own_relays *= *\[[^]]*\]", "own_relays = []", gateways.lenient(stem), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def names() -> Iterator[HostileDns]:
    everything = [bombs.SILENT, *bombs.ALL.values()]
    records = RECORDS | {key: value for bomb in everything for key, value in bomb.records.items()}
    with hostile_dns.run(records) as running:
        for bomb in everything:
            running.faults |= {name: {**FAULTS, **HARMLESS}[fault] for name, fault in bomb.faults.items()}
        yield running


@pytest.fixture(scope="module")
def own(certificate: Certificate, names: HostileDns) -> Iterator[Gateway]:
    policies = {stem: listening(stem) for stem in ("spf", "dkim", "arc", "dmarc")}
    policies |= {stem: gateways.lenient(stem) for stem in ("spam", "headers", "attachments")}
    policies["antivirus"] = gateways.shipped("antivirus", enabled="false")
    with gateways.run(certificate, dns=names.port, policies=policies) as running:
        yield running


@pytest.fixture(scope="module")
def aftermath(own: Gateway, names: HostileDns) -> Aftermath:
    with ThreadPoolExecutor(1) as thread, probing(own) as probe:
        silent = thread.submit(send, own, names, bombs.SILENT)
        outcomes = {name: send(own, names, bomb) for name, bomb in bombs.ALL.items()}
        made = Aftermath(outcomes, silent.result(60), probe)
    look_up([*outcomes.values(), made.silent], own)
    return made


@contextmanager
def probing(own: Gateway) -> Iterator[Probe]:
    probe, over = Probe(), threading.Event()
    with smtplib.SMTP("127.0.0.1", own.ports["mx"], "probe.test", timeout=30, source_address=(PROBE, 0)) as client:
        client.ehlo()
        with ThreadPoolExecutor(1) as thread:
            asking = thread.submit(probe.ask, client, over)
            try:
                yield probe
            finally:
                over.set()
                asking.result(30)


def send(own: Gateway, names: HostileDns, bomb: Bomb) -> Outcome:
    raw = bomb.raw()
    peer = (bomb.peer, 0)
    with smtplib.SMTP("127.0.0.1", own.ports["mx"], bomb.helo, timeout=60, source_address=peer) as client:
        client.ehlo()
        used, began, first = usage.cpu(own.process.pid), time.monotonic(), len(names.asked)
        client.mail(bomb.sender)
        client.rcpt(ALICE)
        second = len(names.asked)
        code, _ = client.data(raw)
        cpu, seconds = usage.cpu(own.process.pid) - used, time.monotonic() - began
    return Outcome(code, cpu, seconds, asked(names, first, second), asked(names, second, None), raw)


def asked(names: HostileDns, first: int, last: int | None) -> list[str]:
    """The names of the questions between, each by UDP first. Those of `SILENT` come at any time, again and again."""
    lines = [line.removeprefix("udp ") for line in names.asked[first:last] if line.startswith("udp ")]
    return [name for name in lines if not name.endswith("silent.test.")]


def look_up(outcomes: Sequence[Outcome], own: Gateway) -> None:
    """Fill in the headers with which the mails have arrived."""
    with own.opened("alice") as client:
        heads = [b"\r\n".join(client.top(number, 0)[1]) for number in range(1, client.stat()[0] + 1)]
    for outcome in outcomes:
        (head,) = [one for one in heads if mails.token(outcome.raw) in one]
        outcome.header = BytesHeaderParser(policy=policy.default).parsebytes(head)


@pytest.mark.parametrize("name", bombs.ALL)
def test_a_bomb_costs_little_and_gets_its_result(aftermath: Aftermath, name: str) -> None:
    bomb, outcome = bombs.ALL[name], aftermath.outcomes[name]
    assert outcome.code == 250
    assert outcome.cpu <= CPU, outcome
    assert len(outcome.at_mail) <= QUESTIONS
    assert len(outcome.at_message) <= QUESTIONS
    assert not [one for one in (*outcome.at_mail, *outcome.at_message) if re.search(bomb.unasked, one)]
    for expected in bomb.expected:
        assert re.search(expected, outcome.results), outcome.results
    for refused in bomb.refused:
        assert not re.search(refused, outcome.results), outcome.results


def test_where_all_dns_is_silent_nothing_is_known_and_all_ends_in_time(aftermath: Aftermath) -> None:
    outcome = aftermath.silent
    assert outcome.seconds < 20.0
    for expected in bombs.SILENT.expected:
        assert re.search(expected, outcome.results), outcome.results


def test_other_sessions_are_answered_all_the_time(aftermath: Aftermath) -> None:
    assert 0 < aftermath.probe.longest < ANSWER


def test_results_that_strangers_forge_are_gone_and_ours_is_there_once(aftermath: Aftermath) -> None:
    header = aftermath.outcomes["forged results"].header
    assert len(header.get_all("Authentication-Results")) == 1
    assert "forged.example" not in header.as_string()

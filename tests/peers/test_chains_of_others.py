"""We and Mail::DKIM seal one mail in turn; we, dkimpy and Mail::DKIM check the ARC chain. chains.toml says what is found."""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.peers import authenticated, dns, signing_programs, verifiers
from tests.peers.authenticated import ask, identity
from tests.peers.dns import Dns

DATA = tomllib.loads(Path(__file__).with_name("chains.toml").read_text("utf-8"))
RESULTS = b"Authentication-Results: %s; spf=pass smtp.mailfrom=example.org\r\n"
HOPS = ("a.example", "b.example", "c.example")

SEALERS: Mapping[str, Callable[..., bytes]] = {
    "ours": lambda message, who, cv: authenticated.seal(message, who, f"{who.domain}; spf=pass", cv),
    "Mail::DKIM": signing_programs.mail_dkim_seal,
}


@pytest.fixture(scope="module")
def names() -> Iterator[Dns]:
    with dns.run(authenticated.zone(*HOPS)) as running:
        yield running


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    return [made(one["steps"]) for one in DATA["chain"]]


def made(steps: Sequence[Any]) -> bytes:
    """The mail after all *steps*; each that seals is another hop."""
    message: bytes = DATA["mail"].replace("\n", "\r\n").encode()
    hops = iter(identity("rsa", name) for name in HOPS)
    for step in steps:
        if isinstance(step, str):
            program, _, cv = step.partition(" ")
            who = next(hops)
            message = SEALERS[program](RESULTS % who.domain.encode() + message, who, cv)
        else:
            old, new = (text.encode() for text in step)
            assert old in message, old
            message = message.replace(old, new, 1)
    return message


def expected(program: str) -> list[str]:
    return [one.get("differs", {}).get(program, one["finds"]) for one in DATA["chain"]]


def assert_found(program: str, found: Sequence[str]) -> None:
    rows = zip(DATA["chain"], found, expected(program), strict=True)
    assert [(one["steps"], is_now) for one, is_now, wanted in rows if is_now != wanted] == []


def test_each_difference_has_its_reason() -> None:
    assert [one for one in DATA["chain"] if ("differs" in one) != bool(one.get("why"))] == []
    assert {one["finds"] for one in DATA["chain"]} == {"none", "pass", "fail"}


def test_we_find_what_the_table_says(messages: Sequence[bytes], names: Dns) -> None:
    assert_found("ours", authenticated.chains_of(messages, names.port))


def test_mail_dkim_agrees_but_for_the_table(messages: Sequence[bytes], names: Dns) -> None:
    assert_found("Mail::DKIM", verifiers.mail_dkim_arc_all(messages, names.port))


def test_dkimpy_agrees_but_for_the_table(messages: Sequence[bytes]) -> None:
    assert_found("dkimpy", [verifiers.dkimpy_arc(one, ask) for one in messages])

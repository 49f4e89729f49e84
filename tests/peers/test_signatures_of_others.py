"""We, dkimpy, opendkim and Mail::DKIM sign and check one set of messages: where we agree, and where not and why.

The set, with each difference and its reason, is signatures.toml.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers import authenticated, dns, signer, signing_programs, verifiers
from tests.peers.authenticated import ask, identity
from tests.peers.dns import Dns
from tests.peers.signing_programs import Identity

DATA = tomllib.loads(Path(__file__).with_name("signatures.toml").read_text("utf-8"))
LONG = {
    "LONG": "word " * 190,
    "FOLDS": "\n ".join(f"<{number}@example.org>" for number in range(60)),
    "LINES": "x\n" * 500,
}


@dataclass(frozen=True)
class Case:
    """One message as it arrives. `edwards` tells for each signature, from the top, whether it is Ed25519."""

    name: str
    message: bytes
    finds: Sequence[str]
    differs: Sequence[str]
    edwards: Sequence[bool]

    def expected(self, program: str) -> list[bool]:
        """Whether each signature holds for *program*."""
        opposite = program in self.differs
        known = program in {"ours", "opendkim"}
        found = zip(self.finds, self.edwards, strict=True)
        return [((one == "pass") is not opposite) and (known or not edwards) for one, edwards in found]


def octets(name: str) -> bytes:
    text: str = DATA["messages"][name]
    for word, meant in LONG.items() if name == "long" else ():
        text = text.replace(word, meant)
    return text.replace("\n", "\r\n").encode("latin-1")


def ways(by: Sequence[str]) -> Iterator[str]:
    for words in by:
        program, wanted, rest = words.split(" ", 2)
        yield from (f"{program} {form} {rest}" for form in signing_programs.forms(wanted))


def _case(number: int, given: Mapping[str, Any], way: str) -> Case:
    before = message = octets(given["message"])
    steps = [words.split() for words in way.split(" then ")]
    for program, form, selector in steps:
        message = SIGNERS[program](message, identity(selector), form, given.get("tags", {}))
    above = _edited(message.removesuffix(before), given.get("edits_above", ()))
    message = above + _edited(before, given.get("edits", ()))
    edwards = [selector == "ed" for *_, selector in reversed(steps)]
    finds = given.get("finds", ["pass"])
    return Case(f"{number}: {given['message']}, {way}", message, finds, given.get("differs", ()), edwards)


def _edited(text: bytes, edits: Sequence[tuple[str, str]]) -> bytes:
    for old, new in edits:
        assert old.encode() in text, old
        text = text.replace(old.encode(), new.encode(), 1)
    return text


def _by_tests(message: bytes, who: Identity, form: str, tags: Mapping[str, str]) -> bytes:
    return signer.signed(message, who.key, **{"c": form, "d": who.domain, "s": who.selector, **tags})


SIGNERS: Mapping[str, Callable[..., bytes]] = {
    "ours": lambda message, who, form, _: {"relaxed/relaxed": authenticated.sign}[form](message, who),
    "tests": _by_tests,
    "dkimpy": lambda message, who, form, _: signing_programs.dkimpy(message, who, form),
    "dkimpy-sha1": lambda message, who, form, _: signing_programs.dkimpy(message, who, form, "rsa-sha1"),
    "opendkim": lambda message, who, form, _: signing_programs.opendkim(message, who, form),
    "Mail::DKIM": lambda message, who, form, _: signing_programs.mail_dkim(message, who, form),
}


@pytest.fixture(scope="module")
def names() -> Iterator[Dns]:
    with dns.run(authenticated.zone(authenticated.DOMAIN, f"a_b.{authenticated.DOMAIN}")) as running:
        yield running


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [_case(number, given, way) for number, given in enumerate(DATA["case"]) for way in ways(given["by"])]


Found = Sequence[Sequence[str]]


def assert_holding(program: str, cases: Sequence[Case], found: Found) -> None:
    """What *program* found of each case is what the table says."""
    held = [[word == "pass" for word in one] for one in found]
    wrong = {
        case.name: words for case, one, words in zip(cases, held, found, strict=True) if one != case.expected(program)
    }
    assert wrong == {}


def test_the_set_is_large_and_each_difference_has_its_reason(cases: Sequence[Case]) -> None:
    assert len({case.message for case in cases}) >= 180
    assert [one for one in DATA["case"] if bool(one.get("differs")) != bool(one.get("why"))] == []
    assert {name for one in DATA["case"] for name in one.get("differs", ())} == {"dkimpy", "opendkim", "Mail::DKIM"}


def test_we_find_of_each_signature_what_the_table_says(cases: Sequence[Case], names: Dns) -> None:
    found = authenticated.signatures_of([case.message for case in cases], names.port)
    wrong = {case.name: one for case, one in zip(cases, found, strict=True) if one != list(case.finds)}
    assert wrong == {}


def test_opendkim_agrees_but_for_the_table(cases: Sequence[Case], names: Dns) -> None:
    found = verifiers.opendkim_all([case.message for case in cases], names.port)
    assert_holding("opendkim", cases, [[one.result for one in signatures] for signatures in found])


def test_mail_dkim_agrees_but_for_the_table(cases: Sequence[Case], names: Dns) -> None:
    found = verifiers.mail_dkim_all([case.message for case in cases], names.port)
    assert_holding("Mail::DKIM", cases, [[one.result for one in signatures] for signatures in found])


def test_dkimpy_agrees_but_for_the_table(cases: Sequence[Case]) -> None:
    assert_holding("dkimpy", cases, [verifiers.dkimpy(case.message, len(case.finds), ask) for case in cases])

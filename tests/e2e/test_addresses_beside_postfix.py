"""The grammar of addresses beside Postfix's, told to be strict: where the two differ, we know why.

A class of difference is a rule below; an address on which they differ and that no rule names fails the test.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.smtp import address
from gateway.smtp.replies import NOT_OURS, ProtocolError
from tests.peers import postfix

pytestmark = pytest.mark.e2e

TABLE = Path(__file__).parents[1] / "dialogs/recipients.txt"
SAID = [line.partition("TO:")[2] for line in TABLE.read_text("utf-8").splitlines() if "TO:<" in line and line[0] != "#"]
LISTED = sorted({said for said in SAID if re.fullmatch(r"<[^\\]*>", said)})
EXAMPLES = 60 * int(os.environ.get("FUZZ", "1"))
STRICT = {
    "strict_rfc821_envelopes": "yes",
    "smtpd_error_sleep_time": "0",
    "smtpd_hard_error_limit": "1000000",
    "smtpd_junk_command_limit": "1000000",
    "smtpd_soft_error_limit": "1000000",
    "smtpd_client_message_rate_limit": "0",
    "smtpd_reject_unlisted_recipient": "no",
    "smtpd_reject_unlisted_sender": "no",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    "smtpd_recipient_restrictions": "permit_mynetworks, reject_unauth_destination",
    "in_flow_delay": "0",
}

WE_REFUSE = {
    "blanks, which Postfix leaves out": r".*\s.*",
    "no domain": r"<[^@]*>",
    "two addresses, or an @ that no quotes hold": r".*@.*@.*",
    "dots that part nothing": r"<(\..*|[^@]*\.[@.].*)|.*(\.>|@\.|\.\.).*",
    "words of which only some are quoted (RFC 822; RFC 5321 has it no more)": r"<.*\".*\".*@.*>",
    "a local part of more than 64 octets, or an address of more than 254": r"<.{65,}@.*|.{255,}",
    "a label of more than 63 octets": r".*[^.@]{64,}.*",
    "a route, or what may be the beginning of one": r"<[^@]*:.*|<@.*",
    "a literal without its end": r".*@(\[[^]]*|[^[]*\])>",
    "A-labels that nobody can read, and letters that IDNA does not allow": r".*@.*([Xx][Nn]--|[^\x00-\x7f]).*",
    "signs that only quotes may hold": r'<.*[()<>\[\]:;,\\"].*@.*',
    "a number at the end of the domain, which somebody else reads as an address (RFC 3696 2)": r".*[.@][0-9]+>",
    "signs that stand in no name of a host": r".*@.*[^A-Za-z0-9.[\]:>-].*",
    "letters that no eye sees, or that turn the line around": r".*[\u0080-\u00a0\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff].*",
}
POSTFIX_REFUSES = {
    "a hyphen at the beginning, which its programs would take for an option; none of ours gets it": r"<\"?-.*",
    "an empty local part in quotes (RFC 5321 4.1.2 has it)": r'<""@.*',
    "a quoted local part that would be a route without its quotes": r'<"@.*"@.*',
}


class Session:
    """One SMTP session with Postfix, in which addresses are tried."""

    def __init__(self, port: int) -> None:
        self.peer = socket.create_connection(("127.0.0.1", port), 20)
        self.file = self.peer.makefile("rb")
        self.file.readline()
        self.ask("EHLO client.example")

    def close(self) -> None:
        self.file.close()
        self.peer.close()

    def ask(self, line: str) -> int:
        self.peer.sendall(line.encode() + b"\r\n")
        reply = b"xxx-"
        while reply[3:4] == b"-":
            reply = self.file.readline()
        return int(reply[:3])

    def takes(self, path: str) -> bool:
        self.ask("RSET")
        self.ask("MAIL FROM:<a@out.example> SMTPUTF8")
        return self.ask(f"RCPT TO:{path}") == 250


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with postfix.run(settings=STRICT) as mta, closing(Session(mta.port)) as made:
        yield made


def takes(path: str) -> bool | None:
    """Whether our grammar has *path*; None for routes and literals: nobody is let in by one, well written or not."""
    try:
        address.rcpt(f"TO:{path}", smtputf8=True)
    except ProtocolError as error:
        return None if error.reply is NOT_OURS else False
    return True


def difference(session: Session, path: str) -> str:
    """Who refuses *path* alone, if nothing explains it."""
    ours, theirs = takes(path), session.takes(path)
    if ours is None or ours == theirs:
        return ""
    rules = POSTFIX_REFUSES if ours else WE_REFUSE
    known = any(re.fullmatch(rule, path, re.DOTALL) for rule in rules.values())
    return "" if known else "only Postfix refuses" if ours else "only we refuse"


WORDS = [
    *"abAB09.-_+=/'!%&*?~`{}|^$#@:;,()[]\\\"  ",
    "ü",
    "ß",
    "日",
    "\u00a0",
    "\u202e",
    "\u3002",
    "\uff0e",
    "a.b",
    "xn--",
    "..",
    '"a b"',
]
WORDS += [
    "127.0.0.1",
    "[127.0.0.1]",
    "[IPv6:::1]",
    "x" * 63,
    "y" * 64,
    "in.example",
    "a@b",
    '\\"',
    '"',
    '"',
    "@c.example:",
]
LOCAL = st.lists(st.sampled_from(WORDS), max_size=6).map("".join)
QUOTED = LOCAL.map(lambda text: '"' + re.sub(r'(["\\\\])', r"\\\1", text) + '"')
DOMAIN = st.lists(st.sampled_from(WORDS), max_size=4).map("".join) | st.just("in.example")
PATHS = st.builds("<{}@{}>".format, LOCAL | QUOTED, DOMAIN)


def test_listed_addresses_are_read_alike(session: Session) -> None:
    found = {path: word for path in LISTED if (word := difference(session, path))}
    assert found == {}


@settings(max_examples=EXAMPLES, deadline=None)
@given(PATHS)
def test_invented_addresses_are_read_alike(session: Session, path: str) -> None:
    assert not difference(session, path)

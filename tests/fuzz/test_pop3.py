"""POP3's dialog against whatever can come: it never raises, says little, and keeps to its promises.

No password is checked in the clear, no maildrop is opened without one, and only what was marked is deleted, by QUIT.
"""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.model import Temporary
from gateway.pop3 import dialog
from gateway.pop3.dialog import Dialog
from tests.fuzz.effort import examples

ENTRIES = [SimpleNamespace(uid=f"message.{n}", size=n) for n in range(1, 5)]
KEYWORDS = b"CAPA STLS UTF8 USER PASS AUTH QUIT LANG STAT LIST UIDL RETR TOP DELE NOOP RSET APOP quit dele".split()
ARGUMENTS = st.one_of(
    st.integers(-1, 6).map(b"%d".__mod__),
    st.tuples(st.integers(0, 5), st.integers(0, 2**64)).map(b"%d %d".__mod__),
    st.sampled_from(
        [b"PLAIN", b"PLAIN AGEAYg==", b"PLAIN =", b"NTLM", b"alice", b"*", b"a b", b"9" * 300, b"(" * 4000]
    ),
    st.binary(max_size=40),
)
LINES = st.one_of(
    st.tuples(st.sampled_from(KEYWORDS), ARGUMENTS).map(b"%b %b\r\n".__mod__),
    st.sampled_from(KEYWORDS).map(b"%b\r\n".__mod__),
    st.binary(max_size=300).map(lambda octets: octets.replace(b"\n", b"") + b"\n"),
)
ANSWERS = st.sampled_from(["yes", "no", "later"])


class World:
    """Answers effects as it is told to, and checks each of them against what it knows."""

    def __init__(self, secure, trusted):
        self.secure, self.trusted = secure, trusted
        self.proved = self.opened = self.over = False
        self.marked = set()
        self.octets = 0

    def answer(self, effect, mood, line):
        assert not self.over
        handler = getattr(self, type(effect).__name__.lower())
        if mood == "later" and isinstance(effect, dialog.CheckPassword | dialog.OpenMaildrop | dialog.Update):
            raise Temporary("later")
        return handler(effect, mood == "yes", line)

    def reply(self, effect, _yes, line):
        self._said(effect.text)
        if line[:4].upper() == b"DELE" and effect.text.startswith(b"+OK"):
            self.marked.add(int(line[5:]))
        if line[:4].upper() == b"RSET" and effect.text.startswith(b"+OK"):
            self.marked.clear()

    def listing(self, effect, _yes, _line):
        self._said(effect.text)
        for line in effect.lines:
            assert not line.startswith(b".")
            self._said(line)

    def prompt(self, effect, yes, _line):
        self._said(effect.text)
        return b"AGEAYg==\r\n" if yes else b"\xff" * 20000

    def starttls(self, effect, yes, _line):
        self._said(effect.text)
        assert not self.secure
        self.secure = yes
        return yes

    def checkpassword(self, effect, yes, _line):
        assert self.secure or self.trusted
        assert not self.opened
        assert effect.user
        assert effect.password
        self.proved = yes
        return "account" if yes else ""

    def openmaildrop(self, effect, yes, _line):
        assert self.proved
        assert effect.account == "account"
        self.proved, self.opened = False, yes
        return ENTRIES if yes else None

    def sendmessage(self, effect, yes, _line):
        self._said(effect.text)
        assert self.opened
        assert 1 <= effect.number <= len(ENTRIES)
        assert effect.number not in self.marked
        if not yes:
            raise Temporary("later")

    def update(self, effect, yes, line):
        assert self.opened
        assert line.upper() == b"QUIT\r\n"
        assert set(effect.numbers) == self.marked
        return yes

    def close(self, _effect, _yes, _line):
        self.over = True

    def _said(self, text):
        assert b"\r" not in text
        assert b"\n" not in text
        assert len(text) < 200
        self.octets += len(text)


def play(world, steps, mood, line):
    effect = next(steps, None)
    while effect is not None:
        try:
            answer = world.answer(effect, mood, line)
        except Temporary as error:
            move, word = steps.throw, error
        else:
            move, word = steps.send, answer
        try:
            effect = move(word)
        except StopIteration:
            return


@settings(deadline=None, max_examples=examples(400))
@given(st.booleans(), st.booleans(), st.booleans(), st.lists(st.tuples(LINES, ANSWERS), max_size=40))
def test_whatever_comes_the_dialog_keeps_its_promises(secure, trusted, logged_in, lines):
    world = World(secure, trusted)
    talk = Dialog(secure=secure, offers_tls=True, trusted=trusted)
    if logged_in:
        lines = [(b"AUTH PLAIN AGEAYg==\r\n", "yes"), *lines]
    for line, mood in lines:
        before = world.octets
        play(world, talk.line(line), mood, line)
        assert world.octets - before < 1000
        if world.over:
            return
    assert world.opened == (talk.state is dialog.State.TRANSACTION)

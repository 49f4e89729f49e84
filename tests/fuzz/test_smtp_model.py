"""The dialog against a model of it that fits on one screen: whatever the order of commands, the codes are the model's."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.stages import Edge
from tests.fuzz.effort import examples
from tests.gateway.smtp.conversation import DEADLINE, Intake, listener, serving

COMMANDS = {
    "helo": b"HELO a\r\n",
    "ehlo": b"EHLO a\r\n",
    "mail": b"MAIL FROM:<a@b>\r\n",
    "bounce": b"MAIL FROM:<>\r\n",
    "rcpt": b"RCPT TO:<c@d>\r\n",
    "another": b"RCPT TO:<e@d>\r\n",
    "stranger": b"RCPT TO:<nobody@d>\r\n",
    "data": b"DATA\r\n",
    "chunk": b"BDAT 3\r\nx\r\n",
    "last": b"BDAT 3 LAST\r\ny\r\n",
    "rset": b"RSET\r\n",
    "noop": b"NOOP\r\n",
    "help": b"HELP\r\n",
    "turn": b"TURN\r\n",
    "nonsense": b"NONSENSE\r\n",
    "control": b"NOOP \x07\r\n",
    "syntax": b"MAIL FROM:a@b\r\n",
}
BODY = b"z\r\n.\r\n"


@dataclass
class Model:
    """What RFC 5321 4.1.4 and edge.toml say of the order of commands; `code` is what comes back."""

    edge: Edge
    greeted: bool = False
    spoken: bool = False
    sender: str | None = None
    recipients: frozenset[str] = frozenset()
    chunks: int = 0
    commands: int = 0
    errors: int = 0
    unknown: int = 0
    messages: int = 0
    taken: int = 0

    def code(self, name: str) -> int:
        """The code for one command; 421 ends the session."""
        code = 500 if name == "control" else self._limited(name)
        if code == 500 and not self.spoken:
            return 421
        self.errors += code >= 500
        return code

    def _limited(self, name: str) -> int:
        self.commands += 1
        if self.commands > self.edge.commands or self.errors >= self.edge.errors:
            return 421
        if name == "nonsense":
            return 500
        self.spoken = True
        return getattr(self, name)()

    def forget(self) -> None:
        self.sender, self.recipients, self.chunks = None, frozenset(), 0

    def helo(self) -> int:
        self.greeted = True
        self.forget()
        return 250

    ehlo = helo

    def rset(self) -> int:
        self.forget()
        return 250

    def noop(self) -> int:
        return 250

    def help(self) -> int:
        return 214

    def turn(self) -> int:
        return 502

    def mail(self, sender: str = "a@b") -> int:
        if not self.greeted or self.sender is not None:
            return 503
        if self.messages >= self.edge.messages:
            return 421
        self.sender = sender
        return 250

    def bounce(self) -> int:
        return self.mail("")

    def syntax(self) -> int:
        code = self.mail()
        if code == 250:
            self.sender = None
            return 501
        return code

    def rcpt(self, address: str = "c@d") -> int:
        if self.sender is None or self.chunks:
            return 503
        most = self.edge.recipients if self.sender else min(1, self.edge.recipients)
        if len(self.recipients) >= most:
            return 452
        if address == "nobody@d":
            self.unknown += 1
            return 421 if self.unknown >= self.edge.unknown_recipients else 550
        self.recipients |= {address}
        return 250

    def another(self) -> int:
        return self.rcpt("e@d")

    def stranger(self) -> int:
        return self.rcpt("nobody@d")

    def data(self) -> int:
        return 354 if self.recipients and not self.chunks else 503

    def body(self) -> int:
        """The code for what follows 354."""
        return self._done()

    def chunk(self) -> int:
        if not self.recipients:
            return 503
        self.chunks += 1
        return 250

    def last(self) -> int:
        return self._done() if self.recipients else 503

    def _done(self) -> int:
        self.messages += 1
        self.taken += 1
        self.commands = self.errors = 0
        self.forget()
        return 250


async def code_of(reader):
    line = b"xxx-"
    while line[3:4] == b"-":
        line = await asyncio.wait_for(reader.readline(), DEADLINE)
    return int(line[:3])


async def compare(names, edge, folder):
    intake, model = Intake(edge, answers={"nobody@d": "no such user"}), Model(edge)
    async with serving(intake, listener(secured="none"), folder) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        said, wanted = [await code_of(reader)], [220]
        for name in names:
            writer.write(COMMANDS[name])
            wanted.append(model.code(name))
            said.append(await code_of(reader))
            if wanted[-1] == 354 == said[-1]:
                writer.write(BODY)
                wanted.append(model.body())
                said.append(await code_of(reader))
            assert said == wanted, names
            if wanted[-1] == 421:
                assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
                break
        writer.close()
        await writer.wait_closed()
    assert len(intake.taken) == model.taken


few = st.integers(1, 5)
edges = st.builds(
    Edge, commands=st.integers(5, 30), errors=few, messages=few, recipients=st.integers(1, 2), unknown_recipients=few
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=30), edges)
def test_the_codes_are_those_of_the_model(names, edge):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(names, edge, Path(folder)))

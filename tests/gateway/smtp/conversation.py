"""Plays the dialogs of tests/dialogs/smtp against a real loopback socket, with a fake intake that fits on one screen.

A file begins with options, `key: value`, up to an empty line. Then each line is a step:

    C: text        said to the server, with CRLF; lines that follow each other go in one segment
    C+ text        the same with escapes (\\r \\n \\0 \\x85) and no CRLF
    S: text        the next line from the server begins so
    S~ regex       ... or matches so, whole
    BIG n          n octets of lines are said
    TLS            the client shakes hands
    EOF            the client closes its sending side
    WAIT s         the client is silent for s seconds
    CLOSED         the server says no more, and closes
    GOT text       the next message that the intake took, escaped
    TOOK n         the intake took n more messages, whatever they hold
    NOTHING        the intake has taken no further message
    FROM address   the last message that the intake took came from this peer

Whatever the steps say: each line of a reply is in form, is a constant of `replies` where its text is not our name or an
extension, and at the end the intake has taken what the steps have named, and no other message.
"""

import asyncio
import contextlib
import json
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from gateway import config, tls
from gateway.backoff import Backoff
from gateway.model import ListenerKind, Temporary
from gateway.pipeline.outcome import Kind, Outcome
from gateway.smtp import connection, replies, server
from gateway.smtp.replies import Reply
from gateway.stages import Edge, Logins

DEADLINE = 5.0
CONSTANTS = tuple(str(reply) for reply in vars(replies).values() if isinstance(reply, Reply))
MAY_FOLLOW = re.compile(r"(?: \([A-Za-z0-9 .,:/_-]{1,100}\))?(?: id=[0-9a-z]{1,32})?")
OURS = re.compile(r"220 mx\.test ESMTP Gatepost|250 mx\.test|250-[ -~]+|250 ENHANCEDSTATUSCODES")


class State:
    """Counters and marks that never run out, in this process; `gone` is a state out of reach."""

    def __init__(self):
        self.kept, self.gone = {}, False

    async def get(self, key):
        if self.gone:
            raise Temporary("gone")
        return self.kept.get(key)

    async def put(self, key, value, ttl):
        await self.get(key)
        self.kept[key] = value

    async def add_all(self, amounts, ttl):
        for key, amount in amounts.items():
            await self.put(key, str(int(await self.get(key) or 0) + amount), ttl)
        return [int(self.kept[key]) for key in amounts]

    async def claim(self, key, ttl):
        return await self.get(key) is None and not await self.put(key, "1", ttl)


@dataclass
class Intake:
    """Says what `answers` has for "sender", "recipient" or an address, and remembers what it took."""

    edge: Edge = field(default_factory=Edge)
    hostname: str = "mx.test"
    answers: dict = field(default_factory=dict)
    taken: list = field(default_factory=list)
    pause: float = 0.0
    reference: str = "filter: code"
    asked: list = field(default_factory=list)
    state: State = field(default_factory=State)
    logins: Logins = field(default_factory=lambda: Logins(delay=0.0))

    def visit(self):
        return self

    async def answer(self, *keys):
        await asyncio.sleep(self.pause)
        word = next((self.answers[key] for key in keys if key in self.answers), "ok")
        if word == "crash":
            raise RuntimeError("secret of ours\r\n250 x")
        if word == "temporary":
            raise Temporary("secret of ours")
        return Outcome(Kind(word), "0id" if "message" in keys else "", self.reference if word == "rejected" else "")

    async def connect(self, peer):
        return await self.answer("connect")

    def close(self):
        """Nothing is under way here."""

    async def authenticate(self, peer, login, password):
        self.asked.append((login, password))
        await self.answer("authenticate")
        return "alice" if (login, password) == ("alice", "secret") else ""

    async def sender(self, peer, envelope):
        return await self.answer(envelope.sender, "sender")

    async def recipient(self, peer, envelope, recipient):
        return await self.answer(recipient.address, "recipient")

    async def message(self, peer, envelope, spool, size):
        content = await asyncio.to_thread(spool.read)
        assert len(content) == size
        outcome = await self.answer("message")
        if outcome.kind is Kind.OK:
            self.taken.append((peer, envelope, content))
        return outcome


@contextlib.asynccontextmanager
async def serving(intake, listener, folder, context=None):
    """The port of a server for *listener*, until the block ends; then no session is left."""
    loop = asyncio.get_running_loop()
    backoff = Backoff(intake.state, lambda: intake.logins)
    factory = server.server_factory(listener, intake, context, backoff, spool_dir=folder / "spool")
    serving = await loop.create_server(factory, "127.0.0.1", 0)
    try:
        yield serving.sockets[0].getsockname()[1]
    finally:
        serving.close()
        await server.drain(0)
        await asyncio.sleep(0.01)
        assert not connection.connections()
        assert not server._lobby.crowd.size


def listener(kind="mx", secured="starttls", networks=()):
    return config.Listener(name="test", kind=ListenerKind(kind), address="127.0.0.1:0", tls=secured, networks=networks)


class Client:
    """What plays the steps."""

    def __init__(self, reader, writer, context, intake):
        self.reader, self.writer, self.context, self.intake = reader, writer, context, intake
        self.pending = b""
        self.messages = 0

    async def play(self, step):
        word, _, rest = step.partition(" ")
        if word in ("C:", "C+"):
            self.pending += rest.encode("utf-8") + b"\r\n" if word == "C:" else unescaped(rest)
            return
        if word == "BIG":
            self.pending += (b"x" * 98 + b"\r\n") * (int(rest) // 100)
            return
        if self.pending:
            self.writer.write(self.pending)
            self.pending = b""
        await getattr(self, STEPS[word])(rest)

    async def line(self):
        line = await asyncio.wait_for(self.reader.readline(), DEADLINE)
        assert not line or line.endswith(b"\r\n")
        assert len(line) <= 512
        said = line[:-2].decode("ascii")
        assert not said or is_in_form(said), f"{said!r} is no reply of ours"
        return said

    async def begins(self, wanted):
        line = await self.line()
        assert line.startswith(wanted), f"{line!r} is not {wanted!r}"

    async def matches(self, wanted):
        line = await self.line()
        assert re.fullmatch(wanted, line), f"{line!r} is not {wanted!r}"

    async def secure(self):
        """Say EHLO and STARTTLS, and shake hands; what follows is said within TLS."""
        self.writer.write(b"EHLO client.example\r\n")
        while (await self.line())[3] == "-":
            pass
        self.writer.write(b"STARTTLS\r\n")
        await self.begins("220 2.0.0")
        await self.tls("")

    async def tls(self, _):
        await asyncio.wait_for(self.writer.start_tls(self.context, server_hostname="localhost"), DEADLINE)

    async def eof(self, _):
        self.writer.write_eof()

    async def wait(self, seconds):
        await asyncio.sleep(float(seconds))

    async def closed(self, _):
        with contextlib.suppress(ConnectionError):
            left = await asyncio.wait_for(self.reader.read(), DEADLINE)
            assert left == b""

    async def got(self, content):
        _, _, taken = self.intake.taken[self.messages]
        self.messages += 1
        assert taken == unescaped(content)

    async def took(self, count):
        self.messages += int(count)
        await self.nothing("")

    async def nothing(self, _):
        assert len(self.intake.taken) == self.messages

    async def came_from(self, address):
        assert str(self.intake.taken[-1][0].peer) == address


STEPS = {
    "S:": "begins",
    "S~": "matches",
    "TLS": "tls",
    "EOF": "eof",
    "WAIT": "wait",
    "CLOSED": "closed",
    "GOT": "got",
    "TOOK": "took",
    "NOTHING": "nothing",
    "FROM": "came_from",
}


def is_in_form(line):
    """Whether *line* is a reply line (RFC 5321 4.2) in which nobody has a word but we."""
    return bool(OURS.fullmatch(line)) or any(
        line.startswith(constant) and MAY_FOLLOW.fullmatch(line[len(constant) :]) for constant in CONSTANTS
    )


def unescaped(text):
    return text.encode("utf-8").decode("unicode_escape").encode("latin-1")


def options(head):
    """Options of the file: listener, tls, networks, proxy_from, edge.NAME, intake.KEY, pause, reference, plainly.

    Lists are JSON. A client that begins `plainly` shakes hands at TLS, whatever the listener does; one that is `secured`
    does so by STARTTLS right after the greeting.
    """
    found = {}
    for line in head.splitlines():
        if not line.startswith("#"):
            key, _, value = line.partition(": ")
            found[key] = value.strip()
    return found


def of_edge(found):
    return Edge(**{key[5:]: value_of(text) for key, text in found.items() if key.startswith("edge.")})


def value_of(text):
    """A number, a truth or a list as in JSON; all else is text."""
    return json.loads(text) if re.fullmatch(r"\d+|true|false|\[.*\]", text) else text


def perform(path: Path, folder: Path, **others):
    """Play the dialog in *path*, with *others* in place of its options, on the loop of the product."""
    head, _, steps = path.read_text("utf-8").partition("\n\n")
    return uvloop.run(_perform(options(head) | others, steps, folder))


def is_for_any_transport(path: Path):
    """Whether the dialog in *path* is the same within TLS: it begins in clear, and does not close one side only."""
    head, _, steps = path.read_text("utf-8").partition("\n\n")
    clear = {"tls", "proxy_from"} & set(options(head)) or "listener: submission" in head
    return not (clear or "\nEOF" in steps or "STARTTLS" in steps)


def is_for_starttls(path: Path):
    """Whether the dialog in *path* is the same after STARTTLS: nobody counts or times what was said before it."""
    head, _, steps = path.read_text("utf-8").partition("\n\n")
    counts = {"edge.commands", "edge.session_time", "pause"} & set(options(head))
    starts = steps.startswith(("S: 220", "S~ 220")) and not path.stem.startswith(("other-protocol", "proxy-"))
    return is_for_any_transport(path) and starts and not counts


async def _perform(found, steps, folder):
    secured = found.get("tls", "none")
    context = server_context(folder) if secured != "none" else None
    answers = {key[7:]: value for key, value in found.items() if key.startswith("intake.")}
    intake = Intake(of_edge(found), answers=answers, pause=float(found.get("pause", 0)))
    if "reference" in found:
        intake.reference = unescaped(found["reference"]).decode("latin-1")
    networks = tuple(found["networks"].split()) if "networks" in found else ()
    at = config.Listener(
        name="test",
        kind=found.get("listener", "mx"),
        address="127.0.0.1:0",
        tls=secured,
        networks=list(networks),
        proxy_from=found.get("proxy_from", "").split(),
    )
    async with serving(intake, at, folder, context) as port:
        trusting = trusting_context() if context else None
        implicit = trusting if secured == "implicit" and "plainly" not in found else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=implicit)
        client = Client(reader, writer, trusting, intake)
        try:
            await _play(client, steps.splitlines(), secured="secured" in found)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    await client.nothing("")
    return intake


async def _play(client, steps, *, secured):
    """Play *steps*; those behind the greeting within TLS, if it is to be *secured*."""
    for number, step in enumerate(steps):
        if step and not step.startswith("#"):
            try:
                await client.play(step)
                if secured and number == 0:
                    await client.secure()
            except (AssertionError, TimeoutError, IndexError) as error:
                raise AssertionError(f"step {number + 1}, {step}: {type(error).__name__} {error}") from None


def server_context(folder):
    folder = folder.parent / "certificates"
    return tls.server_context(config.Config(server=config.Server(data=folder)))


def trusting_context():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

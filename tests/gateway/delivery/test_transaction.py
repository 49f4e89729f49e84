"""Conversations with other hosts are data: dialogs/*.txt. What needs more than a dialog stands below."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.relay import connect
from gateway.delivery.transaction import BareLineEnd, Outgoing, Result, Stuffing, send
from gateway.model import Recipient, Temporary
from gateway.stages import Relay, Timeouts
from tests.gateway.delivery.scripted import host, unescaped

DIALOGS = sorted((Path(__file__).parent / "dialogs").glob("*.txt"))
RELAY = Relay(timeouts=Timeouts(**dict.fromkeys(Timeouts.model_fields, 3.0)))
HELLO = b"Subject: x\r\n\r\nhello\r\n"


def outgoing(body: bytes = HELLO, to: tuple[Recipient, ...] = (Recipient("bob@there.example"),), **more) -> Outgoing:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    return Outgoing(**({"sender": "alice@us.example"} | more), recipients=to, size=len(body), chunks=chunks)


def fate(result: Result) -> str:
    if result.elsewhere:
        return "elsewhere"
    return "sent" if result.reply.ok else "failed" if result.reply.permanent else "retry"


def recipient(words: str) -> Recipient:
    address, *parameters = words.split()
    named = dict(parameter.split("=", 1) for parameter in parameters)
    return Recipient(address, frozenset(filter(None, named.get("NOTIFY", "").split(","))), named.get("ORCPT", ""))


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_the_dialog_goes_as_written(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    given_ = {
        word: [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")] for word in ("from", "to")
    }
    words = " ".join(line.partition(" ")[2] for line in lines if line.startswith("with ")).split()
    more: dict[str, object] = {word: word in words for word in ("eight_bit", "smtputf8")}
    more |= dict(word.split("=", 1) for word in words if "=" in word)
    body = next((unescaped(line[5:]) for line in lines if line.startswith("body ")), HELLO)
    mail = outgoing(body, tuple(map(recipient, given_["to"])), sender=given_["from"][0], **more)
    script = [line for line in lines if re.match(r"[SCRL][:=] |X$", line)]
    relay = RELAY.model_copy(update={"send_eight_bit_anyway": "anyway" in words})

    async def talk() -> tuple[list[Result], list[str]]:
        async with host(script) as peer:
            connection = await connect(peer.hop(), "gw.us.example", relay)
            results = await send(connection, mail)
            await connection.quit()
            await asyncio.sleep(0)
            return results, peer.faults

    results, faults = asyncio.run(talk())
    assert faults == []
    wanted = [line[2:].split(" ", 1) for line in lines if line.startswith("= ")]
    got = [(fate(result), f"{result.reply.code} {result.reply.status} {result.reply.text}") for result in results]
    assert [word for word, _ in got] == [word for word, _ in wanted]
    for (_, reply), (_, start) in zip(got, wanted, strict=True):
        assert reply.startswith(start)


def converse(script: str, mail: Outgoing, relay: Relay = RELAY) -> tuple[list[Result], list[list[str]]]:
    async def talk() -> tuple[list[Result], list[list[str]]]:
        async with host(script) as peer:
            connection = await connect(peer.hop(), "gw.us.example", relay)
            try:
                return await send(connection, mail), peer.heard
            finally:
                connection.drop()

    return asyncio.run(talk())


READY = """S: 220 mx
C: EHLO gw.us.example
S: 250 mx
C: MAIL FROM:<alice@us.example>
S: 250 ok
C: RCPT TO:<bob@there.example>
S: 250 ok
C: DATA
S: 354 go on
"""


def test_a_host_that_stays_silent_costs_its_deadline_and_no_more() -> None:
    quick = Relay(timeouts=Timeouts(**dict.fromkeys(Timeouts.model_fields, 3.0)).model_copy(update={"data_end": 0.05}))
    results, _ = converse(READY + "C= *\nC: never", outgoing(), quick)
    assert "it does not answer" in results[0].reply.text
    assert fate(results[0]) == "retry"


def test_a_host_that_answers_each_command_late_gets_no_more_than_the_whole_time() -> None:
    async def drop_by_drop() -> AsyncGenerator[bytes, None]:
        for _ in range(600):
            await asyncio.sleep(0.01)
            yield b"x\r\n"

    slow = RELAY.model_copy(update={"transaction_time": 0.2})
    mail = Outgoing("alice@us.example", (Recipient("bob@there.example"),), 1800, drop_by_drop)
    results, _ = converse(READY + "C= *\nC: never", mail, slow)
    assert "too slow for one message" in results[0].reply.text
    assert fate(results[0]) == "retry"


def test_a_flood_of_lines_in_one_reply_ends_the_session() -> None:
    flood = "\n".join(["S: 250-more"] * 200)
    results, _ = converse(
        "S: 220 mx\nC: EHLO gw.us.example\nS: 250 mx\nC: MAIL FROM:<alice@us.example>\n" + flood, outgoing()
    )
    assert "its reply does not end" in results[0].reply.text


def test_a_line_without_end_ends_the_session() -> None:
    endless = "S: 250 " + "x" * 20000
    results, _ = converse(
        "S: 220 mx\nC: EHLO gw.us.example\nS: 250 mx\nC: MAIL FROM:<alice@us.example>\n" + endless, outgoing()
    )
    assert re.search("line without end|too long a line", results[0].reply.text)


def test_a_refusal_in_the_middle_of_the_data_is_taken_at_its_word() -> None:
    async def slowly() -> AsyncGenerator[bytes, None]:
        for _ in range(50):
            await asyncio.sleep(0.01)
            yield b"x\r\n"

    mail = Outgoing("alice@us.example", (Recipient("bob@there.example"),), 150, slowly)
    results, _ = converse(READY + "S: 552 5.3.4 enough", mail)
    assert (fate(results[0]), results[0].reply.status) == ("failed", "5.3.4")


def test_no_half_of_a_message_is_ever_ended_with_a_dot() -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield b"Subject: x\r\n\r\n"
        raise Temporary("the store is away")

    mail = Outgoing("alice@us.example", (Recipient("bob@there.example"),), 100, broken)
    results, heard = converse(READY.replace("S: 250 mx", "S: 250-mx\nS: 250 8BITMIME") + "C= *", mail)
    assert (fate(results[0]), results[0].reply.status) == ("retry", "4.3.0")
    assert heard[0][-1] == "DATA"


@pytest.mark.parametrize(
    "address", ["bob@there.example>\r\nRCPT TO:<eve", "b\nob@there.example", "b\x00@there.example"]
)
def test_an_address_that_would_end_its_command_is_not_sent(address: str) -> None:
    results, heard = converse("S: 220 mx\nC: EHLO gw.us.example\nS: 250 mx", outgoing(to=(Recipient(address),)))
    assert (fate(results[0]), results[0].reply.status) == ("failed", "5.1.3")
    assert heard[0] == ["EHLO gw.us.example"]


LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"x"]), max_size=8)


@given(LINES, st.lists(st.integers(0, 30), max_size=6), st.booleans())
def test_stuffing_is_undone_by_every_receiver_wherever_the_pieces_break(
    lines: list[bytes], cuts: list[int], ended: bool
) -> None:
    message = b"\r\n".join(lines) + b"\r\n" * ended
    stuffing = Stuffing()
    places = [0, *sorted(cuts), len(message)]
    wire = b"".join(stuffing.of(message[start:end]) for start, end in pairwise(places))
    wire += stuffing.end()
    assert wire.endswith(b".\r\n")
    got = (b"\r\n" + wire).removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")[2:]
    assert b"\r\n.\r\n" not in (b"\r\n" + wire)[:-3]
    assert got.removesuffix(b"\r\n") == message.removesuffix(b"\r\n")


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x"]), max_size=12), st.integers(0, 12))
def test_no_bare_line_end_passes_wherever_the_pieces_break(tokens: list[bytes], cut: int) -> None:
    message = b"".join(tokens)
    bare = bool(re.search(rb"\r(?!\n)|(?<!\r)\n", message))
    stuffing = Stuffing()
    try:
        stuffing.of(message[:cut])
        stuffing.of(message[cut:])
        stuffing.end()
    except BareLineEnd:
        assert bare
    else:
        assert not bare

"""PROXY headers, damaged in any way: what is believed is what the letter of the protocol says, and nothing else comes out."""

import contextlib
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import proxy
from gateway.peers import plain
from tests.fuzz.effort import examples

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
WORDS = [
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b"1.2.3.4 ",
    b"::1 ",
    b"::ffff:1.2.3.4 ",
    b"0 ",
    b"25",
    b"65536",
    b"01 ",
]
WORDS += [
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\0",
    b"EHLO a\r\n",
    b"1.2.3.4.5 ",
    b"1.2.3 ",
    b"fe80::1%lo ",
    SIGNATURE,
    b"x" * 107,
]
FOLLOWS = st.sampled_from([b"", b"EHLO a\r\n", b"\r\n", b"\x16\x03\x01"])


@st.composite
def version_1(draw):
    one, other, port = draw(ADDRESSES), draw(ADDRESSES), draw(st.integers(0, 70000))
    family = draw(st.sampled_from([f"TCP{one.version}"] * 3 + ["TCP4", "TCP6", "UNKNOWN"]))
    return f"PROXY {family} {one} {other} {port} 25\r\n".encode()


@st.composite
def version_2(draw):
    one, other = draw(st.tuples(*[st.ip_addresses(v=4)] * 2) | st.tuples(*[st.ip_addresses(v=6)] * 2))
    family = draw(st.sampled_from([{4: 0x11, 6: 0x21}[one.version]] * 3 + [0, 0x12, 0x31]))
    command = draw(st.sampled_from([0x21] * 5 + [0x20, 0x22, 0x11]))
    body = one.packed + other.packed + draw(st.binary(min_size=4, max_size=30))
    size = draw(st.sampled_from([len(body)] * 5 + [0, 11, 12, 65535]))
    return SIGNATURE + struct.pack("!BBH", command, family, size) + body


@st.composite
def damaged(draw):
    octets = bytearray(draw(version_1() | version_2()))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(octets)))
        octets[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(octets)


def read(octets):
    """The peer, and what follows the header; `EOFError` where it does not end."""
    header = b""
    while (wanted := proxy.wanted(header)) > 0:
        if len(octets) < len(header) + wanted:
            raise EOFError
        header = octets[: len(header) + wanted]
    return proxy.source(header), octets[len(header) :]


def by_the_letter(octets):
    """The same by the text of the protocol, read slowly; no peer where the proxy speaks for itself."""
    if octets.startswith(SIGNATURE):
        command, family, size = struct.unpack_from("!BBH", octets, 12)
        length = {0x11: 4, 0x21: 16}.get(family, 0)
        peer = None if command == 0x20 else plain(ip_address(octets[16 : 16 + length]))
        return peer, octets[16 + size :]
    line, _, follows = octets.partition(b"\r\n")
    _, family, *words = line.decode("latin-1").split(" ")
    if family == "UNKNOWN":
        return None, follows
    one, _, _, _ = words
    return plain({"TCP4": IPv4Address, "TCP6": IPv6Address}[family](one)), follows


@settings(max_examples=examples(200), deadline=None)
@given(damaged(), FOLLOWS)
def test_who_is_believed_is_whom_the_protocol_names(header, follows):
    with contextlib.suppress(proxy.Malformed, EOFError):
        assert read(header + follows) == by_the_letter(header + follows)


@settings(max_examples=examples(50), deadline=None)
@given(version_1() | version_2(), FOLLOWS)
def test_whose_header_is_cut_off_is_nobody(header, follows):
    with contextlib.suppress(proxy.Malformed, EOFError):
        _, left = read(header + follows)
        whole = len(header + follows) - len(left)
        for cut in range(whole):
            with contextlib.suppress(EOFError):
                raise AssertionError(read(header[:cut]))


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(b"".join))
def test_nothing_but_a_peer_or_malformed_comes_out(octets):
    with contextlib.suppress(proxy.Malformed, EOFError):
        source, left = read(octets)
        assert source is None or isinstance(source, IPv4Address | IPv6Address)
        assert octets.endswith(left)
        assert len(octets) - len(left) <= proxy.MAX_V2

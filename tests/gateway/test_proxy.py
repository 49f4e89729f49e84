"""The grammar of the PROXY protocol: what is a header, whom it names, and where it ends."""

import contextlib
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import proxy

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, addresses, length=None):
    size = len(addresses) if length is None else length
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", size) + addresses


def packed(source, here, tail=b""):
    return ip_address(source).packed + ip_address(here).packed + struct.pack("!HH", 4000, 25) + tail


def read(octets):
    """What a door makes of *octets*: the address, and what it left to others."""
    header = b""
    while (more := proxy.wanted(header)) > 0:
        taken = octets[len(header) : len(header) + more]
        if not taken:
            raise EOFError
        header += taken
    return proxy.source(header), octets[len(header) :]


@pytest.mark.parametrize(
    ("header", "source"),
    [
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n", "192.0.2.1"),
        (b"PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "1.1.1.1"),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
        (b"PROXY TCP6 :: :: 1 1\r\n", "::"),
        (b"PROXY TCP6 2001:db8::1 2001:DB8::2 0 25\r\n", "2001:db8::1"),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4000 25\r\n", "192.0.2.1"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        (v2(0x21, 0x11, packed("192.0.2.1", "192.0.2.9")), "192.0.2.1"),
        (v2(0x21, 0x21, packed("2001:db8::1", "::1")), "2001:db8::1"),
        (v2(0x21, 0x21, packed("::ffff:192.0.2.1", "::1")), "192.0.2.1"),
        (v2(0x21, 0x11, packed("192.0.2.1", "192.0.2.9", b"\x04\0\x01x" * 100)), "192.0.2.1"),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, packed("192.0.2.1", "192.0.2.9")), None),
    ],
)
def test_a_header_names_the_peer_and_ends_where_it_ends(header, source):
    follows = b"EHLO client.example\r\n\x16\x03\x01"
    assert read(header + follows) == (source and ip_address(source), follows)


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"PROXY\r\n" * 3,
        b"proxy TCP4 192.0.2.1 192.0.2.2 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 1\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 1 \r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 1\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 1\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.x 1 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2 11 11\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 1\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 1\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        b"PROXY TCP6 2001:db8:::1 ::1 1 1\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 1\r\n",
        b"PROXY TCP4\t192.0.2.1 192.0.2.2 1 1\r\n",
        b"PROXY UNKNOWNS 192.0.2.1\r\n",
        b"PROXY UNKNOWN \r x\r\n",
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        v2(0x11, 0x11, packed("192.0.2.1", "192.0.2.9")),
        v2(0x22, 0x11, packed("192.0.2.1", "192.0.2.9")),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x12, packed("192.0.2.1", "192.0.2.9")),
        v2(0x21, 0x31, b"\0" * 216),
        v2(0x21, 0x11, packed("192.0.2.1", "192.0.2.9")[:-1]),
        v2(0x21, 0x21, packed("192.0.2.1", "192.0.2.9")),
        v2(0x21, 0x11, b""),
        v2(0x21, 0x11, packed("192.0.2.1", "192.0.2.9") + b"\0" * 65000),
        v2(0x20, 0x00, b"", 65535),
        SIGNATURE[:-1] + b"\r",
    ],
)
def test_what_is_not_exactly_a_header_is_none(octets):
    with pytest.raises(proxy.Malformed):
        read(octets)


@given(st.binary(max_size=300))
def test_nothing_but_malformed_comes_out_of_it(octets):
    with contextlib.suppress(proxy.Malformed, EOFError):
        read(octets)


@given(st.sampled_from([b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", SIGNATURE + b"\x21\x11\0\x0c"]), st.binary())
def test_however_a_header_goes_on_it_is_bounded(begun, more):
    asked = 0
    header = b""
    with contextlib.suppress(proxy.Malformed):
        while (wanted := proxy.wanted(header)) > 0 and len(header) < len(begun + more):
            asked = max(asked, len(header) + wanted)
            header = (begun + more)[: len(header) + wanted]
        proxy.source(header)
    assert asked <= proxy.MAX_V2


@given(
    st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None),
    st.integers(0, 65535),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_every_address_comes_through_in_both_versions(address, port, extra, follows):
    family, kind = ("TCP4", 0x11) if address.version == 4 else ("TCP6", 0x21)
    one = f"PROXY {family} {address} {address} {port} 25\r\n".encode()
    two = v2(0x21, kind, address.packed * 2 + struct.pack("!HH", port, 25) + extra)
    for header in (one, two):
        assert read(header + follows) == (address, follows)

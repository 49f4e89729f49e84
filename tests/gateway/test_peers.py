"""Whom a peer counts with, and how many there may be."""

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from gateway.peers import Crowd, Full, TooMany, address_of, network, plain

HERE, NEIGHBOUR, ELSEWHERE = map(ip_address, ("192.0.2.1", "192.0.2.2", "198.51.100.1"))


def room(connections=100, peer=100, net=100, ipv4=24, ipv6=48):
    return SimpleNamespace(
        connections=connections,
        connections_per_peer=peer,
        connections_per_network=net,
        network_ipv4=ipv4,
        network_ipv6=ipv6,
    )


class Transport:
    def __init__(self, peername):
        self._peername = peername

    def get_extra_info(self, name):
        return self._peername if name == "peername" else None


def full(crowd, address, limits):
    """The limit that keeps *address* out; None where it came in."""
    try:
        crowd.enter(limits)
    except TooMany as error:
        return error.full
    try:
        crowd.identify(address, limits)
    except TooMany as error:
        crowd.leave()
        return error.full
    return None


@pytest.mark.parametrize(
    ("limits", "answers"),
    [
        (room(connections=3), [None, None, None, Full.PROCESS]),
        (room(peer=2), [None, None, Full.ADDRESS, Full.ADDRESS]),
        (room(net=1), [None, Full.NETWORK, Full.NETWORK, Full.NETWORK]),
    ],
    ids=["connections", "connections_per_peer", "connections_per_network"],
)
def test_there_are_so_many_at_once_and_no_more(limits, answers):
    crowd = Crowd()
    assert [full(crowd, HERE, limits) for _ in answers] == answers


def test_neighbours_share_the_room_of_their_network_and_others_have_their_own():
    crowd, limits = Crowd(), room(net=2)
    assert [full(crowd, one, limits) for one in (HERE, NEIGHBOUR, HERE, ELSEWHERE)] == [None, None, Full.NETWORK, None]


@pytest.mark.parametrize(
    ("ipv6", "answers"), [(48, [None, Full.NETWORK, None]), (64, [None, None, None]), (32, [None] + [Full.NETWORK] * 2)]
)
def test_networks_of_ipv6_are_as_large_as_the_settings_say(ipv6, answers):
    crowd, limits = Crowd(), room(net=1, ipv6=ipv6)
    peers = map(ip_address, ("2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:1::1"))
    assert [full(crowd, one, limits) for one in peers] == answers


def test_a_64_of_ipv6_is_one_peer():
    crowd, limits = Crowd(), room(peer=1)
    peers = map(ip_address, ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"))
    assert [full(crowd, one, limits) for one in peers] == [None, Full.ADDRESS, None]


def test_who_leaves_makes_room_and_leaves_nothing_behind():
    crowd, limits = Crowd(), room(connections=1, peer=1, net=1)
    for _ in range(5):
        crowd.enter(limits)
        crowd.leave(crowd.identify(HERE, limits))
    assert (crowd.size, len(crowd._addresses), len(crowd._networks)) == (0, 0, 0)


def test_who_knocks_without_end_does_not_fill_the_house():
    crowd, limits = Crowd(), room(connections=2, peer=1)
    assert [full(crowd, HERE, limits) for _ in range(50)] == [None] + [Full.ADDRESS] * 49
    assert full(crowd, ELSEWHERE, limits) is None


def test_an_address_is_written_one_way():
    assert plain(ip_address("::ffff:192.0.2.1")) == HERE
    assert address_of(Transport(("::ffff:192.0.2.1", 1, 0, 0))) == HERE
    assert address_of(Transport(("fe80::1%eth0", 1, 0, 2))) == ip_address("fe80::1")
    assert address_of(Transport(None)) is None


def test_a_network_can_be_named():
    assert network(HERE) == "192.0.2.1/32"
    assert network(HERE, 24) == "192.0.2.0/24"
    assert network(ip_address("2001:db8::1")) == "2001:db8::/64"

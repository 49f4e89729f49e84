"""What is withheld by which version of Landlock; that this one withholds it, without seccomp, is tried."""

import struct

import pytest

from gateway.pipeline import landlock
from tests.peers import unconfined

FILES = {"read_passwd", "write_a_file", "list_a_folder", "open_the_memory_of_its_parent"}
TRACING = {"trace_its_parent", "read_the_memory_of_its_parent"}
NETWORK = {"connect_to_loopback"}
SCOPES = {"connect_to_an_abstract_socket", "signal_its_parent"}


@pytest.mark.parametrize(
    ("abi", "words"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 3]),
        (5, [0xFFFF, 3]),
        (6, [0xFFFF, 3, 3]),
        (9, [0xFFFF, 3, 3]),
    ],
)
def test_every_version_withholds_all_that_it_can(abi, words):
    assert list(struct.unpack(f"={len(words)}Q", landlock._ruleset(abi))) == words


def test_without_seccomp_it_denies_files_network_tracing_and_signals():
    assert landlock.version() >= 1, "the machine that runs these tests has Landlock"
    asked = FILES | TRACING
    asked |= NETWORK if landlock.version() >= 4 else set()
    asked |= SCOPES if landlock.version() >= 6 else set()
    told = unconfined.outcomes(asked, layer="landlock")
    assert set(told) == asked
    assert set(told.values()) <= {"EACCES", "EPERM"}, told

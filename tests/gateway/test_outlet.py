"""Lines go out at once or not at all, whatever standard error is."""

import fcntl
import os
import socket
import time

import pytest

from gateway.outlet import Outlet

LINE = b"x" * 999 + b"\n"


def _until_lost(outlet, most=10_000):
    began = time.monotonic()
    count = next(number for number in range(most) if not outlet.put(LINE))
    assert time.monotonic() - began < 5
    return count


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_a_pipe_that_nobody_reads_loses_lines_and_takes_them_again_when_somebody_does(pipe):
    ours, theirs = pipe
    outlet = Outlet(theirs)
    count = _until_lost(outlet)
    assert count > 10
    flags = fcntl.fcntl(theirs, fcntl.F_GETFL)
    assert not flags & os.O_NONBLOCK, "others may share it"
    assert os.read(ours, 1 << 20) == LINE * count
    assert outlet.put(LINE)


def test_a_pipe_whose_reader_is_gone_loses_lines():
    ours, theirs = os.pipe()
    os.close(ours)
    outlet = Outlet(theirs)
    assert not outlet.put(LINE)
    os.close(theirs)


def test_a_socket_that_nobody_reads_loses_lines_and_takes_them_again_when_somebody_does():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = Outlet(theirs.fileno())
        count = _until_lost(outlet)
        got = 0
        while got < count * len(LINE):
            got += len(ours.recv(1 << 20))
        assert outlet.put(LINE)


def test_a_terminal_and_the_null_device_take_lines():
    leader, terminal = os.openpty()
    assert Outlet(terminal).put(b"x\n")
    assert os.read(leader, 10) == b"x\r\n"
    with open(os.devnull, "wb") as null:
        assert Outlet(null.fileno()).put(LINE)
    os.close(leader)
    os.close(terminal)


def test_lines_to_a_file_stand_in_the_order_in_which_all_who_share_it_wrote(tmp_path):
    with (tmp_path / "log").open("wb", buffering=0) as file:
        first, second = Outlet(file.fileno()), Outlet(os.dup(file.fileno()))
        for outlet in (first, second, first):
            assert outlet.put(LINE)
        file.write(b"end\n")
    assert (tmp_path / "log").read_bytes() == LINE * 3 + b"end\n"


class _Short:
    """Takes *room* octets, then nothing until more room is made."""

    def __init__(self, room):
        self.room, self.got = room, b""

    def __call__(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = data[: self.room]
        self.room -= len(taken)
        self.got += taken
        return len(taken)


def test_after_a_torn_line_the_next_one_begins_on_a_line_of_its_own(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        outlet = Outlet(file.fileno())
    disk = outlet._write = _Short(5)
    assert not outlet.put(b"abcdefg\n")
    assert not outlet.put(b"lost\n")
    disk.room = 100
    assert outlet.put(b"next\n")
    assert outlet.put(b"last\n")
    assert disk.got == b"abcde\nnext\nlast\n"

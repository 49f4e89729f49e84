"""Where a message waits: in memory, then in a file without a name; nothing stays behind."""

import errno
import os

import pytest

from gateway.smtp.spool import Spool, is_full


def is_in_memory(file):
    return "memfd" in os.readlink(f"/proc/self/fd/{file.fileno()}")


def test_a_small_message_stays_in_memory(tmp_path):
    spool = Spool(tmp_path, 100)
    spool.write(b"a" * 60)
    spool.write(b"b" * 40)
    with spool.finish() as file:
        assert is_in_memory(file)
        assert file.read() == b"a" * 60 + b"b" * 40
    assert list(tmp_path.iterdir()) == []


def test_a_large_message_moves_to_a_file_without_a_name(tmp_path):
    spool = Spool(tmp_path, 100)
    for _ in range(30):
        spool.write(b"c" * 10)
    with spool.finish() as file:
        assert not is_in_memory(file)
        assert os.fstat(file.fileno()).st_nlink == 0
        assert file.read() == b"c" * 300
    assert list(tmp_path.iterdir()) == []


def test_an_empty_message_is_a_file_too(tmp_path):
    with Spool(tmp_path, 100).finish() as file:
        assert file.read() == b""


def test_nothing_stays_open_after_close(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    spool = Spool(tmp_path, 100)
    spool.write(b"a")
    spool.close()
    spool.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_is_told_from_a_broken_one():
    assert is_full(OSError(errno.ENOSPC, ""))
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(OSError(errno.EIO, ""))


def test_a_folder_that_is_gone_is_an_error(tmp_path):
    spool = Spool(tmp_path / "gone", 0)
    with pytest.raises(OSError, match="gone"):
        spool.write(b"a")

"""The model of a disk loses what was not flushed, and the judge sees it; the lines of strace are read as they are meant."""

import random
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest

from gateway.model import Envelope, Recipient, Session, State, new_id
from gateway.store import messages
from gateway.store.engine import Store
from tests.reliability import ledger, power
from tests.reliability.power import Disk, Flushed, Said, Write


class Recorded:
    """A store whose mails come with the octets that they added to its log."""

    def __init__(self, home: Path) -> None:
        self.database, self.log = home / "x.db", home / "x.db-wal"
        self.store = Store(f"sqlite:///{self.database}")
        self.store.migrate()

    def disk(self) -> Disk:
        return Disk({str(path): bytearray(path.read_bytes()) for path in (self.database, self.log)})

    def accept(self, number: int) -> tuple[str, Write]:
        mail, id_, before = ledger.mail(number, ["a@b.example"]), new_id(), self.log.stat().st_size
        draft = messages.Draft(id_, 0.0, Session(ip_address("::1")), Envelope(mail.sender), b"", BytesIO(mail.raw))
        with self.store.begin() as conn:
            messages.accept(conn, draft, [messages.Row(Recipient("a@b.example"), State.QUEUED)])
        return id_, Write(str(self.log), before, self.log.read_bytes()[before:])


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    (tmp_path / "store").mkdir()
    made = Recorded(tmp_path / "store")
    yield made
    made.store.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "states"
    folder.mkdir()
    return folder


def test_what_was_flushed_first_is_there_after_each_cut(recorded: Recorded, home: Path) -> None:
    disk, events = recorded.disk(), []
    for number in range(1, 4):
        id_, write = recorded.accept(number)
        events += [write, Flushed(write.path, len(events) + 1), Said((id_,))]
    result = power.judge(events, disk, home, random.Random(1)).check()
    assert (result.acknowledged, result.flushes) == (3, 3)
    assert result.states > 4


def test_a_250_before_the_flush_comes_back_is_seen_and_its_mail_is_lost(recorded: Recorded, home: Path) -> None:
    disk = recorded.disk()
    id_, write = recorded.accept(1)
    result = power.judge([write, Said((id_,)), Flushed(write.path, 1)], disk, home, random.Random(1))
    assert result.too_early == [id_]
    assert result.lost
    with pytest.raises(AssertionError, match="before the flush"):
        result.check()


def test_a_flush_that_began_before_the_write_does_not_count(recorded: Recorded, home: Path) -> None:
    disk = recorded.disk()
    id_, write = recorded.accept(1)
    assert power.judge([write, Flushed(write.path, 0), Said((id_,))], disk, home, random.Random(1)).lost


def test_a_flush_of_another_file_does_not_count(recorded: Recorded, home: Path) -> None:
    disk = recorded.disk()
    id_, write = recorded.accept(1)
    events = [write, Flushed(str(recorded.database), 1), Said((id_,))]
    assert power.judge(events, disk, home, random.Random(1)).too_early == [id_]


def test_a_cut_tears_what_was_not_flushed_by_sectors() -> None:
    disk = Disk({"f": bytearray(b"-" * 4096)}, [(0, Write("f", 100, b"+" * 3000))])
    states = [bytes(disk.torn(random.Random(seed))["f"]) for seed in range(8)]
    assert len(set(states)) > 1
    assert all(state[:100] == b"-" * 100 and state[3100:] == b"-" * 996 for state in states)
    assert all(len(set(state[at : at + 512])) == 1 for state in states for at in range(512, 3072, 512))
    assert bytes(disk.flushed["f"]) == b"-" * 4096


def hexed(octets: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in octets)


LOG = hexed(b"/v/gatepost.db-wal")


def test_the_lines_of_strace_are_read_in_the_order_in_which_things_took_effect() -> None:
    id_ = "06h0cx8y4m4cqcjtpv"
    reply = hexed(f"250 2.0.0 Accepted, {id_}\r\n".encode())
    lines = [
        f'10 pwrite64(5<{LOG}>, "{hexed(b"ab")}", 2, 4096) = 2',
        f'11 pwrite64(6<{LOG}>, "{hexed(b"cd")}", 2, 8192 <unfinished ...>',
        f"10 fdatasync(5<{LOG}> <unfinished ...>",
        "11 <... pwrite64 resumed>) = 2",
        "10 <... fdatasync resumed>) = 0",
        f'10 write(9<{hexed(b"socket:[1]")}>, "{reply}", 40) = 40',
        f"10 ftruncate(5<{LOG}>, 512) = 0",
        f"10 fdatasync(5<{LOG}>) = -1 EIO (Input/output error)",
        f'10 write(2<{hexed(b"/dev/null")}>, "{hexed(b"nothing")}", 7) = 7',
    ]
    path = "/v/gatepost.db-wal"
    assert power.events(lines) == [
        Write(path, 4096, b"ab"),
        Write(path, 8192, b"cd"),
        Flushed(path, 1),
        Said((id_,)),
        Write(path, 512, None),
    ]

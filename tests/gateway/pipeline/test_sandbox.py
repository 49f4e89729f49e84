"""The confined workers: what they answer, what they may not do, and that their death costs one mail only."""

import asyncio
import base64
import contextlib
import errno
import fcntl
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import reduce
from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.model import Content as Seen
from gateway.model import Finding, Mail, Part, Session, Temporary
from gateway.pipeline import confined, policy
from gateway.pipeline import sandbox as sandboxes
from gateway.pipeline.content import parse
from gateway.pipeline.crossing import ANSWER, FRAME, SCANNED, Scanned
from gateway.pipeline.policy import Policies
from gateway.pipeline.sandbox import Sandbox
from gateway.stages import Content, Stages
from tests.peers.processes import wait_until
from tests.reliability import family

TESTS = Path(__file__).parents[2]
MAIL = Mail("m1", Session(ip_address("192.0.2.1")))


def policies(**limits: object) -> Policies:
    stages = Stages(content=Content(settings=Content.Settings.model_validate(limits)))
    return replace(policy.load(None, None), stages=stages)


def spooled(data: bytes):
    file = tempfile.TemporaryFile()
    file.write(data)
    file.flush()
    return file


def scanned(*messages: bytes, meddle=None, **limits: object):
    """What a sandbox of one worker answers to each message in turn; *meddle* gets it before the last."""

    async def run():
        sandbox = await Sandbox(policies(**limits), 1).start()
        try:
            answers = []
            for number, data in enumerate(messages, 1):
                if meddle and number == len(messages):
                    await meddle(sandbox)
                with spooled(data) as file:
                    answers.append(await sandbox.scan(MAIL, file))
            return answers
        finally:
            await sandbox.close()

    return asyncio.run(run())


def slow_mail() -> bytes:
    def wrap(data: bytes, _: int) -> bytes:
        head = b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        return head + base64.encodebytes(data).replace(b"\n", b"\r\n")

    return reduce(wrap, range(36), b"x")


GOOD = b"From: a@b.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nSubject: hi\r\n\r\nhello\r\n"


def test_a_worker_answers_with_content_and_findings_of_the_pure_filters():
    bad = b"From: a@b.example\r\nContent-Disposition: attachment; filename=run.exe\r\n\r\nMZ"
    good, worse = scanned(GOOD, bad)
    assert good.content.subject == "hi"
    assert [finding.code for finding in worse.found["attachments"]] == ["executable"]
    assert "attachments" not in good.found


CHARSETS = (
    "windows-1251",
    "iso-8859-15",
    "koi8-u",
    "gb18030",
    "big5",
    "euc-kr",
    "iso-2022-kr",
    "iso-2022-jp",
    "shift_jis",
)


def test_every_charset_is_at_hand_where_no_file_can_be_opened():
    words = {name: "\N{CYRILLIC SMALL LETTER YA}\N{DEGREE SIGN}".encode(name, "ignore") for name in CHARSETS}
    mails = [b"Subject: =?%s?B?%s?=\r\n\r\n" % (name.encode(), base64.b64encode(word)) for name, word in words.items()]
    assert [one.content.subject for one in scanned(*mails)] == [word.decode(name) for name, word in words.items()]


def test_a_worker_says_of_every_message_what_the_parser_says_outside():
    """What is imported only when it is needed is not there in a worker, and would be missed here."""
    mails = [path.read_bytes() for path in sorted((TESTS / "messages").glob("*.eml"))]
    mails.append("From: J\u00f6hn <j\u00f6e@m\u00e4chine.example>\r\n\r\n".encode())
    for mail, answer in zip(mails, scanned(*mails), strict=True):
        with answer.taken or nullcontext():
            outside = parse(mail, Content.Settings())
        assert [part.path for part in answer.content.parts] == [part.path for part in outside.parts]
        assert (answer.content.author, answer.content.unscannable) == (outside.author, outside.unscannable)


def lzma_zip(**files: bytes) -> bytes:
    """A mail with a zip whose files are packed in a way that clamd does not know."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        for name, octets in files.items():
            archive.writestr(name, octets)
    body = base64.encodebytes(packed.getvalue()).replace(b"\n", b"\r\n")
    return b"Content-Type: application/zip; name=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body


def test_what_a_scanner_would_not_see_is_taken_out_of_the_mail_each_payload_once():
    (answer,) = scanned(lzma_zip(one=b"first" * 40, two=b"second" * 40, three=b"first" * 40))
    assert answer.taken is not None
    with answer.taken as file:
        octets = os.pread(file.fileno(), 1 << 20, 0)
    stood = {part.filename: octets[slice(*part.stored)] for part in answer.content.parts if part.stored}
    assert stood == {"one": b"first" * 40, "two": b"second" * 40, "three": b"first" * 40}
    assert len(octets) == 200 + 240


def test_of_an_ordinary_mail_nothing_is_taken_out():
    (answer,) = scanned(GOOD)
    assert answer.taken is None


def test_what_is_too_large_to_be_scanned_by_itself_is_unscannable():
    (answer,) = scanned(lzma_zip(one=b"first" * 40), payload_size=199)
    assert answer.taken is None
    assert answer.content.unscannable == "what it hides is too large to be scanned"
    assert [part.stored for part in answer.content.parts if part.stored] == []


def _send(worker: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the gateway need not read it to its end
        worker.sendall(data)
        worker.shutdown(socket.SHUT_WR)


def answered(reply: bytes, octets: bytes, *, size: int | None = None, **limits: object):
    """What the gateway makes of the answer of a worker."""

    async def run():
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            said = len(octets) if size is None else size
            sending = asyncio.create_task(
                asyncio.to_thread(_send, theirs, ANSWER.pack(len(reply), said, False) + reply + octets)
            )
            try:
                return await Sandbox(policies(**limits), 1)._answer(sandboxes.Worker(0, ours))
            finally:
                ours.close()
                await sending

    return asyncio.run(run())


def standing(*places: tuple[int, int]) -> bytes:
    parts = tuple(Part(str(number), stored=place) for number, place in enumerate(places))
    return SCANNED.dump_json(Scanned(Seen(parts=parts)))


def test_what_a_worker_took_out_can_be_read_where_it_says():
    answer = answered(standing((0, 2), (2, 5)), b"abcde")
    assert answer.taken is not None
    with answer.taken as file:
        assert os.pread(file.fileno(), 10, 0) == b"abcde"


@pytest.mark.parametrize("place", [(0, 6), (-1, 2), (3, 2), (1 << 70, 1 << 71)])
def test_a_worker_that_names_octets_that_it_did_not_send_is_not_believed(place):
    with pytest.raises((LookupError, ValidationError)):
        answered(standing(place), b"abcde")


@pytest.mark.parametrize(
    ("octets", "size", "limits"),
    [(b"abcde", 6, {}), (b"abcde", 4, {}), (b"abcde", None, {"payload_size": 4}), (b"", 4 << 30 - 1, {})],
    ids=["too few", "too many", "over the limit", "far over it"],
)
def test_a_worker_that_sends_another_size_than_it_says_or_may_is_lost(octets, size, limits):
    with pytest.raises(EOFError):
        answered(standing(), octets, size=size, **limits)


@pytest.mark.parametrize("small", [b"{}", b"[]", b'{"path":""}'])
def test_a_worker_that_answers_with_very_many_small_things_is_lost_before_they_are_read(small):
    began = time.process_time()
    with pytest.raises(EOFError, match="too much"):
        answered(b'{"content":{"parts":[' + b",".join([small] * 400_000) + b"]}}", b"")
    assert time.process_time() - began < 0.5


def test_the_message_cannot_be_changed_by_who_reads_it():
    async def run(file):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await sandboxes.hand_over(sandboxes.Worker(0, ours), b"{}", file)
            return socket.recv_fds(theirs, 64, 1)[1][0]

    with spooled(GOOD) as file:
        fd = asyncio.run(run(file))
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert os.pread(fd, 1000, 0) == GOOD
        os.close(fd)


def test_a_worker_that_stalls_whatever_its_own_clocks_say_is_ended():
    async def run():
        sandbox = await Sandbox(policies(timeout=0.1), 1).start()
        with spooled(GOOD) as file:
            await sandbox.scan(MAIL, file)
            worker = sandbox._places.take_free()
            os.kill(worker.pid, signal.SIGSTOP)
            sandbox._places.give_back(worker)
            stalled = await sandbox.scan(MAIL, file)
            good = await sandbox.scan(MAIL, file)
        await asyncio.to_thread(wait_until, lambda: not family.runs(worker.pid), 5, "the end of the worker")
        await sandbox.close()
        return stalled.content.unscannable, good.content.unscannable

    assert asyncio.run(run()) == ("the parser did not finish in time", "")


def test_a_worker_that_has_needed_much_memory_ends_after_the_mail(monkeypatch):
    peaks = iter([100, 200, 100 + confined.MAX_GROWTH, 0])
    served: list[tuple[int, bool]] = []
    ended: list[int] = []

    def serve(gateway, _, worn):
        served.append((gateway, worn()))
        return not served[-1][1]

    monkeypatch.setattr(confined, "_peak", lambda: next(peaks))
    monkeypatch.setattr(confined, "_confined", lambda fd, _: fd)
    monkeypatch.setattr(confined.os, "_exit", ended.append)
    task = confined.Task(Content.Settings(), [])
    confined._work(7, confined.Workers(task, 0, serve))
    assert (served, ended) == ([(7, False), (7, True)], [0])


def test_the_mail_behind_one_that_needed_much_memory_finds_a_fresh_worker(monkeypatch):
    monkeypatch.setattr(confined, "MAX_GROWTH", 0)

    async def run():
        sandbox = await Sandbox(policies(), 1).start()
        with spooled(GOOD) as file:
            scans = [await sandbox.scan(MAIL, file) for _ in range(5)]
        await sandbox.close()
        return [one.content.unscannable for one in scans]

    assert asyncio.run(run()) == [""] * 5


def test_text_of_parts_stays_in_the_worker():
    assert [part.text for part in scanned(GOOD)[0].content.parts] == [""]


def test_a_mail_that_takes_too_long_is_unscannable_and_the_next_one_is_not():
    slow, good = scanned(slow_mail(), GOOD, timeout=0.1, memory=512 << 20)
    assert slow.content.unscannable == "the parser died on it: it took too long"
    assert good.content.unscannable == ""
    assert slow.content.size == len(slow_mail())


SPENDS = """
import time
from gateway.pipeline import confined
from gateway.stages import Content
confined.start_clocks(Content.Settings(cpu=0.1))
began = time.process_time()
while (spent := time.process_time() - began) < 5:
    if spent > 0.05:
        print(spent, flush=True)
"""


def test_each_mail_has_its_processor_time_however_much_those_before_it_took():
    spends = [sys.executable, "-c", SPENDS]
    ended = subprocess.run(spends, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == -signal.SIGPROF
    assert float(ended.stdout.split()[-1]) < 0.3


def test_a_mail_that_takes_too_much_memory_is_unscannable():
    wrapped, good = scanned(slow_mail(), GOOD, memory=50 << 20)
    assert wrapped.content.unscannable == "the parser died on it: it took too much memory"
    assert good.content.unscannable == ""


def test_an_idle_worker_that_is_killed_costs_no_mail():
    async def kill_worker(sandbox):
        worker = sandbox._places.take_free()
        os.kill(worker.pid, signal.SIGKILL)
        sandbox._places.give_back(worker)
        await asyncio.sleep(0.05)

    assert [answer.content.unscannable for answer in scanned(GOOD, GOOD, meddle=kill_worker)] == ["", ""]


def test_the_parent_of_the_workers_is_replaced_when_it_is_killed():
    async def kill_parent(sandbox):
        os.kill(sandbox._nursery._process.pid, signal.SIGKILL)
        worker = sandbox._places.take_free()
        os.kill(worker.pid, signal.SIGKILL)
        sandbox._places.give_back(worker)
        await asyncio.sleep(0.05)

    assert [answer.content.unscannable for answer in scanned(GOOD, GOOD, meddle=kill_parent)] == ["", ""]


def test_a_sandbox_keeps_its_places_when_the_parent_of_the_workers_dies():
    async def run():
        sandbox = await Sandbox(policies(), 3).start()
        os.kill(sandbox._nursery._process.pid, signal.SIGKILL)
        await asyncio.sleep(0.05)
        with spooled(GOOD) as file:
            answer = await sandbox.scan(MAIL, file)
        async with asyncio.timeout(10):
            await sandbox.retire()
        return answer.content.unscannable, sandbox._places.free

    assert asyncio.run(run()) == ("", 3)


@contextmanager
def no_descriptors(pid):
    """This process can open nothing more."""
    free = next(number for number in count() if not os.path.lexists(f"/proc/{pid}/fd/{number}"))
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("whose", ["the parent of the workers", "the gateway"])
def test_without_a_free_descriptor_nobody_can_tell_and_then_again_somebody_can(whose):
    async def run():
        sandbox = await Sandbox(policies(), 2).start()
        parent = sandbox._nursery._process.pid
        with spooled(GOOD) as file:
            with no_descriptors(parent if whose != "the gateway" else os.getpid()), pytest.raises(Temporary):
                await sandbox.scan(MAIL, file)
            answer = await sandbox.scan(MAIL, file)
        same = sandbox._nursery._process.pid == parent
        await sandbox.close()
        return answer.content.unscannable, same

    assert asyncio.run(run()) == ("", True), "what is at work beside it must not die of it"


def test_where_no_process_can_be_forked_the_gateway_is_told_so(monkeypatch):
    def fork():
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(confined.os, "fork", fork)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        confined._answer(theirs, confined.Workers(confined.Task(Content.Settings(), []), 0, confined._serve))
        head, fds, _, _ = socket.recv_fds(ours, 64, 1)
    assert (head, fds) == (FRAME.pack(0), [])
    assert signal.SIGCHLD not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_where_nothing_can_be_started_nobody_can_tell_and_then_again_somebody_can():
    async def run():
        sandbox = Sandbox(policies(), 1)
        with spooled(GOOD) as file:
            with no_descriptors(os.getpid()), pytest.raises(Temporary):
                await sandbox.scan(MAIL, file)
            answer = await sandbox.scan(MAIL, file)
        await sandbox.close()
        return answer.content.unscannable

    assert asyncio.run(run()) == ""


@pytest.mark.parametrize("lie", [{"spf": [Finding("pass")]}, {"attachments": [Finding("pass")]}])
def test_a_worker_that_speaks_for_another_filter_is_not_believed(lie):
    sandbox = Sandbox(policies(), 1)
    with pytest.raises(LookupError):
        sandbox._checked(Scanned(found={name: tuple(findings) for name, findings in lie.items()}))


def test_workers_run_under_limits():
    async def run():
        sandbox = await Sandbox(policies(), 1).start()
        with spooled(GOOD) as file:
            await sandbox.scan(MAIL, file)
        worker = sandbox._places.take_free()
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        fds = [os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")]
        sandbox._places.give_back(worker)
        await sandbox.close()
        return {line[:25].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}, fds

    limits, fds = asyncio.run(run())
    assert limits["Max file size"] == limits["Max core file size"] == limits["Max processes"] == "0"
    assert limits["Max data size"] == str(176 << 20)
    assert sum("socket" in target for target in fds) == 1, "a worker holds its own socket and no other"


def test_nothing_is_left_when_a_sandbox_is_closed():
    async def run():
        sandbox = await Sandbox(policies(), 2).start()
        with spooled(GOOD) as file:
            await asyncio.gather(*(sandbox.scan(MAIL, file) for _ in range(8)))
        pids = [worker.pid for worker in sandbox._places._free if worker]
        await sandbox.close()
        await asyncio.sleep(0.2)
        return pids

    pids = asyncio.run(run())
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_mails_that_wait_for_a_sandbox_that_retires_are_judged_and_leave_nothing_behind():
    async def run():
        sandbox = await Sandbox(policies(), 1).start()
        with spooled(GOOD) as file:
            waiting = [asyncio.create_task(sandbox.scan(MAIL, file)) for _ in range(12)]
            await asyncio.sleep(0)
            await sandbox.retire()
            answers = await asyncio.gather(*waiting)
        assert [one.content.subject for one in answers] == ["hi"] * 12
        assert sandbox._nursery is None

    asyncio.run(run())

"""The confined workers: what they answer, what they may not do, and that their death costs one mail only."""

import asyncio
import base64
import errno
import os
import resource
import signal
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from ipaddress import ip_address
from itertools import count
from pathlib import Path

import pytest

from gateway.model import Finding, Mail, Session, Temporary
from gateway.pipeline import confined, policy
from gateway.pipeline.confined import Scanned
from gateway.pipeline.policy import Policies
from gateway.pipeline.sandbox import Sandbox
from gateway.stages import Content, Stages

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

    return reduce(wrap, range(42), b"x")


GOOD = b"From: a@b.example\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\nSubject: hi\r\n\r\nhello\r\n"


def test_a_worker_answers_with_content_and_findings_of_the_pure_filters():
    bad = b"From: a@b.example\r\nContent-Disposition: attachment; filename=run.exe\r\n\r\nMZ"
    good, worse = scanned(GOOD, bad)
    assert good.content.subject == "hi"
    assert [finding.code for finding in worse.found["attachments"]] == ["executable"]
    assert "attachments" not in good.found


def test_text_of_parts_stays_in_the_worker():
    assert [part.text for part in scanned(GOOD)[0].content.parts] == [""]


def test_a_mail_that_takes_too_long_is_unscannable_and_the_next_one_is_not():
    slow, good = scanned(slow_mail(), GOOD, timeout=0.1, memory=512 << 20)
    assert slow.content.unscannable == "the parser died on it: it took too long"
    assert good.content.unscannable == ""
    assert slow.content.size == len(slow_mail())


def test_a_mail_that_takes_too_much_memory_is_unscannable():
    wrapped, good = scanned(slow_mail(), GOOD, memory=50 << 20)
    assert wrapped.content.unscannable == "the parser died on it: it took too much memory"
    assert good.content.unscannable == ""


def test_an_idle_worker_that_is_killed_costs_no_mail():
    async def kill_worker(sandbox):
        worker = sandbox._places.get_nowait()
        os.kill(worker.pid, signal.SIGKILL)
        sandbox._places.put_nowait(worker)
        await asyncio.sleep(0.05)

    assert [answer.content.unscannable for answer in scanned(GOOD, GOOD, meddle=kill_worker)] == ["", ""]


def test_the_parent_of_the_workers_is_replaced_when_it_is_killed():
    async def kill_parent(sandbox):
        os.kill(sandbox._nursery._process.pid, signal.SIGKILL)
        worker = sandbox._places.get_nowait()
        os.kill(worker.pid, signal.SIGKILL)
        sandbox._places.put_nowait(worker)
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
        return answer.content.unscannable, sandbox._places.qsize()

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
    assert (head, fds) == (confined.FRAME.pack(0), [])
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
        worker = sandbox._places.get_nowait()
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        fds = [os.readlink(f"/proc/{worker.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{worker.pid}/fd")]
        sandbox._places.put_nowait(worker)
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
        pids = [worker.pid for worker in sandbox._places._queue if worker]
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

"""The benchmark measures what it says: real messages reach the peer whole, and every stack accepts every mail."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.model import Action
from gateway.pipeline import policy
from tests import packed
from tests.bench import authentication, content, corpus, load, stacks, usage
from tests.peers import smtp_sink


def _load(tmp_path: Path, messages: Sequence[bytes], *options: object) -> dict[str, Any]:
    load.write(tmp_path / "messages", messages)
    argv = [sys.executable, "-m", "tests.bench.load", "--messages", str(tmp_path / "messages"), *map(str, options)]
    done = subprocess.run(argv, cwd=stacks.ROOT, capture_output=True, check=True, timeout=30)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_generator_sends_each_message_unchanged(tmp_path: Path) -> None:
    messages = [b".dot\r\n..\r\n.\r\nend\r\n", b"Subject: x\r\n\r\n" + b"\xff\r\n" * 9000, b"a\r\n"]
    with smtp_sink.run() as sink:
        result = _load(tmp_path, messages, "--port", sink.port, "--concurrency", 2, "--per-connection", 2)
        arrived = sink.wait_received(3)
    assert result["replies"] == {"250": 3}
    assert len(result["seconds"]) == 3
    assert 0 < result["end"] - result["begin"] < 30
    assert sorted(one.raw.replace(b"\n", b"\r\n") for one in arrived) == sorted(messages)


def test_the_generator_tells_refusals_and_goes_on(tmp_path: Path) -> None:
    with smtp_sink.run(soft=["RCPT"]) as sink:
        result = _load(tmp_path, [b"x\r\n"] * 3, "--port", sink.port, "--no-pipelining", "--concurrency", 1)
    assert result["replies"] == {"Refused 450": 3}
    assert result["seconds"] == []


def test_all_that_a_filter_finds_is_accepted(tmp_path: Path) -> None:
    stacks.write_config(tmp_path, stacks.Size(1, 1), 9, 53, stacks.looking(Path("/nowhere")))
    policies = policy.load(tmp_path / "policies", None)
    effects = [effect for one in policies.by_name.values() for effect in one.rules[-1].actions.values()]
    assert len(effects) > 30
    assert set(effects) == {Action.ACCEPT}


def test_every_filter_looks_at_mail_from_loopback_or_none_at_all(tmp_path: Path) -> None:
    stacks.write_config(tmp_path, stacks.Size(1, 1), 9, 53, stacks.looking(Path("/nowhere")))
    loaded = policy.load(tmp_path / "policies", None).by_name
    assert {*stacks.FILTERS} == loaded.keys()
    assert [name for name, one in loaded.items() if json.loads(one.settings).get("own_relays")] == []
    other = tmp_path / "other"
    other.mkdir()
    stacks.write_config(other, stacks.Size(1, 1), 9, 53, dict.fromkeys(stacks.FILTERS, stacks.OFF))
    assert policy.load(other / "policies", None).by_name == {}


def test_messages_get_the_line_ends_of_the_wire() -> None:
    assert corpus.on_the_wire(b"From me\nA: b\r\n\nx\ry") == b"A: b\r\n\r\nx\r\ny\r\n"
    assert not corpus.usable(b"x" * 999 + b"\r\n")
    assert not corpus.usable(b"\0\r\n")
    assert corpus.usable(b"x" * 998 + b"\r\n")


def test_made_up_mail_is_as_large_as_real_mail() -> None:
    sizes = sorted(len(corpus._made_up(random.Random(seed))) for seed in range(500))
    assert 3_000 < sizes[250] < 8_000
    assert sum(sizes) / 500 > 8_000


def test_the_cpu_time_of_ended_children_counts() -> None:
    before = usage.cpu(os.getpid())
    spin = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert 0.25 < usage.cpu(os.getpid()) - before < 3
    assert usage.memory(os.getpid()) > 5
    assert usage.busy() > 0
    usage.settle(os.getpid(), quiet=0.05, within=0.2)


def test_dkim_is_measured_on_signatures_that_hold_for_both() -> None:
    costs = authentication.measure(corpus_of_two(), 1)
    assert [one.name for one in costs] == ["middle size", "all"]
    whole = costs[1]
    assert whole.count == 5
    assert 0 < whole.arithmetic < whole.verify < 100
    assert 0 < whole.signing < whole.sign < 100
    assert 0 < whole.theirs_verify < 100
    assert 0 < whole.theirs_sign < 100
    assert len(authentication.told(costs)) == 4


def corpus_of_two() -> list[bytes]:
    """Five mails of two kinds, and one that nobody signs."""
    listed = (
        b"Received: by a\r\n\tfor b\r\nFrom: x@y.example\r\nTo: z@y.example\r\nList-Id: <l>\r\n\r\nhello  list\r\n\r\n"
    )
    plain = b"From: x@y.example\r\nDKIM-Signature: v=1; old\r\nSubject: a  b\r\n\r\n" + b"line\r\n" * 20000
    return [listed, plain, listed, plain, listed, b"no header at all\r\n"]


def test_each_step_on_content_is_measured_and_archives_are_known() -> None:
    messages = [b"Subject: x\r\n\r\nhello\r\n", packed.mail(packed.zipped({"a.txt": b"hello"}), "a.zip")]
    steps, archives = content.by_step(policy.load(None, None), messages)
    assert steps.keys() == {"parser", *(one.name for one in policy.load(None, None).pure)}
    assert steps["parser"] > 0
    assert archives == [1]
    told = content.told(content.Costs([1.0, 5.0, float("inf"), 3.0], [2.0] * 4, steps, archives))
    assert "Gatepost, without archives (2)" in told[1]
    assert told[1].split()[-3:-1] == ["2.000", "2.000"]

"""What it costs to parse a mail and to ask the filters on content: the confined worker, beside rspamd, message by message.

Ours is a real worker of the sandbox with the shipped policies; rspamd is a real worker without what asks the network, a
database or signatures. Each figure is the CPU of the worker alone for one message, the median of all rounds; both get
the same messages in the same run. No time is ever asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from statistics import mean, median, quantiles

from gateway.model import Content, Envelope, ListenerKind, Mail, Recipient, Session, new_id
from gateway.pipeline import content as parser
from gateway.pipeline import policy
from gateway.pipeline.policy import Policies
from gateway.pipeline.sandbox import Sandbox
from gateway.pipeline.tray import Tray
from tests.bench import corpus, usage
from tests.peers import processes

LIMIT = 2.0
"""ms of CPU that the median message without archives may cost us."""
ROUNDS, COUNT = 3, 300
"""Rounds of which the medians are shown, and messages."""
PEER = "203.0.113.9"
SESSION = Session(ip_address(PEER), "mx", ListenerKind.MX, "load.example")
ENVELOPE = Envelope("writer@load.example", (Recipient("reader@sink.example"),))

RSPAMD = """
.include "/etc/rspamd/common.conf"
options {{
    .include "/etc/rspamd/options.inc"
    filters = "chartable,regexp";
    dns {{ nameserver = ["127.0.0.1:9"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "error"; }}
worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}
"""
ASKING = (
    *("antivirus", "arc", "asn", "aws_s3", "bimi", "clickhouse", "dcc", "dkim", "dkim_signing", "dmarc", "elastic"),
    *("external_services", "fuzzy_check", "greylist", "history_redis", "metadata_exporter", "metric_exporter"),
    *("multimap", "mx_check", "neural", "p0f", "ratelimit", "rbl", "redis", "replies", "reputation", "rspamd_update"),
    *("spamassassin", "spf", "surbl", "url_redirector", "whitelist"),
)
"""Modules of rspamd that ask others, keep state, or do what we do elsewhere."""


@dataclass(frozen=True)
class Costs:
    """ms of CPU of each message, ours and theirs in the same order, and the mean of each of our steps.

    `archives` are the numbers of the messages that hold an archive.
    """

    ours: Sequence[float]
    theirs: Sequence[float]
    steps: Mapping[str, float]
    archives: Sequence[int]


# ---- Ours ----------------------------------------------------------------------------------------------------------


def pids(part: str) -> list[int]:
    """Our descendants that are of that *part*."""
    return [pid for pid in usage.tree(os.getpid()) if usage.part(pid) == part]


def used(of: Sequence[int]) -> float:
    """Seconds of CPU of these processes."""
    return sum(map(usage.precise, of))


async def scanned(policies: Policies, messages: Sequence[bytes]) -> list[float]:
    """ms of CPU that the worker takes for each of *messages*; infinite where it was its last."""
    sandbox = await Sandbox(policies, 1).start()
    try:
        await _scan(sandbox, messages[0])  # what a worker does once
        return [await _one(sandbox, message) for message in messages]
    finally:
        await sandbox.close()


async def _one(sandbox: Sandbox, message: bytes) -> float:
    there = pids("confined")
    before = used(there)
    await _scan(sandbox, message)
    return (used(there) - before) * 1000 if pids("confined") == there else float("inf")


async def _scan(sandbox: Sandbox, message: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(message)
        file.flush()
        answer = await sandbox.scan(Mail(new_id(), SESSION, ENVELOPE), file)
    if answer.taken is not None:
        answer.taken.close()


def by_step(policies: Policies, messages: Sequence[bytes]) -> tuple[dict[str, float], list[int]]:
    """ms of CPU of the parser and of each pure filter, the mean of *messages*; and which of them hold archives."""
    tray, steps, archives = Tray(), defaultdict[str, float](float), []
    parser.prepare()
    filters = {one.name: policy.made_pure(_module(one.name), _settings(one), tray) for one in policies.pure}
    for number, message in enumerate(messages):
        tray.clear()
        began = time.process_time()
        content = parser.parse(message, policies.stages.content.settings, tray)
        steps["parser"] += time.process_time() - began
        archives += [number] if any("/" in part.path for part in content.parts) else []
        _ask(filters, content, steps)
    return {name: spent / len(messages) * 1000 for name, spent in steps.items()}, archives


def _ask(filters: Mapping[str, object], content: Content, steps: dict[str, float]) -> None:
    mail = replace(Mail(new_id(), SESSION, ENVELOPE), content=content)
    for name, one in filters.items():
        began = time.process_time()
        one.check(mail, {})  # type: ignore[attr-defined]
        steps[name] += time.process_time() - began


def _module(name: str) -> object:
    module = __import__(f"filters.{name}", fromlist=["Filter"])
    getattr(module, "prepare", lambda: None)()
    return module


def _settings(one: policy.Policy) -> object:
    return policy.build_settings(_module(one.name).Settings, one.settings)  # type: ignore[attr-defined]


# ---- rspamd --------------------------------------------------------------------------------------------------------


@contextmanager
def rspamd(home: Path) -> Iterator[tuple[int, processes.Process]]:
    """An rspamd with one worker, and its port."""
    processes.require("rspamd")
    port = processes.free_port()
    (home / "rspamd.conf").write_text(RSPAMD.format(port=port))
    (home / "local/override.d").mkdir(parents=True)
    for module in ASKING:
        (home / f"local/override.d/{module}.conf").write_text("enabled = false;\n")
    argv: list[str | Path] = ["rspamd", "-i", "-f", "-u", "root", "-g", "root", "-c", home / "rspamd.conf"]
    argv += [
        f"--var={name}={home / place}" for name, place in {"DBDIR": "", "RUNDIR": "", "LOCAL_CONFDIR": "local"}.items()
    ]
    with processes.running(argv, home, lambda: processes.listening(port), within=40) as process:
        usage.settle(process.pid, quiet=1.0, within=40)  # it compiles its expressions
        yield port, process


def checked(port: int, process: processes.Process, messages: Sequence[bytes]) -> list[float]:
    """ms of CPU that rspamd takes for each of *messages*."""
    there = usage.tree(process.pid)
    connection = http.client.HTTPConnection(processes.HOST, port, timeout=30)
    return [_check(connection, there, message) for message in [messages[0], *messages]][1:]


def _check(connection: http.client.HTTPConnection, there: Sequence[int], message: bytes) -> float:
    before = used(there)
    fields = {"IP": PEER, "Helo": "load.example", "From": ENVELOPE.sender, "Rcpt": ENVELOPE.recipients[0].address}
    connection.request("POST", "/checkv2", message, fields)
    answer = json.loads(connection.getresponse().read())
    if "symbols" not in answer:
        raise RuntimeError(f"rspamd: {answer}")
    return (used(there) - before) * 1000


# ---- Measuring -----------------------------------------------------------------------------------------------------


def measure(messages: Sequence[bytes], rounds: int) -> Costs:
    """Both in turn, *rounds* times; the median of each message."""
    policies = policy.load(None, None)
    with processes.workspace("bench-content") as home, rspamd(home) as (port, process):
        ours, theirs = [], []
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            ours.append(asyncio.run(scanned(policies, messages)))
            theirs.append(checked(port, process, messages))
    steps, archives = by_step(policies, messages)
    return Costs(_medians(ours), _medians(theirs), steps, archives)


def _medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [median(one) for one in zip(*rounds, strict=True)]


# ---- Telling -------------------------------------------------------------------------------------------------------


def told(costs: Costs) -> list[str]:
    """A table as lines."""
    plain = [number for number in range(len(costs.ours)) if number not in set(costs.archives)]
    lines = [f"{'parser and filters on content, ms of CPU':44}{'median':>9}{'mean':>9}{'p95':>9}"]
    for name, some in {"without archives": plain, "all": range(len(costs.ours))}.items():
        for whose, each in {"Gatepost": costs.ours, "rspamd": costs.theirs}.items():
            values = [each[number] for number in some if each[number] < float("inf")]
            figures = median(values), mean(values), quantiles(values, n=20)[-1]
            lines.append(f"{f'{whose}, {name} ({len(values)})':44}" + "".join(f"{one:9.3f}" for one in figures))
    steps = sorted(costs.steps.items(), key=lambda item: -item[1])
    lines.append("means of the steps: " + ", ".join(f"{name} {spent:.3f}" for name, spent in steps))
    return [*lines, f"Limit of the first figure: {LIMIT}."]


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.bench.content", description=__doc__)
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    arguments.add_argument("--count", type=int, default=COUNT, help="messages")
    arguments.add_argument("--rounds", type=int, default=ROUNDS, help="of which the medians are shown")
    arguments.add_argument("--seed", type=int, default=1, help="of the sample of messages")
    args = arguments.parse_args()
    sample = corpus.sample(args.count, args.seed)
    costs = measure(sample.messages, args.rounds)
    print("\n".join([sample.origin, *told(costs)]))
    if args.json:
        args.json.write_text(json.dumps(asdict(costs), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

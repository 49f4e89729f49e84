"""The attempts of `gatepost doctor sandbox` without its sandbox: what would be possible, and what one layer alone denies.

Run as a program: JSON on standard input says what to try under which layer ("", "landlock" or "seccomp"), and standard
output says what came of each, one a line. Each attempt has a process of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from gateway.pipeline import confinement, landlock, seccomp, trial
from gateway.pipeline.escapes import ATTEMPTS, POSSIBLE, Targets, outcome

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"": lambda: None, "landlock": landlock.apply, "seccomp": lambda: seccomp.apply(parent=False)}


def outcomes(names: Iterable[str], layer: str = "") -> dict[str, str]:
    """What came of each attempt: "possible", the name of an error, or "signal 31" and the like."""
    with trial._targets(None, None) as targets, tempfile.TemporaryFile() as message:
        message.write(b"Subject: trial\r\n\r\n")
        message.flush()
        wishes = asdict(targets) | {"message": message.fileno(), "gateway": os.getpid()}
        done = subprocess.run(
            [sys.executable, "-m", "tests.peers.unconfined"],
            input=json.dumps({"names": sorted(names), "layer": layer, "targets": wishes}),
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            pass_fds=[message.fileno()],
            timeout=60,
            check=True,
        )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def main() -> None:
    """Try what standard input names."""
    order = json.loads(sys.stdin.read())
    targets = Targets(**order["targets"])
    for name in order["names"]:
        told, ours = os.pipe()
        if (pid := os.fork()) == 0:
            _try(name, order["layer"], targets, ours)
        os.close(ours)
        with open(told, encoding="ascii") as answers:
            answer = answers.read()
        status = os.waitpid(pid, 0)[1]
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else answer or POSSIBLE  # it became /bin/true
        print(f"{name}={how}", flush=True)


def _try(name: str, layer: str, targets: Targets, answers: int) -> None:
    confinement._give_up_privileges() if layer else None
    LAYERS[layer]()
    os.write(answers, outcome(ATTEMPTS[name], targets).encode())
    os._exit(0)


if __name__ == "__main__":
    main()

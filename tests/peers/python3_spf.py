"""python3-spf of Debian, in Debian's Python, asking a name server that a test runs: what others make of SPF records."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.peers import processes

PYTHON = "/usr/bin/python3"

SCRIPT = """
import json, sys
try:
    import spf
except ImportError:
    sys.exit(3)

def ask(port):
    if hasattr(spf, "DNS"):
        spf.DNS.defaults.update(server=["127.0.0.1"], port=port)
    else:
        resolver = spf.dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], port
        spf.dns.resolver.default_resolver = resolver

def result(triple):
    try:
        return spf.check2(*triple, querytime=5)[0]
    except Exception as error:
        return type(error).__name__

given = json.load(sys.stdin)
ask(given["port"])
json.dump([result((ip, sender, helo)) for ip, helo, sender in given["triples"]], sys.stdout)
"""


class Triple(NamedTuple):
    """Who sends: the address of the peer, its HELO, and MAIL FROM (empty: a bounce)."""

    ip: str
    helo: str
    sender: str


def results(port: int, triples: Sequence[Triple], home: Path) -> list[str]:
    """The result for each of *triples* with the DNS on *port* of loopback; the name of an exception where it raised one."""
    given = json.dumps({"port": port, "triples": triples}).encode()
    if not Path(PYTHON).exists():
        processes.unavailable(f"needs {PYTHON}")
    done = processes.complete([PYTHON, "-W", "ignore", "-c", SCRIPT], home, stdin=given)
    if done.code == 3:
        processes.unavailable("needs python3-spf: see tests/packages.debian")
    if done.code != 0:
        raise RuntimeError(f"python3-spf failed:\n{done.text}")
    found: list[str] = json.loads(done.stdout)
    return found

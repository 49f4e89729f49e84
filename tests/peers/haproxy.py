"""HAProxy in front of ports of loopback: it says by the PROXY protocol whom it brings."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.peers import processes

CONFIG = """
global
    maxconn 500

defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""

PAIR = """
listen to{port}
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{backend} {word}
"""


@contextmanager
def run(backends: Mapping[int, str]) -> Iterator[dict[int, int]]:
    """Stand before each port of *backends* and say "send-proxy" or "send-proxy-v2"; yields our port for each of theirs."""
    processes.require("haproxy")
    ports = {backend: processes.free_port() for backend in backends}
    pairs = [PAIR.format(port=ports[backend], backend=backend, word=word) for backend, word in backends.items()]
    with processes.workspace("haproxy") as home:
        (home / "haproxy.cfg").write_text(CONFIG + "".join(pairs))
        argv = ["haproxy", "-db", "-f", str(home / "haproxy.cfg")]
        with processes.running(argv, home, lambda: all(map(processes.listening, ports.values()))):
            yield ports

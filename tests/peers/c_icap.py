"""c-icap (Debian): the echo service, and virus_scan with a clamd behind it, on loopback."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes

MODULES = "c_icap"

CONFIG = """
PidFile {home}/pid
CommandsSocket {home}/ctl
Port {host}:{port}
TmpDir {home}
ModulesDir {modules}
ServicesDir {modules}
TemplateDir /usr/share/c_icap/templates/
LoadMagicFile /etc/c-icap/c-icap.magic
ServerLog {home}/server.log
AccessLog {home}/access.log
StartServers 1
MaxServers 1
ThreadsPerChild 10
MinSpareThreads 1
MaxSpareThreads 10
Service echo srv_echo.so
Service virus_scan virus_scan.so
ServiceAlias avscan virus_scan?allow204=on&sizelimit=off&mode=simple
virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE
virus_scan.MaxObjectSize 50M
virus_scan.DefaultEngine clamd
Module common clamd_mod.so
clamd_mod.ClamdSocket {clamd}
"""


@dataclass(frozen=True)
class CIcap:
    """A running c-icap."""

    port: int
    process: processes.Process

    def url(self, service: str) -> str:
        return f"icap://{processes.HOST}:{self.port}/{service}"


@contextmanager
def run(clamd: Path) -> Iterator[CIcap]:
    """A c-icap that asks the clamd at the unix socket *clamd*, which runs already."""
    processes.require("c-icap")
    port = processes.free_port()
    with processes.workspace("c-icap") as home:
        (modules,) = Path("/usr/lib").glob(f"*/{MODULES}")
        config = home / "c-icap.conf"
        config.write_text(CONFIG.format(home=home, host=processes.HOST, port=port, modules=modules, clamd=clamd))
        argv = ["c-icap", "-N", "-f", str(config)]
        with processes.running(argv, home, lambda: processes.listening(port)) as process:
            yield CIcap(port, process)

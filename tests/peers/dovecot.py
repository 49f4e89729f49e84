"""Dovecot's POP3 server: what the fetching clients are proved against, and what ours is compared with."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes
from tests.peers.certificates import Certificate

CONFIG = """
base_dir = {home}/run
state_dir = {home}/state
log_path = /dev/stderr
protocols = pop3
listen = {host}
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
default_internal_user = dovecot
default_login_user = dovenull
mail_location = maildir:{home}/mail/%u
first_valid_uid = 1
mail_uid = nobody
mail_gid = nogroup
passdb {{
  driver = passwd-file
  args = {home}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={home}/mail/%u
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {port}
  }}
  inet_listener pop3s {{
    port = {tls_port}
  }}
}}
service anvil {{
  chroot =
}}
service stats {{
  chroot =
}}
"""


@dataclass(frozen=True)
class Dovecot:
    """A running POP3 server: STLS on `port`, TLS from the first byte on `tls_port`."""

    port: int
    tls_port: int
    directory: Path
    process: processes.Process
    host: str = processes.HOST

    def put(self, user: str, name: str, raw: bytes) -> None:
        """A new mail in the user's maildir; POP3 lists them in the order of their names."""
        new = self.directory / "mail" / user / "new"
        temporary = new.parent / "tmp" / name
        temporary.write_bytes(raw)
        shutil.chown(temporary, "nobody", "nogroup")
        temporary.rename(new / name)

    def log(self) -> str:
        return self.process.output()


@contextmanager
def run(users: Mapping[str, str], certificate: Certificate) -> Iterator[Dovecot]:
    """A Dovecot with these users (name: password), each with an empty maildir."""
    processes.require_root("Dovecot")
    processes.require("dovecot", "/usr/lib/dovecot/pop3")
    with processes.workspace("dovecot") as home:
        port, tls_port = processes.free_port(), processes.free_port()
        config = home / "dovecot.conf"
        values = {"home": home, "host": processes.HOST, "port": port, "tls_port": tls_port}
        config.write_text(CONFIG.format(**values, certificate=certificate.certificate, key=certificate.key))
        (home / "users").write_text("".join(f"{name}:{{PLAIN}}{password}\n" for name, password in users.items()))
        _make_maildirs(home / "mail", users)
        argv: list[str | Path] = ["dovecot", "-F", "-c", config]
        with processes.running(argv, home, lambda: all(map(processes.listening, (port, tls_port)))) as process:
            yield Dovecot(port, tls_port, home, process)


def _make_maildirs(mail: Path, users: Mapping[str, str]) -> None:
    for directory in (mail / user / part for user in users for part in ("cur", "new", "tmp")):
        directory.mkdir(parents=True)
    for path in (mail, *mail.rglob("*")):
        shutil.chown(path, "nobody", "nogroup")
        os.chmod(path, 0o700)

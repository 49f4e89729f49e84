"""Postfix: a private instance that keeps the mail of its domains in a maildir and sends all else to its relayhost.

Nothing of the machine's own configuration is read or changed; without a relayhost no mail can leave the instance.
"""

import json
import os
import pwd
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.peers import processes
from tests.peers.certificates import Certificate

MASTER = "/usr/lib/postfix/sbin/master"
OWNER = "nobody"  # of the mail that is kept

# service, type, private, unprivileged, chroot, wakeup, limit, program: what a mail needs, and nothing else
SERVICES = """
{host}:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")


@dataclass(frozen=True)
class Postfix:
    """A running Postfix that takes SMTP on `host:port`."""

    port: int
    directory: Path
    process: processes.Process
    host: str = processes.HOST

    def received(self) -> list[bytes]:
        """Each kept copy, one for each recipient, oldest first: LF, under Postfix's own Return-Path, X-Original-To,
        Delivered-To and Received."""
        new = self.directory / "mail/inbox/new"
        files = sorted(new.iterdir(), key=lambda path: path.stat().st_mtime_ns) if new.exists() else []
        return [path.read_bytes() for path in files]

    def wait_received(self, count: int, within: float = 15.0) -> list[bytes]:
        """All copies as soon as there are at least `count`; raises Late with Postfix's log."""
        try:
            processes.wait_until(lambda: len(self.received()) >= count, within, f"{count} mails in Postfix")
        except processes.Late as late:
            raise processes.Late(f"{late}; it logged:\n{self.log()}") from None
        return self.received()

    def send(self, sender: str, recipients: Sequence[str], raw: bytes) -> None:
        """Queue a message by sendmail(1), as programs on a mail server do; raises RuntimeError if it is not taken."""
        self._run("sendmail", "-C", self._config, "-i", "-f", sender, "--", *recipients, stdin=raw)

    def queue(self) -> list[dict[str, Any]]:
        """What waits, as postqueue(1) -j tells it: queue_name, sender, recipients with delay_reason."""
        return [json.loads(line) for line in self._run("postqueue", "-c", self._config, "-j").stdout.splitlines()]

    def flush(self) -> None:
        """Try everything that waits, now."""
        self._run("postqueue", "-c", self._config, "-f")

    def log(self) -> str:
        log = self.directory / "mail.log"
        return (log.read_text("utf-8", "replace") if log.exists() else "") + self.process.output()

    @property
    def _config(self) -> Path:
        return self.directory / "etc"

    def _run(self, *argv: str | Path, stdin: bytes = b"") -> processes.Output:
        done = processes.complete(argv, self.directory, stdin=stdin)
        if done.code != 0:
            raise RuntimeError(f"{argv[0]} failed:\n{done.text}{self.log()}")
        return done


@contextmanager
def run(
    domains: Sequence[str] = (),
    *,
    relayhost: tuple[str, int] | None = None,
    relay_login: tuple[str, str] | None = None,
    tls: Certificate | None = None,
    users: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Postfix]:
    """A Postfix that keeps all mail for `domains` and hands all other mail to `relayhost` (without one: bounces it).

    `tls` offers STARTTLS. `users` (name: password) offers AUTH PLAIN and LOGIN and relays only for those who used it.
    `relay_login` is (name, password) for the relayhost. `settings` go into main.cf last.
    """
    processes.require_root("Postfix")
    processes.require(MASTER, "postqueue", "sendmail", *(["saslpasswd2"] if users else []))
    with processes.workspace("postfix") as home:
        port = processes.free_port()
        main = _main(home, domains) | _way_out(relayhost, relay_login) | _tls(home, tls) | _login(home, users)
        _write_config(home, port, main | dict(settings or {}))
        _make_directories(home)
        argv: list[str | Path] = [MASTER, "-s", "-c", home / "etc"]
        with processes.running(argv, home, lambda: _is_up(home, port)) as process:
            yield Postfix(port, home, process)


def _is_up(home: Path, port: int) -> bool:
    """The queue manager opens its trigger after the listener; a mail sent before would wait for the next scan."""
    return processes.listening(port) and (home / "queue/public/qmgr").exists()


def _main(home: Path, domains: Sequence[str]) -> dict[str, str]:
    owner = pwd.getpwnam(OWNER)
    return {
        "compatibility_level": "3.6",
        "queue_directory": f"{home}/queue",
        "data_directory": f"{home}/data",
        "maillog_file": f"{home}/mail.log",
        "maillog_file_prefixes": str(home),
        "myhostname": "postfix.peer.example",
        "mydestination": "",
        "alias_maps": "",
        "alias_database": "",
        "local_recipient_maps": "",
        "local_transport": "error:5.1.1 no local mail",
        "inet_interfaces": processes.HOST,
        "inet_protocols": "ipv4",
        "mynetworks": "127.0.0.0/8",
        "smtpd_peername_lookup": "no",
        "smtp_dns_support_level": "disabled",
        "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
        "message_size_limit": "0",
        "mailbox_size_limit": "0",
        "virtual_mailbox_limit": "0",
        "virtual_mailbox_domains": ", ".join(domains),
        "virtual_mailbox_base": f"{home}/mail",
        "virtual_mailbox_maps": "static:inbox/",
        "virtual_minimum_uid": "1",
        "virtual_uid_maps": f"static:{owner.pw_uid}",
        "virtual_gid_maps": f"static:{owner.pw_gid}",
        "smtputf8_enable": "yes",
        "notify_classes": "",
        "local_header_rewrite_clients": "",  # adds no Date, From or Message-Id to what comes by SMTP
    }


def _way_out(relayhost: tuple[str, int] | None, login: tuple[str, str] | None) -> dict[str, str]:
    if relayhost is None:
        return {"default_transport": "error:5.4.4 this Postfix sends nothing onwards"}
    host, port = relayhost
    main = {"relayhost": f"[{host}]:{port}", "smtp_tls_security_level": "may", "smtp_host_lookup": "native"}
    if login:
        main |= {
            "smtp_sasl_auth_enable": "yes",
            "smtp_sasl_security_options": "noanonymous",
            "smtp_sasl_password_maps": f"inline:{{ {{ [{host}]:{port} = {login[0]}:{login[1]} }} }}",
        }
    return main


def _tls(home: Path, tls: Certificate | None) -> dict[str, str]:
    """smtpd reads the files before it drops root, so they may lie where only root may read."""
    if tls is None:
        return {}
    return {
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(tls.certificate),
        "smtpd_tls_key_file": str(tls.key),
        "smtpd_tls_received_header": "yes",
        "smtpd_tls_session_cache_database": "",
    }


def _login(home: Path, users: Mapping[str, str] | None) -> dict[str, str]:
    if not users:
        return {}
    sasl = home / "etc/sasl"  # where Debian's Postfix looks
    sasl.mkdir(parents=True)
    database = sasl / "users.db"
    for name, password in users.items():
        argv: list[str | Path] = ["saslpasswd2", "-p", "-c", "-f", database, "-u", "postfix.peer.example", name]
        done = processes.complete(argv, home, stdin=password.encode())
        if done.code != 0:
            raise RuntimeError(f"saslpasswd2 failed:\n{done.text}")
    database.chmod(0o644)
    lines = ["pwcheck_method: auxprop", "auxprop_plugin: sasldb", f"sasldb_path: {database}", "mech_list: PLAIN LOGIN"]
    (sasl / "smtpd.conf").write_text("\n".join(lines) + "\n")
    return {
        "smtpd_sasl_auth_enable": "yes",
        "smtpd_sasl_local_domain": "postfix.peer.example",
        "smtpd_sasl_security_options": "noanonymous",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
    }


def _write_config(home: Path, port: int, main: Mapping[str, str]) -> None:
    etc = home / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
    (etc / "master.cf").write_text(SERVICES.format(host=processes.HOST, port=port))
    # A main.cf younger than two seconds might still be in the making: each daemon would wait for it to grow older.
    os.utime(etc / "main.cf", (0, 0))


def _make_directories(home: Path) -> None:
    """What `postfix start` would make, with owners and modes of Postfix's own list (postfix-files), only quicker."""
    queue = home / "queue"
    for directory in (queue, queue / "pid"):
        directory.mkdir()
    for directory in (home / "data", *(queue / name for name in QUEUES)):
        _make(directory, 0o700, "postfix", None)
    _make(queue / "maildrop", 0o730, "postfix", "postdrop")
    _make(queue / "public", 0o710, "postfix", "postdrop")
    _make(home / "mail", 0o755, OWNER, None)


def _make(directory: Path, mode: int, user: str, group: str | None) -> None:
    directory.mkdir()
    shutil.chown(directory, user, group)
    os.chmod(directory, mode)

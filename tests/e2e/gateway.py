"""The whole gateway as people run it: one configuration file, a folder of policies, free ports, a tree of processes.

Every wait has a deadline; the end is a SIGTERM, after which nothing of it may be left and nothing may have failed.
"""

import json
import os
import poplib
import re
import signal
import smtplib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.config import SHIPPED_POLICIES
from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.clients import Server, Tls

HOSTNAME = "gw.peer.example"
DOMAIN = "in.example"
COMMAND = (sys.executable, "-P", "-m", "gateway")
ROLES = ("smtp", "deliver", "pop3")
READY = 40.0  # seconds; it takes two, but the machine may be busy
STOP = 45.0
CLI = 40.0

CONFIG = """
[server]
hostname = "{hostname}"
data = "{home}/var"
policies = "{home}/policies"
smtp_processes = {smtp_processes}

[tls]
certificate = "{certificate.certificate}"
key = "{certificate.key}"

[dns]
servers = ["127.0.0.1:{dns}"]
timeout = "2s"

[[listeners]]
name = "mx"
kind = "mx"
address = "127.0.0.1:{mx}"

[[listeners]]
name = "submission"
kind = "submission"
address = "127.0.0.1:{submission}"

[[listeners]]
name = "submissions"
kind = "submission"
address = "127.0.0.1:{submissions}"
tls = "implicit"

[[listeners]]
name = "relay"
kind = "relay"
address = "127.0.0.1:{relay}"
networks = ["127.0.0.0/8"]

[[pop3]]
name = "pop3"
address = "127.0.0.1:{pop3}"

[[pop3]]
name = "pop3s"
address = "127.0.0.1:{pop3s}"
tls = "implicit"
"""

LISTENERS = ("mx", "submission", "submissions", "relay", "pop3", "pop3s")


def free_ports() -> dict[str, int]:
    """A free port for each listener, all different."""
    ports: dict[str, int] = {}
    while len(ports) < len(LISTENERS):
        if (port := processes.free_port()) not in ports.values():
            ports[LISTENERS[len(ports)]] = port
    return ports


def shipped(stem: str, **settings: str) -> str:
    """The shipped policy *stem* with other values (TOML) for settings that stand in it once, on a line of their own."""
    text = (SHIPPED_POLICIES / f"{stem}.toml").read_text("utf-8")
    for key, value in settings.items():
        text, count = re.subn(rf"^{key} *= [^#\n]*", f"{key} = {value}  ", text, flags=re.MULTILINE)
        assert count == 1, f"{stem}.toml has {count} lines for {key}"
    return text


def lenient(stem: str) -> str:
    """The shipped policy *stem* of a filter, with all that it finds accepted, whoever sends."""
    text, _, _ = (SHIPPED_POLICIES / f"{stem}.toml").read_text("utf-8").partition("\n[[exceptions]]")
    head, actions = text.split("\n[actions]\n")
    accepting = re.sub(r"^(\w+) *= *\S+", r'\1 = "accept"', actions, flags=re.MULTILINE)
    return f"{head}\n[actions]\n{accepting}\n"


def routes(via: Mapping[str, int] | None = None) -> str:
    """routes.toml: `DOMAIN` is local, the domains of *via* go to these ports of loopback, all else by the DNS."""
    text = f'local = ["{DOMAIN}"]\npostmaster = "alice@{DOMAIN}"\n'
    for domain, port in (via or {}).items():
        text += f'\n[[routes]]\ndomains = ["{domain}"]\nvia = {{ host = "127.0.0.1", port = {port} }}\n'
    return text


@dataclass(frozen=True)
class Done:
    """What one run of the `gatepost` command left."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


@dataclass(frozen=True)
class Gateway:
    """A gateway; `process` is its supervisor. `passwords` are those of the accounts, by login name."""

    home: Path
    ports: Mapping[str, int]
    certificate: Certificate
    process: processes.Process
    passwords: dict[str, str] = field(default_factory=dict)

    # ---- Its doors ------------------------------------------------------------------------------------------------

    def mx(self, tls: Tls = Tls.NONE) -> Server:
        return Server(self.ports["mx"], tls, trust=self.certificate)

    def submission(self, user: str, tls: Tls = Tls.UPGRADE) -> Server:
        port = self.ports["submissions" if tls is Tls.IMPLICIT else "submission"]
        return Server(port, tls, self.login(user), self.certificate)

    def mailbox(self, user: str, tls: Tls = Tls.IMPLICIT) -> Server:
        port = self.ports["pop3s" if tls is Tls.IMPLICIT else "pop3"]
        return Server(port, tls, self.login(user), self.certificate)

    def login(self, user: str) -> tuple[str, str]:
        return address(user), self.passwords[address(user)]

    # ---- The command ----------------------------------------------------------------------------------------------

    def cli(self, *words: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        """One run of `gatepost --config ...`."""
        return command(self.home, *words, stdin=stdin, env=env)

    def life(self, mail_id: str) -> Any:
        """What `gatepost track ID` knows of one mail; fails where it knows none or several."""
        done = self.cli("track", mail_id, "--json")
        assert done.code == 0, done
        (life,) = done.json
        return life

    def write_policy(self, stem: str, text: str) -> None:
        """Replace a policy at once, as an editor does that writes beside it and renames."""
        path = self.home / "policies" / f"{stem}.toml"
        beside = path.with_suffix(".new")
        beside.write_text(text, "utf-8")
        beside.rename(path)

    # ---- What it says ---------------------------------------------------------------------------------------------

    def log(self) -> str:
        return self.process.output()

    def events(self, kind: str, since: int = 0, **fields: object) -> list[dict[str, Any]]:
        """The lines of the log for *kind* that bear these fields, from octet *since* on."""
        wanted = [json.dumps(value).encode() for value in (kind, *fields.values()) if isinstance(value, str)]
        with self.process.log.open("rb") as log:
            log.seek(since)
            lines = [line for line in log if line.endswith(b"}\n") and all(word in line for word in wanted)]
        found = [json.loads(line) for line in lines]
        return [one for one in found if one["event"] == kind and all(one.get(k) == v for k, v in fields.items())]

    def mark(self) -> int:
        """Where the log ends now."""
        return self.process.log.stat().st_size

    def wait_event(self, kind: str, since: int = 0, within: float = 20.0, **fields: object) -> dict[str, Any]:
        """The first such event, as soon as there is one; raises Late with the end of the log."""
        try:
            found = processes.wait_until(lambda: self.events(kind, since, **fields), within, f"{kind} {fields}")
        except processes.Late as late:
            raise processes.Late(f"{late}; its log ends:\n{self.log()[-4000:]}") from None
        return found[0]

    def wait_policies(self, since: int) -> None:
        """Until both processes that decide by policies have put a new set in force after octet *since* of the log."""
        processes.wait_until(lambda: len(self.events("policies in force", since)) >= 2, 20, "the policies to reload")

    def wait_pid(self, role: str, *, other_than: int = 0) -> int:
        """The process that has announced itself for *role*, as soon as it is not *other_than*."""

        def announced() -> int:
            try:
                pid: int = json.loads((self.home / f"var/run/{role}-1.pid").read_text())["pid"]
            except (OSError, ValueError):
                return 0
            return pid if pid != other_than else 0

        return processes.wait_until(announced, READY, f"a new process for {role}")

    # ---- Mail -----------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self, port: str = "mx", user: str = "") -> Iterator[smtplib.SMTP]:
        """A bare SMTP session, after EHLO (and after STARTTLS and AUTH of *user*)."""
        with smtplib.SMTP("127.0.0.1", self.ports[port], "client.example", timeout=60) as client:
            if user:
                client.starttls(context=self.certificate.client_context())
                client.login(*self.login(user))
            client.ehlo()
            yield client

    def put(self, sender: str, recipients: Sequence[str], *mails: bytes) -> list[str]:
        """Send *mails* in one session at the mx port; return their ids. Fails when one is not taken."""
        with self.session() as client:
            return [taken(transaction(client, sender, recipients, raw)) for raw in mails]

    @contextmanager
    def opened(self, user: str, *, leave: bool = False) -> Iterator[poplib.POP3_SSL]:
        """A POP3 session over TLS, logged in; with *leave* the client goes without QUIT."""
        context = self.certificate.client_context()
        client = poplib.POP3_SSL("127.0.0.1", self.ports["pop3s"], timeout=60, context=context)
        name, password = self.login(user)
        try:
            client.user(name)
            client.pass_(password)
            yield client
        finally:
            client.close() if leave else client.quit()

    def fetch(self, user: str) -> list[bytes]:
        """All mails of *user* with CRLF; they stay."""
        with self.opened(user) as client:
            return [retrieve(client, number) for number in range(1, client.stat()[0] + 1)]

    def unique_id(self, user: str, sent: bytes) -> bytes:
        """The UIDL of the mail *sent*; the Message-ID tells which it is."""
        token = re.search(rb"(?mi)^message-id: *(\S+)", sent)
        assert token
        with self.opened(user) as client:
            for line in client.uidl()[1]:
                number, name = line.split()
                if token[1] in b"\n".join(client.top(int(number), 0)[1]):
                    return name
        raise AssertionError("the mail is not there")

    def empty(self, user: str) -> None:
        """Delete all mails of *user*."""
        with self.opened(user) as client:
            for number in range(1, client.stat()[0] + 1):
                client.dele(number)

    def wait_mail(self, user: str, token: bytes, within: float = 20.0) -> bytes:
        """The mail of *user* that holds *token*, as soon as it is there."""
        deadline = time.monotonic() + within
        while not (found := [raw for raw in self.fetch(user) if token in raw]):
            assert time.monotonic() < deadline, f"no mail with {token!r}; the log ends:\n{self.log()[-4000:]}"
            time.sleep(0.2)
        return found[0]

    # ---- Its end --------------------------------------------------------------------------------------------------

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """The signal goes to the supervisor alone; it has to end everything in order, and to exit with 0."""
        pids = [self.wait_pid(role) for role in ROLES]
        os.kill(self.process.pid, number)
        self.process.popen.wait(STOP)
        assert self.process.popen.returncode == 0, self.log()[-4000:]
        assert not self.events("ended by force")
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        assert not list((self.home / "var/run").glob("*.pid"))


def command(home: Path, *words: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
    """Run `gatepost` with the configuration in *home*."""
    argv = [*COMMAND, "--config", home / "gatepost.toml", *words]
    done = processes.complete(argv, home, stdin=stdin, within=CLI, env={"COLUMNS": "300", **(env or {})})
    return Done(done.code, done.stdout.decode(), done.stderr.decode())


def address(user: str) -> str:
    """`alice` is alice@in.example."""
    return user if "@" in user else f"{user}@{DOMAIN}"


def transaction(client: smtplib.SMTP, sender: str, recipients: Sequence[str], raw: bytes) -> tuple[int, str]:
    """MAIL, RCPT, DATA; the last reply, or the first refusal."""
    code, text = client.mail(sender, ["BODY=8BITMIME"] if not raw.isascii() else [])
    for recipient in recipients:
        if code in (250, 251):
            code, text = client.rcpt(recipient)
    if code in (250, 251):
        code, text = client.data(raw)
    else:
        client.rset()
    return code, text.decode()


def taken(reply: tuple[int, str]) -> str:
    """The id that stands in the reply to a mail that was taken."""
    assert reply[0] == 250, reply
    return id_in(reply[1])


def id_in(text: str) -> str:
    """The one mail id in what the gateway said."""
    ids: set[str] = set(re.findall(r"\b[0-9abcdefghjkmnpqrstvwxyz]{18}\b", text))
    (found,) = ids
    return found


def retrieve(client: poplib.POP3, number: int) -> bytes:
    """One mail with CRLF, as it was before its dots were doubled."""
    return b"".join(line + b"\r\n" for line in client.retr(number)[1])


@contextmanager
def run(
    certificate: Certificate,
    *,
    dns: int,
    policies: Mapping[str, str] | None = None,
    users: Sequence[str] = ("alice",),
    ports: Mapping[str, int] | None = None,
    smtp_processes: int = 1,
    more: str = "",
    may_fail: bool = False,
    around: Callable[[Path], AbstractContextManager[object]] = nullcontext,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str | Path] = (),
) -> Iterator[Gateway]:
    """A gateway with these accounts, and with these policies (text by stem) in place of the shipped ones.

    `dns` is the port of its resolver; `more` stands at the end of gatepost.toml. `@HOME@` is the working folder; what
    `around` makes of it is there before anything else. `env` is for the gateway alone, not for the command, and so is
    `wrapper`, a program that becomes it. At the end it must stop in order, and unless `may_fail` without one failure
    told.
    """
    with processes.workspace("e2e") as home, around(home):
        ports = ports or free_ports()
        values = {"certificate": certificate, "dns": dns, "smtp_processes": smtp_processes, **ports}
        (home / "gatepost.toml").write_text(CONFIG.format(hostname=HOSTNAME, home=home, **values) + more)
        write_policies(home, {"routes": routes(), **(policies or {})})
        passwords = {address(user): add_account(home, address(user)) for user in users}
        with started(home, ports, certificate, passwords, may_fail=may_fail, env=env, wrapper=wrapper) as gateway:
            yield gateway


@contextmanager
def started(
    home: Path,
    ports: Mapping[str, int],
    certificate: Certificate,
    passwords: dict[str, str],
    *,
    may_fail: bool = False,
    env: Mapping[str, str] | None = None,
    wrapper: Sequence[str | Path] = (),
) -> Iterator[Gateway]:
    """Start the gateway whose configuration lies in *home*, with the data that it finds there."""
    argv: list[str | Path] = [*wrapper, *COMMAND, "--config", home / "gatepost.toml", "run"]

    def ready() -> bool:
        return all((home / f"var/run/{role}-1.pid").exists() for role in ROLES)

    with processes.running(argv, home, ready, within=READY, env=env) as process:
        gateway = Gateway(home, ports, certificate, process, passwords)
        yield gateway
        if process.popen.returncode is None:
            gateway.stop()
        assert may_fail or not gateway.events("failure"), gateway.events("failure")
        assert "Traceback" not in gateway.log(), gateway.log()


def write_policies(home: Path, policies: Mapping[str, str]) -> None:
    (home / "policies").mkdir()
    for stem, text in policies.items():
        (home / f"policies/{stem}.toml").write_text(text.replace("@HOME@", str(home)), "utf-8")


def add_account(home: Path, login: str) -> str:
    """Make an account by the command; return the password that it was given."""
    password = f"pass word of {login}"
    done = command(home, "account", "add", login, "--password-stdin", stdin=password.encode() + b"\n")
    assert done.code == 0, done
    return password

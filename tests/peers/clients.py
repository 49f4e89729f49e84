"""Mail clients that people use: swaks, curl and msmtp send; curl, fetchmail and mpop fetch. Each run has a deadline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tests.peers import processes
from tests.peers.certificates import Certificate
from tests.peers.wire import crlf, dot_stuffed

WITHIN = 20.0  # seconds for one run


class Tls(StrEnum):
    """How the client comes to TLS."""

    NONE = "none"
    UPGRADE = "upgrade"  # STARTTLS or STLS, and no mail without it
    IMPLICIT = "implicit"  # from the first byte


@dataclass(frozen=True)
class Server:
    """Where a client connects, and how: `login` is (name, password); without `trust` any certificate will do."""

    port: int
    tls: Tls = Tls.NONE
    login: tuple[str, str] | None = None
    trust: Certificate | None = None
    host: str = processes.HOST


@dataclass(frozen=True)
class Result:
    """Exit code, all that the client said, and the mails it fetched in the order in which it got them."""

    code: int
    output: str
    messages: tuple[bytes, ...] = ()


def swaks(
    server: Server, sender: str, recipients: Sequence[str], raw: bytes, *options: str, within: float = WITHIN
) -> Result:
    """Send by swaks, whose output is the dialog. `raw` goes out as it is, dots doubled; `options` as in swaks(1)."""
    processes.require("swaks")
    argv: list[str | Path] = ["swaks", "--server", server.host, "--port", str(server.port), "--from", sender]
    argv += ["--to", ",".join(recipients), "--data", "@message", "--no-data-fixup", "--timeout", str(int(within))]
    argv += {Tls.NONE: [], Tls.UPGRADE: ["--tls"], Tls.IMPLICIT: ["--tls-on-connect"]}[server.tls]
    argv += ["--tls-verify", "--tls-ca-path", server.trust.certificate] if server.trust else []
    argv += ["--auth", "PLAIN", "-au", server.login[0], "-ap", server.login[1]] if server.login else []
    with processes.workspace("swaks") as home:
        (home / "message").write_bytes(dot_stuffed(raw).removesuffix(b"\r\n"))
        return _result(processes.complete([*argv, *options], home, within=within))


def curl_send(
    server: Server, sender: str, recipients: Sequence[str], raw: bytes, *options: str, within: float = WITHIN
) -> Result:
    """Send by curl; the exit code is curl's (55 and 56 for refusals, 67 for a refused login)."""
    argv: list[str | Path] = ["--upload-file", "message", "--mail-from", sender]
    argv += [word for recipient in recipients for word in ("--mail-rcpt", recipient)]
    with processes.workspace("curl") as home:
        (home / "message").write_bytes(crlf(raw))
        return _curl(server, "smtp", "client.example", [*argv, *options], home, within)


def curl_fetch(server: Server, path: str = "", *options: str, within: float = WITHIN) -> Result:
    """One POP3 request by curl: the listing for the path "", a mail for its number; the answer is the only message.
    `options` such as `--request UIDL` say other commands, `--list-only` keeps curl from waiting for a mail."""
    with processes.workspace("curl") as home:
        done = _curl(server, "pop3", path, [*options, "--output", "answer"], home, within)
        answer = home / "answer"
        return replace(done, messages=(answer.read_bytes(),)) if answer.exists() else done


def msmtp(
    server: Server, sender: str, recipients: Sequence[str], raw: bytes, *options: str, within: float = WITHIN
) -> Result:
    """Send by msmtp, which changes LF to CRLF and here adds no header; exit codes are those of sysexits.h."""
    processes.require("msmtp")
    lines = ["account default", f"host {server.host}", f"port {server.port}", f"timeout {int(within)}"]
    lines += [f"set_{header}_header off" for header in ("from", "date", "msgid")]
    with processes.workspace("msmtp") as home:
        _secret(home / "config", [*lines, *_gnu_tls(server), *_gnu_login(server, "plain")])
        argv = ["msmtp", "--file=config", f"--from={sender}", *options, "--", *recipients]
        return _result(processes.complete(argv, home, stdin=raw, within=within))


def mpop(server: Server, *options: str, keep: bool = False, within: float = WITHIN) -> Result:
    """Fetch all by mpop into a maildir; mails have LF and no header of mpop's own."""
    processes.require("mpop")
    lines = ["account default", f"host {server.host}", f"port {server.port}", f"timeout {int(within)}"]
    lines += ["uidls_file uidls", f"keep {_on(keep)}", "received_header off", "delivery maildir inbox"]
    with processes.workspace("mpop") as home:
        for part in ("cur", "new", "tmp"):
            (home / "inbox" / part).mkdir(parents=True)
        _secret(home / "config", [*lines, *_gnu_tls(server), *_gnu_login(server, "user")])
        done = processes.complete(["mpop", "--file=config", *options], home, within=within)
        return replace(_result(done), messages=_files(home / "inbox/new"))


def fetchmail(server: Server, *options: str, keep: bool = False, within: float = WITHIN) -> Result:
    """Fetch all by fetchmail through an MDA that keeps the bytes, with LF; exit code 1 means that there was no mail."""
    processes.require("fetchmail")
    name, password = server.login or ("", "")
    with processes.workspace("fetchmail") as home:
        (home / "inbox").mkdir()
        mda = f"cat > {home}/inbox/$(date +%s.%N)"
        poll = [f'poll "{server.host}" protocol pop3 port {server.port} timeout {int(within)} no dns']
        user = [f'username "{_quoted(name)}" password "{_quoted(password)}" is "root" here', f'mda "{mda}"']
        user += ["keep" if keep else "no keep", "fetchall", "no rewrite", *_fetchmail_tls(server)]
        _secret(home / "config", ["set invisible", *poll, *user])
        argv = ["fetchmail", "--fetchmailrc", "config", "--nodetach", "--nosyslog", "--pidfile", "pid", "-v", *options]
        done = processes.complete(argv, home, within=within, env={"FETCHMAILHOME": str(home)})
        return replace(_result(done), messages=_files(home / "inbox"))


def _curl(server: Server, scheme: str, path: str, options: Sequence[str | Path], home: Path, within: float) -> Result:
    processes.require("curl")
    url = f"{scheme}{'s' * (server.tls is Tls.IMPLICIT)}://{server.host}:{server.port}/{path}"
    argv: list[str | Path] = ["curl", "--verbose", "--no-progress-meter", "--max-time", str(within)]
    argv += ["--ssl-reqd"] if server.tls is Tls.UPGRADE else []
    argv += ["--cacert", server.trust.certificate] if server.trust else ["--insecure"]
    argv += ["--user", ":".join(server.login)] if server.login else []
    return _result(processes.complete([*argv, *options, url], home, within=within + 1))


def _gnu_tls(server: Server) -> list[str]:
    """msmtp and mpop are of one family."""
    if server.tls is Tls.NONE:
        return ["tls off"]
    check = f"tls_fingerprint {server.trust.fingerprint}" if server.trust else "tls_certcheck off"
    return ["tls on", f"tls_starttls {_on(server.tls is Tls.UPGRADE)}", check]


def _gnu_login(server: Server, method: str) -> list[str]:
    if server.login is None:
        return ["auth off"]
    return [f"auth {method}", f"user {server.login[0]}", f"password {server.login[1]}"]


def _fetchmail_tls(server: Server) -> list[str]:
    """An empty sslproto keeps fetchmail from STLS, which it takes by itself wherever it is offered."""
    if server.tls is Tls.NONE:
        return ['sslproto ""']
    how = "ssl" if server.tls is Tls.IMPLICIT else 'sslproto "TLS1.2+"'
    if server.trust is None:
        return [how, "no sslcertck"]
    return [how, "sslcertck", f'sslcertfile "{server.trust.certificate}"', 'sslcommonname "localhost"']


def _quoted(text: str) -> str:
    """fetchmail ends a string at the next quote, whatever stands before it: so both signs go as numbers."""
    return text.replace("\\", "\\x5c").replace('"', "\\x22")


def _on(value: bool) -> str:
    return "on" if value else "off"


def _secret(path: Path, lines: Sequence[str]) -> None:
    """All three clients refuse a configuration with a password that others may read."""
    path.touch(0o600)
    path.write_text("".join(f"{line}\n" for line in lines))


def _files(directory: Path) -> tuple[bytes, ...]:
    paths = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return tuple(path.read_bytes() for path in paths)


def _result(done: processes.Output) -> Result:
    return Result(done.code, done.text)

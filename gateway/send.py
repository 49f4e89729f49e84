"""Puts a message through a running gateway by SMTP, as any client would, and tells what it answered."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway import events
from gateway.config import Listener, Tls
from gateway.model import Temporary

TIMEOUT = 120.0
_ID = re.compile(r"\b[0-9abcdefghjkmnpqrstvwxyz]{18}\b")


@dataclass(frozen=True, slots=True)
class Server:
    """Where to send. `certificate` is the gateway's own, trusted beside those of the system."""

    host: str
    port: int
    tls: Tls = "none"
    certificate: Path | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """Who sends, at a submission port."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said in the end, and to which recipients it said no."""

    code: int
    reply: str
    refused: dict[str, str]

    @property
    def id(self) -> str:
        """The id that the gateway gave the mail, or "" where it took none."""
        found = _ID.search(self.reply) if self.code == 250 else None
        return found[0] if found else ""


def server_of(listener: Listener, certificate: Path | None) -> Server:
    """How to reach *listener* from this machine."""
    host, port = listener.host_port
    return Server({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port, listener.tls, certificate)


def send(server: Server, message: bytes, sender: str, recipients: Sequence[str], login: Login | None = None) -> Answer:
    """Send *message* (any line ends) and return the last reply; `Temporary` where nobody could be talked to."""
    try:
        with _connected(server, needs_tls=login is not None) as client:
            if login is not None:
                client.login(login.user, login.password)
            return _transaction(client, message, sender, recipients)
    except smtplib.SMTPResponseException as error:
        if error.smtp_code < 0:  # smtplib's sign for no reply at all
            raise Temporary(f"{server.host}:{server.port} does not speak SMTP") from None
        return _answer(error.smtp_code, error.smtp_error)
    except (OSError, smtplib.SMTPException) as error:
        raise Temporary(f"{server.host}:{server.port} cannot be talked to: {_why(error)}") from None


def _connected(server: Server, *, needs_tls: bool) -> smtplib.SMTP:
    if server.tls == "implicit":
        return smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT, context=_context(server))
    client = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
    try:
        client.ehlo()
        if needs_tls or (server.tls == "starttls" and client.has_extn("starttls")):
            client.starttls(context=_context(server))
            client.ehlo()
    except BaseException:
        client.close()
        raise
    return client


def _context(server: Server) -> ssl.SSLContext:
    """Trust the gateway's own certificate whatever name it bears: its file says better than a name who that is."""
    context = ssl.create_default_context()
    if server.certificate is not None:
        context.load_verify_locations(server.certificate)
        context.check_hostname = False
    return context


def _transaction(client: smtplib.SMTP, message: bytes, sender: str, recipients: Sequence[str]) -> Answer:
    client.ehlo_or_helo_if_needed()
    message = re.sub(rb"\r?\n", b"\r\n", message)
    code, text = client.mail(sender, _options(client, message, [sender, *recipients]))
    if code != 250:
        return _answer(code, text)
    refused: dict[str, str] = {}
    for recipient in recipients:
        code, text = client.rcpt(recipient)
        if code not in (250, 251):
            refused[recipient] = _shown(code, text)
    if len(refused) == len(recipients):
        return Answer(code, _shown(code, text), refused)
    code, text = client.data(message)
    return _answer(code, text, refused)


def _options(client: smtplib.SMTP, message: bytes, addresses: Sequence[str]) -> list[str]:
    options = [f"SIZE={len(message)}"] if client.has_extn("size") else []
    if not message.isascii() and client.has_extn("8bitmime"):
        options.append("BODY=8BITMIME")
    if not all(address.isascii() for address in addresses) and client.has_extn("smtputf8"):
        options.append("SMTPUTF8")
        client.command_encoding = "utf-8"
    return options


def _answer(code: int, text: bytes | str, refused: dict[str, str] | None = None) -> Answer:
    return Answer(code, _shown(code, text), refused or {})


def _shown(code: int, text: bytes | str) -> str:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return events.clean(f"{code} {' '.join(words.split())}")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'broken off'})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return events.clean(str(error)) or type(error).__name__

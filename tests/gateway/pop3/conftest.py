"""The service on a real socket over a real store, in a loop of its own thread, so that any client can talk to it."""

import asyncio
import datetime
import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager
from io import BytesIO
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.backoff import Backoff
from gateway.config import Pop3Listener
from gateway.model import Envelope, Recipient, Session, State
from gateway.pop3.limits import Gate
from gateway.pop3.server import server_factory
from gateway.stages import Logins, Pop3
from gateway.state import LocalState
from gateway.store import mailbox, messages
from gateway.store.engine import Store

PASSWORDS = {"alice": "alice's secret", "bob": "bob's secret", "jörg": "geheimnis mit ü"}
QUICK = Pop3(login_timeout=5.0, idle_timeout=5.0, handshake_timeout=2.0, write_timeout=2.0, linger=0.5, lease=3.0)
LOGINS = Logins(delay=0.05)
HEADER = b"Return-Path: <sender@example.org>\r\n"
RECEIVED = b"Received: by us\r\n"
MAILS = (
    b"Subject: one\r\n\r\nfirst line\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\nmiddle.\r\n.\r\n",
    b"Subject: lines\r\n\r\n" + b"".join(b"line %d\r\n" % n for n in range(1, 11)),
)


class Passwords:
    """Knows three people. `error` is raised instead of an answer; `asked` counts the questions."""

    def __init__(self):
        self.error = None
        self.asked = 0

    async def identify(self, login, password):
        self.asked += 1
        if self.error:
            raise self.error
        return login.lower() if PASSWORDS.get(login.lower()) == password else ""


@pytest.fixture
def quick():
    """Limits that a test has the time to reach."""
    return QUICK


@pytest.fixture
def mails():
    """The bodies of what `filled` puts into alice's mailbox."""
    return MAILS


@pytest.fixture
def wire():
    """A mail as it lies in the mailbox: with what the gateway put on top."""
    return lambda body: HEADER + RECEIVED + body


@pytest.fixture
def store(tmp_path):
    made = Store(f"sqlite:///{tmp_path / 'data' / 'gatepost.db'}", patience=5.0)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def put(store):
    """Put one mail into somebody's mailbox; its message id can be chosen."""

    def make(body, account="alice", name="first"):
        draft = messages.Draft(
            id=name,
            received_at=1_800_000_000.0,
            session=Session(ip_address("192.0.2.1")),
            envelope=Envelope("sender@example.org"),
            header=RECEIVED,
            body=BytesIO(body),
        )
        row = messages.Row(Recipient(f"{account}@example.net"), State.MAILBOX, mailbox=account, header=HEADER)
        with store.begin() as conn:
            messages.accept(conn, draft, [row])

    return make


@pytest.fixture
def filled(put):
    """Three mails for alice, one for bob."""
    for name, body in zip(("first", "second", "third"), MAILS, strict=True):
        put(body, name=name)
    put(b"Subject: for bob\r\n\r\nhis alone\r\n", "bob", "his")


@pytest.fixture
def left(store):
    """The unique ids that lie in somebody's mailbox."""

    def look(account="alice"):
        with store.reading() as conn:
            return [message.uid for message in mailbox.listing(conn, account)]

    return look


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Paths of a self-signed certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    (folder / "certificate.pem").write_bytes(made.public_bytes(encoding))
    return SimpleNamespace(certificate=folder / "certificate.pem", key=folder / "key.pem")


@pytest.fixture(scope="session")
def server_tls(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


@pytest.fixture(scope="session")
def client_tls(certificate):
    return ssl.create_default_context(cafile=str(certificate.certificate))


@contextmanager
def _loop():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _listening(run, service):
    async def start():
        return await asyncio.get_running_loop().create_server(service, "127.0.0.1", 0)

    async def stop():
        server.close()
        await service.drain(0.2)
        await server.wait_closed()

    server = run(start())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        run(stop())


@pytest.fixture
def serve(store, server_tls, tmp_path):
    """Start a listener; what comes back has its `port`, the `service`, its `passwords`, and `run` for coroutines."""
    with ExitStack() as stack:

        def start(
            tls="starttls",
            cleartext=True,
            limits=QUICK,
            logins=LOGINS,
            gate=None,
            kept=store,
            passwords=None,
            proxies=(),
        ):
            listener = Pop3Listener(
                name="pop3", address="127.0.0.1:0", tls=tls, cleartext_login=cleartext, proxy_from=proxies
            )
            passwords = passwords or Passwords()
            context = server_tls if tls != "none" else None
            gate = gate or Gate(limits, Backoff(LocalState(tmp_path / "state.db"), lambda: logins))
            service = server_factory(listener, kept, passwords, context, gate)
            run = stack.enter_context(_loop())
            port = stack.enter_context(_listening(run, service))
            return SimpleNamespace(port=port, service=service, passwords=passwords, run=run)

        yield start


class Client:
    """A socket that sends octets and reads lines, and does nothing by itself."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        return self.file.readline()

    def ask(self, command):
        self.send(command + b"\r\n")
        return self.line()

    def lines(self):
        """A multi-line answer without its end, as octets."""
        return b"".join(iter(self.line, b".\r\n"))

    def rest(self):
        """All that comes until the other side hangs up."""
        try:
            return self.file.read()
        except ConnectionResetError:
            return b""

    def start_tls(self, context):
        self.file.close()
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.file = self.socket.makefile("rb")

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture
def connect():
    """Open connections that are closed at the end of the test; the greeting is read unless *greeted* is False."""
    clients = []

    def make(port, *, login=None, greeted=True):
        client = Client(port)
        clients.append(client)
        if greeted:
            assert client.line().startswith(b"+OK")
        if login:
            assert client.ask(f"USER {login}".encode()).startswith(b"+OK")
            assert client.ask(f"PASS {PASSWORDS[login]}".encode()).startswith(b"+OK")
        return client

    yield make
    for client in clients:
        client.close()

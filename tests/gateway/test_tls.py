"""TLS contexts, and the certificate of the first start."""

import contextlib
import datetime
import socket
import ssl
import stat
import subprocess
import threading

import pytest
from cryptography import x509

from gateway import tls
from gateway.config import Config, Server, TlsFiles


def config(folder, **words):
    return Config(server=Server(hostname="mx.test", data=folder), tls=TlsFiles(**words))


def shake_hands(server_context, client_context):
    """The version that both agree on."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    theirs.settimeout(5)
    result = []

    def serve():
        try:
            with server_context.wrap_socket(ours, server_side=True) as wrapped:
                result.append(wrapped.version())
        except OSError as error:
            result.append(type(error).__name__)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client_context.wrap_socket(theirs, server_hostname="mx.test") as wrapped:
            wrapped.version()
    finally:
        theirs.close()
        thread.join(5)
        ours.close()
    return result[0]


def client(context_folder, version=None):
    context = ssl.create_default_context(cafile=str(context_folder / "tls/certificate.pem"))
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def test_the_first_start_makes_a_certificate_that_carries_our_name(tmp_path):
    context = tls.server_context(config(tmp_path))
    assert shake_hands(context, client(tmp_path)) == "TLSv1.3"
    assert shake_hands(context, client(tmp_path, ssl.TLSVersion.TLSv1_2)) == "TLSv1.2"


def test_the_key_is_readable_by_us_alone_and_kept_at_the_second_start(tmp_path):
    _, key = tls.certificate_files(config(tmp_path))
    first = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert tls.certificate_files(config(tmp_path))[1].read_bytes() == first


def test_the_modern_profile_refuses_tls_1_2(tmp_path):
    context = tls.server_context(config(tmp_path, profile="modern"))
    with pytest.raises(ssl.SSLError):
        shake_hands(context, client(tmp_path, ssl.TLSVersion.TLSv1_2))


def test_older_versions_and_renegotiation_are_off(tmp_path):
    context = tls.server_context(config(tmp_path))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
    assert all(c["aead"] for c in context.get_ciphers())


def test_who_asks_for_another_handshake_gets_none(tmp_path):
    context = tls.server_context(config(tmp_path))
    with listening(context) as port:
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", "-legacy_renegotiation"]
        done = subprocess.run(words, input=b"R\n", capture_output=True, timeout=10, check=False)
    said = done.stdout + done.stderr
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_what_is_sent_is_not_compressed(tmp_path, version):
    with listening(tls.server_context(config(tmp_path))) as port:
        words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", version, "-comp"]
        done = subprocess.run(words, input=b"", capture_output=True, timeout=10, check=False)
    assert b"Compression: NONE" in done.stdout
    assert b"Cipher is TLS_" in done.stdout or b"Cipher is ECDHE-" in done.stdout


@contextlib.contextmanager
def listening(context):
    """The port of a server that takes one connection, shakes hands, and reads until the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=serve_one, args=(listener, context))
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def serve_one(listener, context):
    connection, _ = listener.accept()
    connection.settimeout(5)
    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as wrapped:
        while wrapped.recv(1000):
            pass


def test_configured_files_are_used_and_their_end_is_known(tmp_path):
    certificate, key = tls.certificate_files(config(tmp_path))
    named = config(tmp_path / "elsewhere", certificate=certificate, key=key)
    assert tls.certificate_files(named) == (certificate, key)
    left = tls.expires_at(certificate) - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=800) < left < datetime.timedelta(days=826)


def test_a_client_whose_clock_is_a_day_behind_believes_the_certificate_of_the_first_start(tmp_path):
    made = x509.load_pem_x509_certificate(tls.certificate_files(config(tmp_path))[0].read_bytes())
    assert made.not_valid_before_utc < datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)


def test_a_transport_that_was_closed_twice_can_be_aborted():
    class Forgetful:
        aborted = False

        def abort(self):
            self.aborted = True
            raise AttributeError("'NoneType' object has no attribute '_abort'")

    transport = Forgetful()
    tls.abort(transport)
    assert transport.aborted


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_faulty_one_never(tmp_path):
    context = tls.server_context(config(tmp_path))
    certificate, key = tls.certificate_files(config(tmp_path))
    certificate.unlink()
    assert tls.renew(context, config(tmp_path))
    assert shake_hands(context, client(tmp_path)) == "TLSv1.3"
    key.write_text("no key")
    assert not tls.renew(context, config(tmp_path))
    assert shake_hands(context, client(tmp_path)) == "TLSv1.3"

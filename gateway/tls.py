"""TLS contexts and the first certificate. Profiles have names; nobody writes cipher strings into a configuration.

`cryptography` is imported where a certificate is made or read: the processes that serve do neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import ssl
from ipaddress import ip_address
from pathlib import Path

from gateway import events
from gateway.config import Config

VALID_DAYS = 825
_AEAD = "ECDHE+AESGCM:ECDHE+CHACHA20"


def server_context(config: Config) -> ssl.SSLContext:
    """The context of every listener: TLS 1.2 or later, forward secrecy and AEAD only, no renegotiation, no compression.

    Profile `modern` asks for TLS 1.3. Raises `OSError` or `ssl.SSLError` where certificate and key cannot be used.
    """
    certificate, key = certificate_files(config)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if config.tls.profile == "modern" else ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_AEAD)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.load_cert_chain(certificate, key, password="")  # else OpenSSL asks the terminal for that of a locked key
    return context


def renew(context: ssl.SSLContext, config: Config) -> bool:
    """Put the certificate as it is on disk now into *context*, for connections to come; False where it is faulty.

    Key and certificate are tried on a context of their own first: a failure would leave half of them in this one.
    """
    try:
        server_context(config)
        context.load_cert_chain(*certificate_files(config), password="")
    except OSError as error:  # ssl.SSLError is one
        events.failure("certificate", error)
        return False
    return True


def certificate_files(config: Config) -> tuple[Path, Path]:
    """Certificate and key as configured, or the self-signed pair under the data folder, made when it is missing."""
    if config.tls.certificate is not None and config.tls.key is not None:
        return config.tls.certificate, config.tls.key
    folder = config.server.data / "tls"
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    if not (certificate.exists() and key.exists()):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_self_signed(config.server.hostname, certificate, key)
    return certificate, key


def _make_self_signed(hostname: str, certificate: Path, key: Path) -> None:
    from cryptography import x509  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import NameOID  # noqa: PLC0415

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(hostname), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))  # a clock that is a day behind believes it too
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_private(key, pem)
    _write_private(certificate, made.public_bytes(serialization.Encoding.PEM))


def _write_private(path: Path, content: bytes) -> None:
    """Write *path* with mode 0600, all at once: a crash leaves no half of a key behind."""
    temporary = path.with_suffix(f".{os.getpid()}.new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def abort(transport: asyncio.WriteTransport) -> None:
    """Close *transport* at once, however often it was closed before.

    In Python 3.11.2 (Debian 12) a TLS transport that was closed twice forgets its protocol, and then cannot be aborted.
    """
    with contextlib.suppress(AttributeError):
        transport.abort()


def expires_at(certificate: Path) -> datetime.datetime:
    """When the (first) certificate in the PEM file ends, in UTC."""
    from cryptography import x509  # noqa: PLC0415 - see above

    return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc

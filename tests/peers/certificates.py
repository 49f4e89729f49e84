"""Self-signed certificates by the openssl program, as an admin would make them."""

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes


@dataclass(frozen=True)
class Certificate:
    """Paths of a certificate and its key, both PEM."""

    certificate: Path
    key: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as `AA:BB:...`."""
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        return hashlib.sha256(der).digest().hex(":").upper()

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trusts this certificate and no other; checks its name."""
        return ssl.create_default_context(cafile=str(self.certificate))


def self_signed(directory: Path, *names: str, days: int = 30) -> Certificate:
    """A new P-256 certificate for host names, or localhost, and for 127.0.0.1, in `directory`."""
    processes.require("openssl")
    hosts = names or ("localhost",)
    made = Certificate(directory / "certificate.pem", directory / "key.pem")
    alternatives = ",".join([f"DNS:{host}" for host in hosts] + [f"IP:{processes.HOST}"])
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-subj", f"/CN={hosts[0]}", "-addext", f"subjectAltName={alternatives}", "-days", str(days)]
    done = processes.complete([*command, "-keyout", made.key, "-out", made.certificate], directory)
    if done.code != 0:
        raise RuntimeError(f"openssl failed:\n{done.text}")
    return made

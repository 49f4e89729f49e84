"""Programs of others that make DKIM signatures: dkimpy, opendkim, and Perl's Mail::DKIM, which makes ARC sets too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dkim
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.peers import processes

Private = RSAPrivateKey | Ed25519PrivateKey

OPENDKIM = """
Mode s
Syslog no
RequireSafeKeys no
Domain {domain}
Selector {selector}
KeyFile {home}/key.pem
SignatureAlgorithm {algorithm}
Canonicalization {form}
OversignHeaders From
"""

PERL = r"""
use strict; use warnings; use JSON::PP;
use Mail::DKIM::PrivateKey; use Mail::DKIM::Signer; use Mail::DKIM::ARC::Signer;
binmode STDIN; binmode STDOUT;
my $given = decode_json(join '', <STDIN>);
my $key = Mail::DKIM::PrivateKey->load(File => $given->{key});
my $class = $given->{chain} ? 'Mail::DKIM::ARC::Signer' : 'Mail::DKIM::Signer';
my $signer = $class->new(Algorithm => 'rsa-sha256', Method => $given->{form}, Domain => $given->{domain},
    SrvId => $given->{domain}, Selector => $given->{selector}, Chain => $given->{chain}, Key => $key);
open my $file, '<:raw', $given->{message} or die; my $message = join '', <$file>;
$signer->PRINT($message); $signer->CLOSE;
die $signer->result_detail if $given->{chain} && $signer->result ne 'sealed';
print $given->{chain} ? join("\r\n", $signer->as_strings) : $signer->signature->as_string, "\r\n";
"""


@dataclass(frozen=True)
class Identity:
    """Who signs, and with which key."""

    domain: str
    selector: str
    key: Private

    @property
    def algorithm(self) -> str:
        return "rsa-sha256" if isinstance(self.key, RSAPrivateKey) else "ed25519-sha256"

    @property
    def pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def traditional_pem(self) -> bytes:
        """The key in PKCS #1, as dkimpy and Mail::DKIM read it."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def dkimpy(message: bytes, who: Identity, form: str, algorithm: str = "rsa-sha256") -> bytes:
    """*message* with a signature of dkimpy's; *form* is c=, as "relaxed/simple"."""
    header, body = form.encode().split(b"/")
    names = (who.selector.encode(), who.domain.encode(), who.traditional_pem)
    form_of_both = (header, body)
    made: bytes = dkim.sign(message, *names, canonicalize=form_of_both, signature_algorithm=algorithm.encode())
    return made + message


def opendkim(message: bytes, who: Identity, form: str) -> bytes:
    """*message* with a signature of opendkim's, which signs From once more than it stands there."""
    processes.require("opendkim")
    with processes.workspace("opendkim") as home:
        text = OPENDKIM.format(domain=who.domain, selector=who.selector, home=home, algorithm=who.algorithm, form=form)
        (home / "opendkim.conf").write_text(text)
        (home / "key.pem").write_bytes(who.pem)
        (home / "message").write_bytes(message)
        argv: list[str | Path] = ["opendkim", "-x", home / "opendkim.conf", "-vv", "-t", home / "message"]
        done = processes.complete(argv, home)
    found = re.search(rb"hname='DKIM-Signature' hvalue='([^']*)'", done.stdout)
    if found is None:
        raise RuntimeError(done.text)
    return b"DKIM-Signature: " + found[1].replace(b"\n", b"\r\n") + b"\r\n" + message


def mail_dkim(message: bytes, who: Identity, form: str) -> bytes:
    """*message* with a signature of Mail::DKIM's, which knows RSA only."""
    return _perl(message, who, form, "") + message


def mail_dkim_seal(message: bytes, who: Identity, cv: str) -> bytes:
    """*message* with an ARC set of Mail::DKIM's; *cv* is what its seal says of the chain so far."""
    return _perl(message, who, "relaxed/relaxed", cv) + message


def _perl(message: bytes, who: Identity, form: str, chain: str) -> bytes:
    processes.require("perl")
    with processes.workspace("perl") as home:
        (home / "key.pem").write_bytes(who.traditional_pem)
        (home / "message").write_bytes(message)
        given = {"message": f"{home}/message", "key": f"{home}/key.pem", "form": form, "chain": chain}
        given |= {"domain": who.domain, "selector": who.selector}
        done = processes.complete(["perl", "-e", PERL], home, stdin=json.dumps(given).encode())
    if done.code != 0:
        if b"Can't locate Mail/DKIM" in done.stderr:
            processes.unavailable("needs libmail-dkim-perl: see tests/packages.debian")
        raise RuntimeError(done.text)
    return done.stdout


def forms(wanted: str) -> Sequence[str]:
    """The forms (c=) that *wanted* names: all four for "*", those alike in header and body for "=", or itself."""
    alike = ["simple/simple", "relaxed/relaxed"]
    return {"*": [*alike, "simple/relaxed", "relaxed/simple"], "=": alike}.get(wanted, [wanted])

"""Programs of others that check DKIM signatures, ARC chains and key records: opendkim, and Perl's Mail::DKIM.

Both ask the resolver at the port they are given, and nobody else.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.peers import processes

UNBOUND = """
server:
    module-config: "iterator"
    do-not-query-localhost: no
    do-ip6: no
    use-syslog: no
    logfile: ""
forward-zone:
    name: "."
    forward-addr: {host}@{port}
"""

PERL = """
use strict; use warnings;
use Net::DNS::Resolver; use Mail::DKIM::DNS; use Mail::DKIM::Verifier; use Mail::DKIM::ARC::Verifier;
my ($class, $port) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 1));
my $checker = $class->new();
binmode STDIN;
local $/; my $message = <STDIN>;
$checker->PRINT($message); $checker->CLOSE;
if ($class =~ /ARC/) { print $checker->result, "\\n"; exit }
print join("\\t", $_->result, $_->algorithm, $_->domain, $_->result_detail), "\\n" for $checker->signatures;
"""


@dataclass(frozen=True)
class Signature:
    """What became of one DKIM signature: result "pass" or another, in the words of the program."""

    result: str
    algorithm: str
    domain: str
    detail: str = ""


def mail_dkim(message: bytes, dns: int) -> list[Signature]:
    """What Mail::DKIM finds of each signature of *message* (with CRLF), in the order of the header."""
    found = [line.split("\t") for line in _perl("Mail::DKIM::Verifier", message, dns).splitlines()]
    return [Signature(*words) for words in found]


def mail_dkim_arc(message: bytes, dns: int) -> str:
    """What Mail::DKIM finds of the ARC chain of *message*: "pass", "fail" or "none"."""
    return _perl("Mail::DKIM::ARC::Verifier", message, dns).strip()


def _perl(name: str, message: bytes, dns: int) -> str:
    processes.require("perl")
    with processes.workspace("perl") as home:
        done = processes.complete(["perl", "-e", PERL, name, str(dns)], home, stdin=message)
    if done.code != 0:
        if b"Can't locate Mail/DKIM" in done.stderr:
            processes.unavailable("needs libmail-dkim-perl: see tests/packages.debian")
        raise RuntimeError(done.text)
    return done.stdout.decode()


def opendkim(message: bytes, dns: int) -> list[Signature]:
    """What opendkim finds of each signature of *message*, as the Authentication-Results say that it would write."""
    processes.require("opendkim")
    with processes.workspace("opendkim") as home:
        _configure(home, dns)
        (home / "message").write_bytes(message)
        argv: list[str | Path] = ["opendkim", "-x", home / "opendkim.conf", "-vv", "-t", home / "message"]
        done = processes.complete(argv, home)
    found = re.findall(r"\sdkim=(\w+) (.*)header\.d=(\S+) .*header\.a=([\w-]+)", done.text)
    return [Signature(result, algorithm, domain, detail.strip()) for result, detail, domain, algorithm in found]


def testkey(domain: str, selector: str, key: Path, dns: int) -> processes.Output:
    """What opendkim-testkey says of the published record beside the private *key*; code 0: it fits."""
    processes.require("opendkim-testkey")
    with processes.workspace("opendkim") as home:
        _configure(home, dns)
        argv: list[str | Path] = ["opendkim-testkey", "-x", home / "opendkim.conf", "-vv", "-d", domain, "-s", selector]
        return processes.complete([*argv, "-k", key], home)


def _configure(home: Path, dns: int) -> None:
    (home / "unbound.conf").write_text(UNBOUND.format(host=processes.HOST, port=dns))
    (home / "opendkim.conf").write_text(f"Mode v\nSyslog no\nResolverConfiguration {home}/unbound.conf\n")

"""Programs of others that check DKIM signatures, ARC chains and key records: opendkim, Perl's Mail::DKIM, and dkimpy.

The first two ask the resolver at the port they are given, and nobody else; dkimpy a function.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dkim

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
my ($class, $port, @files) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 1));
local $/;
for my $name (@files) {
    my $checker = $class->new();
    open my $file, '<:raw', $name or die; my $message = <$file>;
    $checker->PRINT($message); $checker->CLOSE;
    print "message\\n";
    if ($class =~ /ARC/) { print $checker->result, "\\n" }
    else { print join("\\t", map { my $text = $_ // ''; $text =~ s/\\s+/ /g; $text } $_->result, $_->algorithm, $_->domain, $_->result_detail), "\\n"
        for $checker->signatures }
}
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
    return mail_dkim_all([message], dns)[0]


def mail_dkim_all(messages: Sequence[bytes], dns: int) -> list[list[Signature]]:
    """The same of each of *messages*, by one process."""
    return [[Signature(*line.split("\t")) for line in lines] for lines in _perl("Verifier", messages, dns)]


def mail_dkim_arc(message: bytes, dns: int) -> str:
    """What Mail::DKIM finds of the ARC chain of *message*: "pass", "fail" or "none"."""
    return mail_dkim_arc_all([message], dns)[0]


def mail_dkim_arc_all(messages: Sequence[bytes], dns: int) -> list[str]:
    """The same of each of *messages*, by one process."""
    return [result for (result,) in _perl("ARC::Verifier", messages, dns)]


def _perl(name: str, messages: Sequence[bytes], dns: int) -> list[list[str]]:
    """The lines that the verifier *name* has to say of each message."""
    processes.require("perl")
    with processes.workspace("perl") as home:
        files = _files(home, messages)
        done = processes.complete(["perl", "-e", PERL, f"Mail::DKIM::{name}", str(dns), *files], home)
    if done.code != 0:
        if b"Can't locate Mail/DKIM" in done.stderr:
            processes.unavailable("needs libmail-dkim-perl: see tests/packages.debian")
        raise RuntimeError(done.text)
    return [said.splitlines() for said in done.stdout.decode("utf-8", "replace").split("message\n")[1:]]


def _files(home: Path, messages: Sequence[bytes]) -> list[str]:
    for number, message in enumerate(messages):
        (home / str(number)).write_bytes(message)
    return [str(home / str(number)) for number in range(len(messages))]


def opendkim(message: bytes, dns: int) -> list[Signature]:
    """What opendkim finds of each signature of *message*, as the Authentication-Results say that it would write."""
    return opendkim_all([message], dns)[0]


def opendkim_all(messages: Sequence[bytes], dns: int) -> list[list[Signature]]:
    """The same of each of *messages*, by one process."""
    processes.require("opendkim")
    with processes.workspace("opendkim") as home:
        _configure(home, dns)
        files = ",".join(_files(home, messages))
        done = processes.complete(["opendkim", "-x", home / "opendkim.conf", "-vv", "-t", files], home)
    said = re.findall(r"hname='Authentication-Results' hvalue='([^']*)'", done.text)
    if len(said) != len(messages):
        raise RuntimeError(done.text)
    return [_signatures(one) for one in said]


def _signatures(results: str) -> list[Signature]:
    """The signatures that a field of *results* tells of, each on a line of its own; none where it says "none"."""
    pattern = r"\sdkim=(\w+) (.*)header\.d=(\S+) .*header\.a=([\w-]+)"
    found = re.findall(pattern, results)
    return [Signature(result, algorithm, domain, detail.strip()) for result, detail, domain, algorithm in found]


def dkimpy(message: bytes, count: int, ask: Callable[..., bytes | None]) -> list[str]:
    """What dkimpy finds of the *count* signatures of *message*: "pass" or "fail"; it asks for keys by *ask*."""
    return ["pass" if _holds(message, index, ask) else "fail" for index in range(count)]


def _holds(message: bytes, index: int, ask: Callable[..., bytes | None]) -> bool:
    try:
        held: bool = dkim.DKIM(message).verify(index, dnsfunc=ask)
    except dkim.DKIMException:
        return False
    return held


def dkimpy_arc(message: bytes, ask: Callable[..., bytes | None]) -> str:
    """What dkimpy finds of the ARC chain of *message*: "pass", "fail" or "none"."""
    result: bytes | None = dkim.arc_verify(message, dnsfunc=ask)[0]
    return (result or b"none").decode()


def testkey(domain: str, selector: str, key: Path, dns: int) -> processes.Output:
    """What opendkim-testkey says of the published record beside the private *key*; code 0: it fits."""
    processes.require("opendkim-testkey")
    with processes.workspace("opendkim") as home:
        _configure(home, dns)
        argv: list[str | Path] = ["opendkim-testkey", "-x", home / "opendkim.conf", "-vv", "-d", domain, "-s", selector]
        return processes.complete([*argv, "-k", key], home)


def _configure(home: Path, dns: int) -> None:
    (home / "unbound.conf").write_text(UNBOUND.format(host=processes.HOST, port=dns))
    (home / "opendkim.conf").write_text(
        f"Mode v\nSyslog no\nAlwaysAddARHeader yes\nResolverConfiguration {home}/unbound.conf\n"
    )

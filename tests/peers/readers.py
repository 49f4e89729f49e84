"""Mail readers of others: the files that each sees in each mail of a folder."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MIME_TOOLS = r"""
use MIME::Parser; use JSON::PP; use MIME::Base64;
sub leaves { my ($entity, $out) = @_; my @parts = $entity->parts;
  if (@parts) { leaves($_, $out) for @parts; return }
  my $body = $entity->bodyhandle or return;
  push @$out, [ "" . ($entity->head->recommended_filename || ""), encode_base64($body->as_string, "") ] }
for my $path (@ARGV) { my @out;
  eval { my $parser = MIME::Parser->new; $parser->output_to_core(1); $parser->tmp_to_core(1); $parser->extract_nested_messages(1);
    leaves($parser->parse_open($path), \@out) };
  print JSON::PP->new->latin1->encode(\@out), "\n" }
"""


class Seen(NamedTuple):
    """A file as a reader sees it."""

    name: str
    octets: bytes


def munpack(mails: list[Path], folder: Path) -> Iterator[list[Seen]]:
    """mpack's, which people had before their mail programs knew MIME."""
    for number, mail in enumerate(mails):
        yield _unpacked(["munpack", "-q", "-f", "-t", "-C", "{out}", str(mail)], folder / str(number))


def ripmime(mails: list[Path], folder: Path) -> Iterator[list[Seen]]:
    """What many gateways take mails apart with."""
    for number, mail in enumerate(mails):
        yield _unpacked(["ripmime", "-i", str(mail), "-d", "{out}"], folder / str(number))


def mime_tools(mails: list[Path], folder: Path) -> Iterator[list[Seen]]:
    """Perl's MIME::Parser, on which MIMEDefang and amavis are built."""
    script = folder / "mime_tools.pl"
    script.write_text(MIME_TOOLS)
    done = subprocess.run(["perl", script, *mails], capture_output=True, timeout=60, check=True)
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        yield [Seen(name, base64.b64decode(text)) for name, text in json.loads(line)]


def _unpacked(command: list[str], out: Path) -> list[Seen]:
    out.mkdir()
    subprocess.run([word.format(out=out) for word in command], cwd=out, capture_output=True, timeout=10, check=False)
    return [Seen(path.name, path.read_bytes()) for path in out.rglob("*") if path.is_file()]


READERS = {reader.__name__: reader for reader in (munpack, ripmime, mime_tools)}

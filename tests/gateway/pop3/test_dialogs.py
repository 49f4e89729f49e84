"""Every file of tests/dialogs/pop3 is a conversation with the service, over a real socket and a real store.

    # what it shows
    LISTENER starttls | implicit | none [cleartext]
    C: a line to send, with CRLF; lines of C in a row go out in one segment
       {x*40} repeats; \\r \\n \\xff \\\\ are octets
    R: the same without CRLF
    S: a line that has to come; ... stands for anything
    TLS            the client starts TLS
    END            the service has hung up; HANG UP: the client does
    LEFT alice 1 3 which of the mails put there before are still in a mailbox

Three mails lie in alice's mailbox, one in bob's.
"""

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "dialogs" / "pop3"
UIDS = {"1": "first.1", "2": "second.2", "3": "third.3", "4": "his.4"}


def _octets(text):
    repeated = re.sub(r"\{(.+?)\*(\d+)\}", lambda match: match[1] * int(match[2]), text)
    return repeated.encode().decode("unicode_escape").encode("latin-1")


def _pattern(text):
    return b".*".join(map(re.escape, _octets(text).split(b"...")))


class Player:
    """Plays the client of one dialog, line by line of its file."""

    def __init__(self, connect, left, port, tls):
        self._port, self._tls, self._left, self._connect = port, tls, left, connect
        self._unsent = b""
        self._client = connect(port, greeted=False)

    def play(self, line):
        word, _, rest = line.partition(" ")
        if word in ("C:", "R:"):
            self._unsent += _octets(rest) + (b"\r\n" if word == "C:" else b"")
            return
        self._send()
        match word:
            case "S:":
                got = self._client.line()
                assert re.fullmatch(_pattern(rest), got.removesuffix(b"\r\n")), f"{got!r} came instead of {rest!r}"
                assert got.endswith(b"\r\n")
            case "TLS":
                self._client.start_tls(self._tls)
            case "END":
                assert self._client.rest() == b""
            case "HANG":
                self._client.close()
            case "LEFT":
                account, *numbers = rest.split()
                assert self._left(account) == [UIDS[number] for number in numbers]
            case _:
                pytest.fail(f"what does {line!r} mean?")

    def _send(self):
        if self._unsent:
            self._client.send(self._unsent)
            self._unsent = b""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_goes_as_written(path, serve, connect, filled, left, client_tls):
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    word, mode, *cleartext = lines[0].split()
    assert word == "LISTENER"
    server = serve(mode, cleartext=bool(cleartext))
    player = Player(connect, left, server.port, client_tls)
    for line in lines[1:]:
        player.play(line)

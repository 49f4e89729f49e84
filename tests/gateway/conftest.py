"""The `gatepost` command in a working folder of its own, with a store and with ports at which nobody listens."""

import pytest

from gateway import __main__ as root
from gateway import cli
from gateway.store.engine import Store

LISTENERS = """
[[listeners]]
name = "mx"
kind = "mx"
address = "127.0.0.1:1"

[[listeners]]
name = "submission"
kind = "submission"
address = "127.0.0.1:2"
"""
"""Ports at which nobody listens."""


class Answering:
    async def a(self, name):
        return ()

    async def silent(self):
        return []


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEPOST_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "240")
    (tmp_path / "gatepost.toml").write_text(LISTENERS)
    return tmp_path


@pytest.fixture
def store(home):
    made = Store(f"sqlite:///{home}/var/gatepost.db")
    (home / "var" / "run").mkdir(parents=True)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def gatepost(home, capsys):
    """Run a verb; returns exit code, standard output and standard error."""

    def run(*arguments, dns=Answering, explain=root.explain):
        wiring = cli.Wiring(
            root.opened, root.supervise, root.serve, explain, lambda _config: dns(), root.try_store, root.report
        )
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(wiring, [str(one) for one in arguments])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run

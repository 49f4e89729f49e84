"""gatepost.toml: what applies without a file, where a file is looked for, and what is told of a faulty one."""

from pathlib import Path

import pytest

from gateway import config
from gateway.model import ListenerKind
from gateway.toml import FaultyFiles

APPLIANCE = Path(__file__).parents[2] / "appliance" / "gatepost.toml"


def load(tmp_path, text):
    path = tmp_path / "gatepost.toml"
    path.write_text(text)
    return config.load(path)


def faults(tmp_path, text):
    with pytest.raises(FaultyFiles) as told:
        load(tmp_path, text)
    return [(fault.line, fault.key) for fault in told.value.faults]


def test_without_a_file_everything_listens_on_loopback():
    made = config.load(None)
    addresses = [one.host_port for one in (*made.listeners, *made.pop3)]
    assert {host for host, _ in addresses} == {"127.0.0.1"}
    assert [port for _, port in addresses] == [2525, 2587, 2465, 2110, 2995]
    assert made.demo.mailboxes == ("alice", "bob")


def test_an_empty_file_listens_nowhere(tmp_path):
    made = load(tmp_path, "")
    assert made.listeners == ()
    assert made.pop3 == ()


def test_what_a_file_says_is_what_applies(tmp_path):
    made = load(
        tmp_path,
        """
        [server]
        hostname = "mx1.example.org"
        data = "/srv/mail"

        [[listeners]]
        name = "inside"
        kind = "relay"
        address = "[::1]:2526"
        networks = ["2001:db8::/32", "192.0.2.0/24"]

        [dns]
        servers = ["127.0.0.1:5353"]
        timeout = "250s"
        """,
    )
    [inside] = made.listeners
    assert inside.kind is ListenerKind.RELAY
    assert inside.host_port == ("::1", 2526)
    assert [str(network) for network in inside.networks] == ["2001:db8::/32", "192.0.2.0/24"]
    assert made.dns.timeout == 250.0
    assert made.store_url == "sqlite:////srv/mail/gatepost.db"
    assert made.run_dir == Path("/srv/mail/run")


def test_another_database_is_only_another_url(tmp_path):
    assert load(tmp_path, '[store]\nurl = "postgresql+psycopg://db/gatepost"\n').store_url.startswith("postgresql")


def test_the_example_of_the_appliance_is_right_and_names_every_key():
    made = config.load(APPLIANCE)
    assert made.server.hostname == "mx1.example.org"
    text = APPLIANCE.read_text()
    for name, field in config.Config.model_fields.items():
        if name in {"demo", "listeners", "pop3"}:
            continue
        assert f"[{name}]" in text
        for key in type(field.default).model_fields:
            assert f"\n{key} = " in text, f"{name}.{key}"


def test_all_faults_are_told_not_only_the_first(tmp_path):
    told = faults(tmp_path, '[server]\nhostnme = "a"\nscan_processes = 0\n[log]\nformat = "xml"\n')
    assert sorted(told) == [(2, "server.hostnme"), (3, "server.scan_processes"), (5, "log.format")]


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:25", "127.0.0.1:70000", "::1:25", "300.0.0.1:25", ""])
def test_what_is_no_address_and_port_is_refused(address):
    with pytest.raises(ValueError):
        config.split_address(address)


@pytest.mark.parametrize("name", ["mx1.example.org", "gateway", "a-b.c-d.example"])
def test_host_names(tmp_path, name):
    assert load(tmp_path, f'[server]\nhostname = "{name}"\n').server.hostname == name


@pytest.mark.parametrize("name", ["", "-a.example", "a..b", "a_b.example", "a" * 64 + ".example", "mx1.example.org."])
def test_what_is_no_host_name_is_refused(tmp_path, name):
    assert faults(tmp_path, f'[server]\nhostname = "{name}"\n') == [(2, "server.hostname")]


def test_a_file_is_found_by_name_then_by_variable_then_by_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GATEPOST_CONFIG", raising=False)
    monkeypatch.setattr(config, "PLACES", (Path("gatepost.toml"),))
    assert config.find() is None
    (tmp_path / "gatepost.toml").touch()
    assert config.find() == Path("gatepost.toml")
    monkeypatch.setenv("GATEPOST_CONFIG", "/from/variable.toml")
    assert config.find() == Path("/from/variable.toml")
    assert config.find(Path("/named.toml")) == Path("/named.toml")


def test_a_file_that_is_named_and_missing_is_told_not_passed_over(tmp_path):
    with pytest.raises(FaultyFiles, match="cannot be read"):
        config.load(tmp_path / "missing.toml")

"""The processes by name: the sockets that they get, and the files by which they are known."""

import asyncio
import json
import os
import socket

import pytest

from gateway import roles
from gateway.config import Config, Listener, Pop3Listener, Server
from gateway.model import ListenerKind


def mx(address="127.0.0.1:0", name="mx"):
    return Listener(name=name, kind=ListenerKind.MX, address=address)


def taken():
    other = socket.create_server(("127.0.0.1", 0))
    return other, f"127.0.0.1:{other.getsockname()[1]}"


def test_a_taken_port_is_told_with_its_listener_and_address():
    other, address = taken()
    with other, pytest.raises(roles.CannotListen) as told:
        roles.bind(mx(address, "front"))
    assert address in str(told.value)
    assert "front" in str(told.value)
    assert "taken" in str(told.value)


def test_an_address_of_another_machine_is_told():
    with pytest.raises(roles.CannotListen, match="no such address"):
        roles.bind(mx("192.0.2.1:2525"))


def test_sockets_are_made_for_tcp_so_that_replies_do_not_wait():
    with roles.bind(mx()) as bound:
        assert bound.proto == socket.IPPROTO_TCP
        assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_when_one_socket_cannot_be_bound_none_stays_open():
    other, address = taken()
    with other, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        with pytest.raises(roles.CannotListen):
            roles.bind_all([mx(free, "a"), mx(address, "b")])
        roles.bind(mx(free)).close()


def test_a_role_takes_the_sockets_that_it_was_handed_and_binds_the_others():
    with roles.bind(mx()) as bound:
        handed = os.dup(bound.fileno())
        got = roles.take_sockets([mx(), mx(name="other")], {roles.SOCKETS: f"mx={handed}"})
    assert got["mx"].getsockname() == bound.getsockname() if bound.fileno() >= 0 else got["mx"].fileno() == handed
    assert got["other"].getsockname()[1] != 0
    for one in got.values():
        one.close()


def test_a_process_is_known_while_it_runs_and_not_after(tmp_path):
    async def go():
        with roles.bind(mx()) as bound:
            async with roles.announced(tmp_path, roles.Role.SMTP, 2, {"mx": bound}):
                [process] = roles.known(tmp_path)
                assert process.pid == os.getpid()
                assert process.alive
                assert process.listeners["mx"].startswith("127.0.0.1:")
                assert roles.running(tmp_path) == {("smtp", 2)}

    asyncio.run(go())
    assert roles.known(tmp_path) == []


def test_a_process_that_finds_no_room_to_announce_itself_works_and_does_it_later(tmp_path, monkeypatch):
    monkeypatch.setattr(roles, "AGAIN", 0.01)
    (full := tmp_path / "deliver-1.new").mkdir()  # nothing can be written in its place

    async def go():
        async with roles.announced(tmp_path, roles.Role.DELIVER, 1, {}):
            assert roles.running(tmp_path) == set()
            await asyncio.sleep(0.03)
            full.rmdir()
            async with asyncio.timeout(5):
                while not roles.running(tmp_path):
                    await asyncio.sleep(0.01)

    asyncio.run(go())
    assert list(tmp_path.iterdir()) == []


def test_how_a_process_ended_is_known_until_the_next_start(tmp_path):
    roles.note_end(tmp_path, "smtp-1", "signal 9", 3)
    roles.note_end(tmp_path / "not there", "smtp-1", "signal 9", 3)
    ended = roles.end_of(tmp_path, "smtp-1")
    assert (ended.how, ended.times) == ("signal 9", 3)
    assert roles.end_of(tmp_path, "smtp-2") is None
    roles.forget_ends(tmp_path)
    assert roles.end_of(tmp_path, "smtp-1") is None


def test_a_file_left_by_a_killed_process_does_not_count_though_its_pid_is_in_use_again(tmp_path):
    left = {"role": "smtp", "number": 1, "pid": os.getpid(), "started": 0.0, "ticks": 1, "listeners": {}}
    (tmp_path / "smtp-1.pid").write_text(json.dumps(left))
    (tmp_path / "pop3-1.pid").write_text("nonsense")
    assert [process.alive for process in roles.known(tmp_path)] == [False]
    assert roles.running(tmp_path) == set()


def test_the_configuration_says_which_processes_there_are():
    config = Config(
        server=Server(smtp_processes=2), listeners=(mx(),), pop3=(Pop3Listener(name="pop3", address="127.0.0.1:0"),)
    )
    assert list(roles.processes(config)) == [("smtp", 1), ("smtp", 2), ("deliver", 1), ("pop3", 1)]
    assert list(roles.processes(Config())) == [("deliver", 1)]


def test_folders_are_made_for_nobody_but_us(tmp_path):
    config = Config(server=Server(data=tmp_path / "deep" / "data"))
    for _ in range(2):
        roles.make_folders(config)
    for folder in (config.server.data, config.run_dir):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_each_role_listens_for_itself_alone():
    pop3 = Pop3Listener(name="pop3", address="127.0.0.1:0")
    config = Config(listeners=(mx(),), pop3=(pop3,))
    assert [tuple(roles.listeners(config, role)) for role in roles.Role] == [(mx(),), (), (pop3,)]


def test_an_ipv6_socket_takes_no_ipv4_and_is_shown_in_brackets(tmp_path):
    async def announced(bound):
        async with roles.announced(tmp_path, roles.Role.SMTP, 1, {"mx": bound}) as process:
            return process.listeners["mx"]

    with roles.bind(mx("[::1]:0")) as bound:
        assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        assert asyncio.run(announced(bound)) == f"[::1]:{bound.getsockname()[1]}"


def test_a_socket_that_was_handed_over_is_not_handed_on_by_accident():
    with roles.bind(mx()) as bound:
        handed = os.dup(bound.fileno())
    os.set_inheritable(handed, True)
    taken_over = roles.take_sockets([mx()], {roles.SOCKETS: f"mx={handed}"})["mx"]
    with taken_over:
        assert not taken_over.get_inheritable()
        assert not taken_over.getblocking()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{", '{"role": "smtp"}', '{"more": 1}', '"' + "x" * roles.MAX_FILE + '"', "\x00\xff"],
)
def test_a_file_that_says_nothing_of_a_process_is_none(tmp_path, text):
    (tmp_path / "smtp-1.pid").write_text(text, "latin-1")
    (tmp_path / "smtp-1.ended").write_text(text, "latin-1")
    assert roles.known(tmp_path) == []
    assert roles.end_of(tmp_path, "smtp-1") is None


def test_what_is_noted_of_an_end_is_clean(tmp_path):
    roles.note_end(tmp_path, "smtp-1", "status 1\r\nforged\x1b[2J", 1)
    assert roles.end_of(tmp_path, "smtp-1").how.isprintable()

"""The list of system calls, as a machine reads it: each program is run by a small model of the kernel's own."""

import errno

import pytest

from gateway.pipeline import seccomp

X86, ARM = 0xC000003E, 0xC00000B7
ALLOWED, KILLED = 0x7FFF0000, 0x80000000


def refused(number: int) -> int:
    return 0x00050000 | number


def decided(machine: str, call: int, *arguments: int, parent: bool = False, architecture: int | None = None) -> int:
    """What the program for *machine* returns for a call (classic BPF over `struct seccomp_data`)."""
    known = {"x86_64": X86, "aarch64": ARM}[machine]
    words = {0: call, 4: known if architecture is None else architecture}
    for place in range(6):
        value = arguments[place] if place < len(arguments) else 0
        words[16 + 8 * place], words[20 + 8 * place] = value & 0xFFFFFFFF, value >> 32
    code, at, accumulator = seccomp.program(machine, parent=parent), 0, 0
    while True:
        operation, yes, no, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = words[operand]
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += yes if accumulator == operand else no
            case 0x35:
                at += yes if accumulator >= operand else no
            case 0x06:
                return operand
            case _:
                pytest.fail(f"no such operation: {operation}")


MACHINES = [("x86_64", 0), ("aarch64", 1)]
each_machine = pytest.mark.parametrize(("machine", "column"), MACHINES)


@each_machine
def test_what_a_worker_needs_is_allowed_and_nothing_of_it_forbidden_by_another_list(machine, column):
    for name, numbers in seccomp._WORK.items():
        if numbers[column] is not None:
            assert decided(machine, numbers[column]) == ALLOWED, name


@each_machine
def test_only_the_parent_of_workers_forks_kills_and_confines(machine, column):
    for name in ("kill", "wait4", "socketpair", "prctl", "sendmsg", "landlock_restrict_self"):
        number = seccomp._PARENTAL[name][column]
        assert decided(machine, number, parent=True) == ALLOWED, name
        assert decided(machine, number) != ALLOWED, name


@each_machine
@pytest.mark.parametrize("parent", [True, False])
def test_nobody_opens_a_file_makes_a_socket_or_runs_a_program(machine, column, parent):
    for name in ("openat", "newfstatat", "statx", "readlinkat"):
        assert decided(machine, seccomp._OPENING[name][column], parent=parent) == refused(errno.EACCES), name
    for name in ("execve", "socket", "connect", "ptrace", "mount", "io_uring_setup", "bpf", "memfd_create", "setuid"):
        assert decided(machine, seccomp._FORBIDDEN[name][column], parent=parent) == KILLED, name


@each_machine
def test_a_call_that_nobody_named_does_not_exist(machine, column):
    assert decided(machine, 900 + column) == refused(errno.ENOSYS)


@each_machine
def test_calls_in_the_numbers_of_another_architecture_end_the_process(machine, column):
    assert decided(machine, 0, architecture=(ARM, X86)[column]) == KILLED
    assert decided(machine, 3, architecture=0x40000003) == KILLED, "i386 on x86_64"


def test_x32_is_another_architecture():
    assert decided("x86_64", 0x40000000) == KILLED


@each_machine
@pytest.mark.parametrize("parent", [True, False])
def test_memory_is_private_and_never_code(machine, column, parent):
    call = (9, 222)[column]
    assert decided(machine, call, 0, 4096, 3, 0x22, parent=parent) == ALLOWED
    assert decided(machine, call, 0, 4096, 7, 0x22, parent=parent) == refused(errno.EACCES)
    for shared in (0x01, 0x03, 0x21):
        assert decided(machine, call, 0, 4096, 1, shared, parent=parent) == refused(errno.EACCES)
    assert decided(machine, (10, 226)[column], 0, 4096, 5, parent=parent) == refused(errno.EACCES)


@each_machine
def test_a_worker_sends_to_the_gateway_and_to_nobody_it_names(machine, column):
    call = (44, 206)[column]
    assert decided(machine, call, 3, 1 << 40, 10, 0, 0) == ALLOWED
    assert decided(machine, call, 3, 1 << 40, 10, 0, 1 << 40) == refused(errno.EACCES)
    assert decided(machine, call, 3, 1 << 40, 10, 0, 4096) == refused(errno.EACCES)


@each_machine
def test_a_worker_sets_no_limit(machine, column):
    assert decided(machine, (302, 261)[column], 0, 0) == refused(errno.ENOSYS)


@each_machine
def test_a_worker_gets_no_thread_and_is_ended_for_a_process(machine, column):
    call = (56, 220)[column]
    assert decided(machine, call, 0x10000) == refused(errno.EAGAIN)
    assert decided(machine, call, 17) == KILLED
    assert decided(machine, call, 17, parent=True) == ALLOWED
    assert decided(machine, 435) == refused(errno.ENOSYS), "clone3, whose flags the kernel cannot show"


def test_a_machine_whose_numbers_are_unknown_has_no_list(monkeypatch):
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "vax")
    assert not seccomp.available()
    with pytest.raises(OSError, match="not known"):
        seccomp.apply(parent=False)

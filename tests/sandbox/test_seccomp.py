"""The filter, run through a small BPF interpreter: what it decides for a system call."""

from __future__ import annotations

import errno
import struct

import pytest

from code_repair_rl.sandbox.seccomp import seccomp_filter

ALLOW, KILL = 0x7FFF0000, 0x80000000
X86, ARM = 0xC000003E, 0xC00000B7
NUMBERS = {"x86_64": {"ptrace": 101, "read": 0, "clone": 56, "socket": 41, "mount": 165, "clone3": 435},
           "aarch64": {"ptrace": 117, "read": 63, "clone": 220, "socket": 198, "mount": 40, "clone3": 435}}  # fmt: skip


def decide(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """The return value of a filter for one system call."""
    data = struct.pack("=iIQQ", number, architecture, 0, argument)
    instructions = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x06:
            return value
        else:
            held = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[code]
            at += if_true if held else if_false


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", X86), ("aarch64", ARM)])
class TestFilter:
    def test_ordinary_calls_pass(self, machine: str, architecture: int) -> None:
        assert decide(seccomp_filter(machine=machine), architecture, NUMBERS[machine]["read"]) == ALLOW

    def test_tracing_and_mounting_are_refused(self, machine: str, architecture: int) -> None:
        for name in ("ptrace", "mount"):
            verdict = decide(seccomp_filter(machine=machine), architecture, NUMBERS[machine][name])
            assert verdict == 0x00050000 | errno.EPERM

    def test_clone_makes_threads_but_no_namespaces(self, machine: str, architecture: int) -> None:
        program, clone = seccomp_filter(machine=machine), NUMBERS[machine]["clone"]
        assert decide(program, architecture, clone, 0x003D0F00) == ALLOW
        assert decide(program, architecture, clone, 0x10000000) == 0x00050000 | errno.EPERM
        assert decide(program, architecture, NUMBERS[machine]["clone3"]) == 0x00050000 | errno.ENOSYS

    def test_a_fork_server_may_make_namespaces(self, machine: str, architecture: int) -> None:
        program = seccomp_filter(machine=machine, allow=("clone", "mount"))
        assert decide(program, architecture, NUMBERS[machine]["clone"], 0x10000000) == ALLOW
        assert decide(program, architecture, NUMBERS[machine]["mount"]) == ALLOW
        assert decide(program, architecture, NUMBERS[machine]["ptrace"]) == 0x00050000 | errno.EPERM

    def test_only_unix_and_ip_sockets(self, machine: str, architecture: int) -> None:
        program, socket = seccomp_filter(machine=machine), NUMBERS[machine]["socket"]
        assert [decide(program, architecture, socket, family) == ALLOW for family in (1, 2, 10)] == [True] * 3
        for family in (16, 17, 38, 40):
            assert decide(program, architecture, socket, family) == 0x00050000 | errno.EAFNOSUPPORT

    def test_another_architecture_is_killed(self, machine: str, architecture: int) -> None:
        assert decide(seccomp_filter(machine=machine), 0x40000003, 0) == KILL


def test_the_x32_table_is_refused() -> None:
    assert decide(seccomp_filter(machine="x86_64"), X86, 0x40000000 | 101) == 0x00050000 | errno.EPERM


def test_a_machine_that_is_not_known_gets_no_filter() -> None:
    assert seccomp_filter(machine="riscv64") == b""

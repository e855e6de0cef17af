"""A seccomp filter as classic BPF, assembled here: system calls that tests never need are refused.

The filter is a deny list. What it refuses: creating namespaces and mounts, tracing, memory that no limit counts
(`memfd_create`, System V shared memory), `io_uring`, `bpf`, keys, kernel modules, and sockets of any family but
UNIX and IP (`AF_VSOCK` is not confined by a network namespace). Numbers: Linux `syscall_64.tbl` and
`asm-generic/unistd.h`.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Collection

_X86_64 = {
    "shmget": 29, "shmat": 30, "shmctl": 31, "socket": 41, "clone": 56, "semget": 64, "semop": 65, "semctl": 66,
    "shmdt": 67, "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "ptrace": 101, "syslog": 103,
    "uselib": 134, "personality": 135, "ustat": 136, "sysfs": 139, "vhangup": 153, "modify_ldt": 154,
    "pivot_root": 155, "_sysctl": 156, "adjtimex": 159, "chroot": 161, "acct": 163, "settimeofday": 164,
    "mount": 165, "umount2": 166, "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170,
    "setdomainname": 171, "iopl": 172, "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179,
    "nfsservctl": 180, "io_setup": 206, "lookup_dcookie": 212, "clock_settime": 227, "mbind": 237,
    "set_mempolicy": 238, "mq_open": 240, "mq_unlink": 241, "kexec_load": 246, "add_key": 248, "request_key": 249,
    "keyctl": 250, "migrate_pages": 256, "unshare": 272, "move_pages": 279, "perf_event_open": 298,
    "fanotify_init": 300, "name_to_handle_at": 303, "open_by_handle_at": 304, "clock_adjtime": 305, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "memfd_create": 319,
    "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip
_AARCH64 = {
    "io_setup": 0, "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "chroot": 51, "vhangup": 58,
    "quotactl": 60, "acct": 89, "personality": 92, "unshare": 97, "kexec_load": 104, "init_module": 105,
    "delete_module": 106, "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "sethostname": 161,
    "setdomainname": 162, "settimeofday": 170, "adjtimex": 171, "mq_open": 180, "mq_unlink": 181, "msgget": 186,
    "msgctl": 187, "msgrcv": 188, "msgsnd": 189, "semget": 190, "semctl": 191, "semtimedop": 192, "semop": 193,
    "shmget": 194, "shmctl": 195, "shmat": 196, "shmdt": 197, "socket": 198, "add_key": 217, "request_key": 218,
    "keyctl": 219, "clone": 220, "swapon": 224, "swapoff": 225, "mbind": 235, "set_mempolicy": 237,
    "migrate_pages": 238, "move_pages": 239, "perf_event_open": 241, "fanotify_init": 262,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "clock_adjtime": 266, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "memfd_create": 279,
    "bpf": 280, "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip
_SAME_EVERYWHERE = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "clone3": 435, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "memfd_secret": 447,
}  # fmt: skip

_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}
"""`AUDIT_ARCH_*` (linux/audit.h) and the table, by `platform.machine()`."""

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCH_AT, _ARGUMENT_AT = 0, 4, 16
_X32_BIT = 0x40000000
_NEW_NAMESPACE_FLAGS = 0x7E020080
"""`CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}` (linux/sched.h)."""
_SOCKET_FAMILIES = (1, 2, 10)
"""`AF_UNIX`, `AF_INET`, `AF_INET6`."""


def seccomp_filter(*, allow: Collection[str] = (), machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`, ready for bubblewrap's `--seccomp` or for `prctl`.

    Args:
        allow: names of system calls that this filter must not refuse (`mount` and `clone` with namespaces for a
            fork server that isolates its own children).
        machine: `x86_64` or `aarch64`; by default this machine's.

    Returns:
        Bytes, empty on a machine whose numbers are not known here: no filter is then installed.
    """
    known = _MACHINES.get(machine or platform.machine())
    if known is None:
        return b""
    architecture, table = known
    numbers = {**table, **_SAME_EVERYWHERE}
    refused = [numbers[name] for name in numbers if name not in {*allow, "clone", "clone3", "socket"}]
    program = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]
    for number in sorted(refused):
        program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    if "clone" not in allow:
        # clone3 hides its flags behind a pointer: "not implemented" makes the C library fall back to clone.
        program += [(_JUMP_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
        program += [
            (_JUMP_EQUAL, 0, 4, numbers["clone"]),
            (_LOAD, 0, 0, _ARGUMENT_AT),
            (_JUMP_SET, 0, 1, _NEW_NAMESPACE_FLAGS),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
            (_RETURN, 0, 0, _ALLOW),
        ]
    families = len(_SOCKET_FAMILIES)
    program += [(_JUMP_EQUAL, 0, families + 2, numbers["socket"]), (_LOAD, 0, 0, _ARGUMENT_AT)]
    program += [(_JUMP_EQUAL, families - index, 0, family) for index, family in enumerate(_SOCKET_FAMILIES)]
    program += [(_RETURN, 0, 0, _ERRNO | errno.EAFNOSUPPORT), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)

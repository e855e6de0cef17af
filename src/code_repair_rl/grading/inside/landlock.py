"""Landlock: this process and its children may from now on write only below the folders named."""

from __future__ import annotations

import ctypes
import os

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
"""System call numbers, the same on every architecture (asm-generic/unistd.h)."""
_PATH_BENEATH = 1
_VERSION = 1
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3
_RIGHTS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""File-system rights (linux/landlock.h): 13 in ABI 1, REFER since 2, TRUNCATE since 3."""


def confine_writes(folders: list[str]) -> bool:
    """Deny writing everywhere but below `folders`; reading stays as it is. False where the kernel cannot do it."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if abi < 1:
        return False
    rights = _RIGHTS_BY_ABI[min(abi, 3)]
    handled = ctypes.c_uint64(rights)
    ruleset = libc.syscall(_CREATE, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    try:
        for folder, allowed in [("/", _EXECUTE | _READ_FILE | _READ_DIR), *((folder, rights) for folder in folders)]:
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            rule = (ctypes.c_uint32 * 3)(allowed & 0xFFFFFFFF, allowed >> 32, descriptor)
            failed = libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
            os.close(descriptor)
            if failed:
                return False
        return bool(libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT, ruleset, 0) == 0)
    finally:
        os.close(ruleset)

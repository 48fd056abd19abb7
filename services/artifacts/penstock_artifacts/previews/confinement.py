"""The privileges that a child drops before it reads untrusted bytes.

Three layers, each as far as the machine permits: no network and no files (a new network namespace, an empty root
folder), no new programs and sockets (a seccomp filter), and limits on time, memory and file sizes. The last always
applies; the functions return which of the others do.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x10000000, 0x40000000, 0x08000000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2

# Numbers of socket, connect, bind, execve, execveat, ptrace, kill; and the architecture as the kernel names it.
_REFUSED = {
    "x86_64": (0xC000003E, (41, 42, 49, 59, 322, 101, 62)),
    "aarch64": (0xC00000B7, (198, 203, 200, 221, 281, 117, 129)),
}
_LOAD, _EQUAL, _BEYOND, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _KILL, _EPERM = 0x7FFF0000, 0x80000000, 0x00050001
_X32 = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def begin(parent: int, seconds: int) -> list[str]:
    """Before imports: die with the parent, limit time and files, drop the network. Single-threaded.

    Args:
        parent: process id of the parent.
        seconds: CPU time.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # At the first limit comes a signal that Python can report, at the second one SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    done: list[str] = []
    for flags in (_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC, _CLONE_NEWNET | _CLONE_NEWIPC):
        if _libc.unshare(flags) == 0:
            done.append("network")
            break
    return done


def confine(memory: int) -> list[str]:
    """After imports, before the bytes are read: no files, no programs, limited memory.

    Args:
        memory: bytes in addition to those in use now.
    """
    done: list[str] = []
    data = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (data + memory, data + memory))
    try:
        os.chroot(".")
        os.chdir("/")
        done.append("files")
    except OSError:
        pass  # without a user namespace only root can
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _filter():
        done.append("programs")
    return done


def _filter() -> bool:
    """Refuse system calls that reach other machines and programs; those of another architecture kill."""
    known = _REFUSED.get(platform.machine())
    if known is None:
        return False
    architecture, refused = known
    steps = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
        (_BEYOND, 0, 1, _X32),
        (_RETURN, 0, 0, _KILL),
    ]
    for left, number in zip(range(len(refused) - 1, -1, -1), refused, strict=True):
        steps.append((_EQUAL, left + 1, 0, number))
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _EPERM)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(program)))
    return _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0) == 0

"""The end of a step's process, as Python ends a program: threads, exit handlers, open files.

A forked child cannot end through the interpreter, because the fork server's stack lies below it, so the same happens
here. `join_threads` comes before the outputs are saved, because a thread may still write them; `finish` comes after
that. Only then the attempt's result is reported, so a thread that never ends runs into the step's time-out.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import io
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from penstock.runner import linux

_NOTICE = 5.0
"""Seconds that threads may take to end before the step's output names them."""

_WRITABLE = (os.O_WRONLY, os.O_RDWR)
_BUFFERED = ("/", "pipe:", "socket:")
_DEVICES = ("/dev/null", "/dev/nvidia", "/dev/dri", "/dev/kfd", "/dev/infiniband")
_ARCHIVES = ("shelve", "zipfile")


def adopt() -> None:
    """In a new child: leave to the fork server what was made while modules were imported, and what Python ends with it.

    A `TemporaryDirectory` at the top of a module, or a `multiprocessing.Process` started there, is shared by all
    attempts: the first one that ends must not remove it. `atexit` handlers of modules run in each attempt.
    """
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        finalizer.atexit = False
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes._children.clear()


def join_threads() -> None:
    """Wait for all threads that are no daemons, and for the tasks of executors; name those that take long."""
    # A thread more than most steps have, so only where there is something to wait for.
    timer = threading.Timer(_NOTICE, _name_threads) if _threads() else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    threading._shutdown()  # type: ignore[attr-defined] # multiprocessing ends its processes with this function, too
    if timer is not None:
        timer.cancel()


def _name_threads() -> None:
    names = ", ".join(thread.name for thread in _threads()[:10])
    print(f"[penstock] the step has returned and waits for its threads: {names}", file=sys.stderr)  # noqa: T201 - for readers of the step's output


def _threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]


def finish(own: set[int]) -> None:
    """Run exit handlers (among them the flush of `logging`), then write what is buffered.

    Args:
        own: file descriptors of the platform, for which nothing is buffered.
    """
    join_threads()
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - multiprocessing uses it, too; it reports the exceptions of handlers, as Python does
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # the user may have replaced, closed or broken it
            stream.flush()
    if _has_open_files(own | {0, 1, 2}):
        _write_files()
    linux.flush_c_streams()


def _has_open_files(own: set[int]) -> bool:
    """Whether a file, pipe or socket is open for writing, so that bytes may be buffered for it."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - for each attempt
        with suppress(OSError):  # the listing's own descriptor
            descriptor = int(name)
            if descriptor not in own and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE in _WRITABLE:
                kind = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
                if kind.startswith(_BUFFERED) and not kind.startswith(_DEVICES):
                    return True
    return False


def _write_files() -> None:
    """Find the open files and write their buffers: text, then compressed files and archives, then bytes."""
    gc.unfreeze()
    objects = gc.get_objects()
    files = [one for one in objects if issubclass(type(one), io.IOBase)]
    for file in files:
        if type(file) is io.TextIOWrapper:
            _write(file, file.flush)
    archives = [one for one in objects if type(one).__module__ in _ARCHIVES and hasattr(one, "close")]
    for one in [*files, *archives]:
        if type(one).__module__ != "_io":  # Python closes them when it deletes them, which writes their end
            _write(one, one.close)
    for file in files:
        if type(file) in (io.BufferedWriter, io.BufferedRandom):
            _write(file, file.flush)


def _write(file: Any, method: Callable[[], Any]) -> None:
    try:
        if not getattr(file, "closed", False):
            method()
    except Exception:
        traceback.print_exc()  # into the step's output: Python ignores it, too

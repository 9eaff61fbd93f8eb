"""Importing this takes away from Python what only POSIX systems, or only Linux, have; see test_bare_machine.py.

Afterwards a process has no fcntl, no resource, no /proc, no fork, no CPU affinity, no load average, no signal masks
and, for voxlate, no sysconf; new processes are spawned, and as on Windows no file is replaced that this process has
open or mapped. Ctrl-C is ignored as Windows does it. psutil keeps all of it: on other systems it has other means.
"""

import builtins
import io
import os
import signal
import sys
import types

import psutil  # noqa: F401 - while it finds all

TAKEN = {
    os: ("fork", "forkpty", "sched_getaffinity", "sched_setaffinity", "getloadavg"),
    signal: ("pthread_sigmask", "pthread_kill", "sigwait"),
}
_open, _listdir, _readlink, _replace, _sysconf = (
    builtins.open,
    os.listdir,
    os.readlink,
    os.replace,
    os.sysconf,
)


def _without_proc(file, *arguments, **options):
    if isinstance(file, str | os.PathLike) and os.fspath(file).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", os.fspath(file))
    return _open(file, *arguments, **options)


def _not_for_voxlate(name):
    if sys._getframe(1).f_globals.get("__name__", "").startswith("voxlate"):
        raise AttributeError("module 'os' has no attribute 'sysconf'")
    return _sysconf(name)  # which asyncio takes for granted where there are POSIX sockets


def _unless_open(source, target, **options):
    for path in (source, target):
        if _is_open(os.path.realpath(path)):
            raise PermissionError(13, "The file is open in this process", os.fspath(path))
    _replace(source, target, **options)


def _is_open(path: str) -> bool:
    for number in _listdir("/proc/self/fd"):
        try:
            if _readlink(f"/proc/self/fd/{number}") == path:
                return True
        except OSError:  # the descriptor of the listing itself
            continue
    with _open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        return any(line.rstrip("\n").endswith(path) for line in maps)


def _keep_for_psutil() -> None:
    own = types.ModuleType("os")
    vars(own).update(vars(os))
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "psutil":
            vars(module).update(os=own, open=_open)


_keep_for_psutil()
for _module, _names in TAKEN.items():
    for _name in _names:
        if hasattr(_module, _name):
            delattr(_module, _name)
sys.modules["fcntl"] = sys.modules["resource"] = None  # type: ignore[assignment]
builtins.open = io.open = _without_proc
os.sysconf, os.replace = _not_for_voxlate, _unless_open

import multiprocessing  # noqa: E402 - it looks for signal masks when it is imported

multiprocessing.set_start_method("spawn", force=True)

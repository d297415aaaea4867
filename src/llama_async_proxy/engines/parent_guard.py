"""Ties a process's life to that of the service, as a program: `python leash.py [--family] PROGRAM ARGUMENTS...`.

It asks the kernel to kill this process when the service dies, then becomes PROGRAM; the request survives exec.
A child that waits for the end of its stdin would notice too, but llama-server does so only once it has loaded.
With --family what PROGRAM itself has started ends with it, too. Linux only: elsewhere the program simply runs.
Standard library only, for it starts before every model.
"""

from __future__ import annotations

import os
import select
import signal
import sys

OWNER_VARIABLE = "LLAMA_ASYNC_PROXY_OWNER"
"""Environment variable with the process id of the service; unset when a person runs the program by hand."""

PR_SET_PDEATHSIG = 1
OOM_SCORE_ADJ = 500
"""Half of the range above 0: as if the process held half of the machine's memory more."""


def tie_to_owner() -> None:
    """Die with the owner. Ends this process at once if the owner is gone already."""
    owner = os.environ.get(OWNER_VARIABLE, "")
    if not owner.isdecimal() or sys.platform != "linux":
        return
    volunteer_for_oom_killer()
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(owner):  # it died before the request was made
        os._exit(1)


def volunteer_for_oom_killer() -> None:
    """Let a kernel that runs out of memory end this process, a model, before the service that owns it.

    The score survives exec and passes to children. Raising it needs no privilege (man 5 proc_pid_oom_score_adj).
    """
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs 20 ms
            if int(file.read()) < OOM_SCORE_ADJ:
                file.seek(0)
                file.write(str(OOM_SCORE_ADJ))
    except (OSError, ValueError):  # no /proc here, or a sandbox that forbids it
        return


def guard_group() -> None:
    """Leave a process in our group that kills the group when this one has ended, whoever is left to notice.

    The kernel's signal reaches only the process that asked for it, not what that one has started.
    """
    if sys.platform != "linux":
        return
    try:
        us = os.pidfd_open(os.getpid())
    except OSError:  # a kernel before 5.3
        return
    first = os.fork()
    if first == 0:
        if os.fork() == 0:
            _kill_group_after(us)
        os._exit(0)
    os.waitpid(first, 0)  # what stays is nobody's child, so that the program never waits for it
    os.close(us)


def _kill_group_after(process: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # an open pipe would look as if the program still lived
        os.dup2(nothing, stream)
    select.select([process], [], [])
    os.killpg(0, signal.SIGKILL)


def main(argv: list[str]) -> int:
    tie_to_owner()
    if argv[0] == "--family":
        guard_group()
        argv = argv[1:]
    try:
        os.execv(argv[0], argv)  # noqa: S606 - a shell is what must not come between
    except OSError as exc:
        sys.stderr.write(f"error: cannot run {argv[0]}: {exc.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

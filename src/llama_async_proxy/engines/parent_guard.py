"""Parent-death guard: `python parent_guard.py [--family] PROGRAM ARGUMENTS...`.

The guard asks the kernel to kill this process when its parent dies (man 2 prctl, PR_SET_PDEATHSIG), then becomes
PROGRAM by exec, which keeps the request. Waiting for the end of stdin is not enough: llama-server does so only after
its load (llama.cpp b11434, tools/server/server-models.cpp). With --family, processes that PROGRAM has started end with
it, too. Only Linux has the kernel's help; elsewhere the program runs without a guard. Imports the standard library
only, because it starts before every model.
"""

from __future__ import annotations

import os
import select
import signal
import sys

PARENT_VARIABLE = "LLAMA_ASYNC_PROXY_OWNER"
"""Environment variable with the process id of the service; unset when a user runs the program by hand."""

PR_SET_PDEATHSIG = 1
OOM_SCORE_ADJ = 500
"""Half of the positive range: the kernel counts half of the machine's memory on top of the process's own."""


def die_with_parent() -> None:
    """Make the kernel kill this process when its parent dies. Exits at once if the parent has died already."""
    parent = os.environ.get(PARENT_VARIABLE, "")
    if not parent.isdecimal() or sys.platform != "linux":
        return
    raise_oom_score()
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # The parent died before the request was made.
        os._exit(1)


def raise_oom_score() -> None:
    """Make a kernel that runs out of memory kill this process, a model, before the service.

    The score survives exec and is inherited. Raising it needs no privilege (man 5 proc_pid_oom_score_adj).
    """
    try:
        with open("/proc/self/oom_score_adj", "r+", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs 20 ms
            if int(file.read()) < OOM_SCORE_ADJ:
                file.seek(0)
                file.write(str(OOM_SCORE_ADJ))
    except (OSError, ValueError):  # There is no /proc, or a sandbox forbids the write.
        return


def start_group_guard() -> None:
    """Fork a process that kills our process group once this process has ended.

    The kernel's signal reaches only the process that asked for it, not the processes which that one has started.
    """
    if sys.platform != "linux":
        return
    try:
        pid_file = os.pidfd_open(os.getpid())
    except OSError:  # The kernel is older than 5.3.
        return
    first = os.fork()
    if first == 0:
        if os.fork() == 0:
            _kill_group_after(pid_file)
        os._exit(0)
    os.waitpid(first, 0)  # The grandchild is adopted by init, so that the program never waits for it.
    os.close(pid_file)


def _kill_group_after(process: int) -> None:
    """Wait until the process of a pidfd has ended, then kill the group, this process included."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # An open pipe would look as if the program still ran.
        os.dup2(null, stream)
    select.select([process], [], [])
    os.killpg(0, signal.SIGKILL)


def main(argv: list[str]) -> int:
    die_with_parent()
    if argv[0] == "--family":
        start_group_guard()
        argv = argv[1:]
    try:
        os.execv(argv[0], argv)  # noqa: S606 - no shell may come between
    except OSError as exc:
        sys.stderr.write(f"error: cannot run {argv[0]}: {exc.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Ties a process's life to that of the service, as a program: `python leash.py PROGRAM ARGUMENTS...`.

It asks the kernel to kill this process when the service dies, then becomes PROGRAM; the request survives exec.
A child that waits for the end of its stdin would notice too, but llama-server does so only once it has loaded.
Linux only: elsewhere the program simply runs. Standard library only, for it starts before every model.
"""

from __future__ import annotations

import os
import signal
import sys

OWNER_VARIABLE = "LLAMA_ASYNC_PROXY_OWNER"
"""Environment variable with the process id of the service; unset when a person runs the program by hand."""

PR_SET_PDEATHSIG = 1


def tie_to_owner() -> None:
    """Die with the owner. Ends this process at once if the owner is gone already."""
    owner = os.environ.get(OWNER_VARIABLE, "")
    if not owner.isdecimal() or sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(owner):  # it died before the request was made
        os._exit(1)


def main(argv: list[str]) -> int:
    tie_to_owner()
    try:
        os.execv(argv[0], argv)  # noqa: S606 - a shell is what must not come between
    except OSError as exc:
        sys.stderr.write(f"error: cannot run {argv[0]}: {exc.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A program that misbehaves on demand: `python child.py MODE [ARGUMENT]`. Standard library only."""

import os
import signal
import sys
import time


def odd_lines() -> None:
    """Lines that a careless reader loses: long, not UTF-8, empty, with CR, without an end."""
    out = sys.stdout.buffer
    out.write(b"first\r\n" + b"x" * 1_000_000 + b"\n" + b"caf\xe9 \xff\n" + b"\n" + "naïve ✓".encode())
    out.flush()
    sys.stderr.write("no end")


def wait(*, deaf: bool = False) -> None:
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
    time.sleep(600)


def family() -> None:
    """Start a grandchild that ignores SIGTERM and holds our pipes; print its pid."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    print(pid, flush=True)


def echo() -> None:
    for line in sys.stdin:
        print(line.strip(), flush=True)
    print("stdin ended", flush=True)


mode, *rest = sys.argv[1:]
if mode == "odd-lines":
    odd_lines()
elif mode == "wait":
    wait()
elif mode == "deaf":
    wait(deaf=True)
elif mode == "family":
    family()
    time.sleep(600)
elif mode == "dying-family":
    family()
    sys.exit(3)
elif mode == "echo":
    echo()
elif mode == "exit":
    sys.exit(int(rest[0]))
elif mode == "environment":
    print(os.environ.get(rest[0], "unset"))
    print(os.getpid() == os.getpgid(0) == os.getsid(0))

#!/usr/bin/env python3
"""A llama-server without llama.cpp: loopback HTTP, the state lines, and faults chosen by --fake-* options.

Understands the flags the engine passes and ignores the rest. Standard library only, started with -I -S for speed.

    --fake-silent           reports no state, as a foreign server would
    --fake-gate FILE        loads until FILE exists
    --fake-progress N       reports N steps of loading at once
    --fake-fail             logs an error and exits 1 while loading
    --fake-starts FILE      counts its starts in FILE ...
    --fake-bad-from N       ... and fails from start number N (1 is the first) on
    --fake-taken N          ... and finds its port taken in the first N starts
    --fake-false-ready      reports ready, answers 503, exits 7
    --fake-busy FILE        has a request running while FILE exists
    --fake-deaf             ignores SIGTERM and the exit command

A chat completion streams back the words of the last message, one an event. A message that begins with "fail" is
refused, one that begins with "break" is broken off after its first word, "ponder" makes reasoning of all words but the
last, and "wait FILE" pauses after its first word until FILE exists.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

arguments = sys.argv[1:]
if arguments == ["--help"]:
    sys.stdout.write(Path(__file__).with_name("engine_help.txt").read_text())
    sys.exit()
ready = threading.Event()


def option(name: str, default: str = "") -> str:
    flag = f"--{name}"
    return arguments[arguments.index(flag) + 1] if flag in arguments else default


def log(level: str, text: str) -> None:
    sys.stderr.write(f"0.00.001.234 {level} {text}\n")
    sys.stderr.flush()


def say(state: str, **payload: object) -> None:
    if "--fake-silent" not in arguments:
        sys.stdout.write(f"cmd_child_to_router:state:{json.dumps({'state': state, 'payload': payload})}\n")
        sys.stdout.flush()


def fail(text: str) -> None:
    log("E", f"srv  llama_server: {text}")
    os._exit(1)


def watch_stdin() -> None:
    for line in sys.stdin:
        if line == "cmd_router_to_child:exit\n" and "--fake-deaf" not in arguments:
            log("I", "srv  main: told to exit")
            os._exit(0)
    os._exit(1)


def count_start() -> int:
    path = option("fake-starts")
    if not path:
        return 1
    with Path(path).open("a") as file:
        file.write("x")
    return Path(path).stat().st_size


def listen() -> socket.socket:
    listener = socket.socket()
    listener.bind((option("host"), int(option("port"))))
    listener.listen()
    return listener


def answer(path: str) -> tuple[int, object]:
    if not ready.is_set():
        return 503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
    if path == "/health":
        return 200, {"status": "ok"}
    if path == "/props" and "--fake-silent" not in arguments:
        return 200, {"model_path": option("model"), "total_slots": 2, "default_generation_settings": {"n_ctx": 2048}}
    if path == "/slots":
        return 200, [{"id": 0, "is_processing": bool(option("fake-busy")) and Path(option("fake-busy")).exists()}]
    if path == "/fake/arguments":
        return 200, arguments
    if path.startswith("/fake/say/"):
        say(path.rpartition("/")[2])
        return 200, {}
    return 404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}


def event(connection: socket.socket, document: object) -> None:
    data = b"data: %s\n\n" % json.dumps(document, separators=(",", ":")).encode()
    connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))


def chat(connection: socket.socket, request: str) -> None:
    asked = json.loads(request.partition("\r\n\r\n")[2])
    content = asked["messages"][-1]["content"]
    words = str(content if isinstance(content, str) else content[-1].get("text", "an image")).split()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number, word in enumerate(words):
        kind = "reasoning_content" if words[0] == "ponder" and number < len(words) - 1 else "content"
        event(connection, {"choices": [{"delta": {kind: word if number == 0 else f" {word}"}}]})
        if number == 0 and word == "break":
            return
        while number == 0 and word == "wait" and not Path(words[1]).exists():
            time.sleep(0.005)
    usage = {"prompt_tokens": len(asked["messages"]), "completion_tokens": len(words)}
    event(connection, {"choices": [], "usage": usage, "timings": {"predicted_per_second": 50.0}})
    connection.sendall(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


def whole(connection: socket.socket) -> str:
    """A request with its body."""
    request = connection.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return (head + b"\r\n\r\n" + body).decode()


def serve(connection: socket.socket) -> None:
    with connection:
        request = whole(connection)
        if " /v1/chat/completions " in request and '"content":"fail' not in request:
            chat(connection, request)
            return
        status, document = answer(request.split(" ")[1])
        body = json.dumps(document).encode()
        connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


def accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def load() -> None:
    steps = int(option("fake-progress", "1"))
    for step in range(steps):
        say("loading", stages=["text_model"], current="text_model", value=step / steps)
    if "--fake-fail" in arguments:
        fail("made to fail")
    while option("fake-gate") and not Path(option("fake-gate")).exists():
        time.sleep(0.005)
    if "--fake-false-ready" in arguments:
        say("ready")
        time.sleep(0.1)
        os._exit(7)
    ready.set()
    say("ready", id=option("alias"))


if "--fake-deaf" in arguments:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=watch_stdin, daemon=True).start()
start = count_start()
if start <= int(option("fake-taken", "0")):
    fail("couldn't bind HTTP server socket")
if start >= int(option("fake-bad-from", "1000000")):
    fail(f"start {start} is bad")
listener = listen()
threading.Thread(target=accept, args=(listener,), daemon=True).start()
load()
threading.Event().wait()

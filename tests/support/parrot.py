"""A small OpenAI-compatible server of another kind: `python parrot.py PORT [NAME]`. Standard library only.

It repeats what it is told, names itself in `model`, answers GET /ready once PARROT_GATE (a file) exists, and knows none
of llama-server's own routes. GET /quit ends it politely: it prints a line first. PARROT_FAMILY=1 starts a helper
process that ignores SIGTERM, and prints its id.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

port, name = int(sys.argv[1]), (sys.argv[2:] or ["parrot"])[0]


class Parrot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        gate = os.environ.get("PARROT_GATE")
        if self.path == "/ready":
            self.answer(200 if gate is None or Path(gate).exists() else 503, {"directory": str(Path.cwd())})
        elif self.path == "/quit":
            self.answer(200, {})
            print("parrot: goodbye", flush=True)
            os._exit(0)
        else:
            self.answer(404, {"error": {"message": f"no {self.path}"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"]
        if body.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            for word in said.split():
                chunk = {"model": name, "choices": [{"index": 0, "delta": {"content": word + " "}}]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
            return
        message = {"role": "assistant", "content": said}
        self.answer(200, {"model": name, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

    def answer(self, status: int, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Quiet: what it prints is for the tests."""


if os.environ.get("PARROT_FAMILY"):
    helper = os.fork()
    if helper == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    print(f"parrot: helper {helper}", flush=True)
print(f"parrot: pid {os.getpid()}", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), Parrot).serve_forever()

"""llama-server on the xllamacpp wheel: `python -m llama_async_proxy.engines.embedded <llama-server arguments>`.

The wheel's Python interface has no argument parser, but its shared object exports the one of llama.cpp. Called through
ctypes on the C++ struct inside a CommonParams object, the parser accepts every flag of llama-server, the LLAMA_ARG_*
variables, --help and --version. The interface is private, so exactly one version of the wheel (xllamacpp
2026.10.11549) is accepted. Exit codes are those of llama-server: 0 after SIGTERM or SIGINT, 1 for bad arguments or a
failed load.

The module imports only the parent-death guard from the package: each model runs it once, so start-up time and memory
count.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

from llama_async_proxy.engines.parent_guard import die_with_parent

if TYPE_CHECKING:
    from xllamacpp import CommonParams

WHEEL_VERSION = "2026.10.11549"
"""Version whose private interface was examined. The dependencies pin it, too."""

PARSE_SYMBOL = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
"""bool common_params_parse(int, char **, common_params &, llama_example, void (*)(int, char **))"""
LOG_SYMBOL = "_Z15common_log_mainv"
"""common_log * common_log_main()"""
FLUSH_SYMBOL = "_Z16common_log_flushP10common_log"
"""void common_log_flush(common_log *)"""
EXAMPLE_SERVER = 12
"""LLAMA_EXAMPLE_SERVER of enum llama_example (common/common.h), which selects the flags that the parser accepts."""
LLAMA_SERVER_PORT = 8080
"""Default port of llama-server. The wheel's own default is 0, which means any free port."""


class StartRefused(Exception):
    """The wheel or the arguments cannot be used. The message gives the reason."""


def main(argv: list[str]) -> int:
    die_with_parent()
    try:
        serve(argv)
    except StartRefused as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    return 0


def serve(argv: list[str]) -> None:
    """Load the model and serve until a signal ends the process. Never returns normally. Raises StartRefused."""
    parameters = parse(argv)
    # During the load the wheel holds the interpreter lock, so a handler in Python would run only afterwards.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import xllamacpp

    try:
        _server = xllamacpp.Server(parameters)  # Starts its own HTTP server; returns once the model is loaded.
    except (RuntimeError, ValueError) as exc:
        flush_log()
        raise StartRefused(str(exc)) from exc
    # The destructor of the server waits for running streams and can hang (xllamacpp 2026.10.11549), so the process
    # exits without it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    threading.Event().wait()


def flush_log() -> None:
    """Wait until llama.cpp's log is written. A separate thread writes it, and the process could exit before that."""
    from xllamacpp import xllamacpp as extension

    library = ctypes.CDLL(extension.__file__)
    log, flush = getattr(library, LOG_SYMBOL, None), getattr(library, FLUSH_SYMBOL, None)
    if log is not None and flush is not None:
        log.restype = ctypes.c_void_p
        flush(ctypes.c_void_p(log()))


def parse(argv: list[str]) -> CommonParams:
    """Parameters for `argv`. Flags such as --help print and exit 0. Raises StartRefused."""
    try:
        import xllamacpp
        from xllamacpp import xllamacpp as extension
    except ImportError as exc:
        raise StartRefused(
            f"the xllamacpp wheel cannot be loaded on this machine ({exc}); install llama-server"
        ) from exc
    if xllamacpp.__version__ != WHEEL_VERSION:
        raise StartRefused(
            f"xllamacpp {xllamacpp.__version__} is installed, but only {WHEEL_VERSION} is known to work: "
            f"run pip install xllamacpp=={WHEEL_VERSION}"
        )
    parser = getattr(ctypes.CDLL(extension.__file__), PARSE_SYMBOL, None)
    if parser is None:
        raise StartRefused("this build of xllamacpp lacks llama.cpp's argument parser; install llama-server")
    parser.restype = ctypes.c_bool
    parser.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    parameters = xllamacpp.CommonParams()
    parameters.port = LLAMA_SERVER_PORT
    arguments = ["llama-server", *argv]
    array = (ctypes.c_char_p * (len(arguments) + 1))(*map(os.fsencode, arguments), None)
    sys.stdout.flush()
    struct = id(parameters) + object.__basicsize__  # The struct follows the header of the Python object.
    if not parser(len(arguments), array, struct, EXAMPLE_SERVER, None):
        sys.exit(1)  # The parser has printed the reason.
    if not parameters.model.path:
        raise StartRefused("--model is required: the built-in engine runs one model and has no router")
    return parameters


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

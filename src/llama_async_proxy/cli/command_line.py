"""The command line: argv -> Settings -> one command.

Commands import what they need when they run, so that `--help` and the demo model cost little.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from llama_async_proxy import __version__
from llama_async_proxy.cli.demo import add_demo
from llama_async_proxy.cli.doctor import add_doctor
from llama_async_proxy.cli.importing import add_import
from llama_async_proxy.cli.models import add_models
from llama_async_proxy.cli.presets import add_presets
from llama_async_proxy.cli.serve import add_serve
from llama_async_proxy.cli.status import FAILURE, USAGE_ERROR
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.store.private_files import UMASK

_DESCRIPTION = "Finds GGUF models, runs llama.cpp for them, proxies inference to it, shows it all live in a browser."
_EPILOG = """\
first steps:
  llama-async-proxy demo                 write a small model to try things with
  llama-async-proxy serve                then open http://127.0.0.1:3000
  llama-async-proxy doctor               when something does not work

Every setting can also be given in the environment (LLAMA_ASYNC_PROXY_PORT=8080) or in llama-server-config.json in
the data directory; the command line wins over the environment, the environment over the file.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 fine, 1 it failed, 2 it was asked wrongly."""
    os.umask(UMASK)
    arguments = build_parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except InvalidInput as exc:
        return _complain(str(exc), USAGE_ERROR)
    except ServiceError as exc:
        return _complain(str(exc) + (f"\n{exc.details}" if exc.details else ""), FAILURE)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `doctor | head`: nobody reads the rest, nor what Python would flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE


def _complain(message: str, status: int) -> int:
    print(f"llama-async-proxy: {message}", file=sys.stderr)
    return status


# --- arguments ------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; docs derive from it."""
    parser = argparse.ArgumentParser(
        prog="llama-async-proxy",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"llama-async-proxy {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_serve(commands)
    add_models(commands)
    add_presets(commands)
    add_import(commands)
    add_demo(commands)
    add_doctor(commands)
    return parser

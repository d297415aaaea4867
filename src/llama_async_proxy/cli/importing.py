"""`import` takes over the models of other programs."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from llama_async_proxy.cli.service_call import add_address, address_of, call_service
from llama_async_proxy.cli.status import PARTLY
from llama_async_proxy.errors import ServiceError

_IMPORTS = (
    ("llama-swap", "CONFIG", "llama-swap's configuration file (default: config.yaml here)"),
    ("ollama", "DIR", "Ollama's directory of manifests and blobs (default: OLLAMA_MODELS, or the usual place)"),
    ("lm-studio", "DIR", "LM Studio's models folder (default: the one of its settings, or the usual place)"),
)


def add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="take over the models of llama-swap, Ollama or LM Studio",
        description="Register the models of another program with a running service, with their names, options and "
        "sampling defaults. Files stay where they are and are not copied. What cannot be taken over is said line by "
        "line; the exit status is 3 then, and 1 when nothing was. Doing it again adds what is new.",
    )
    sources = parser.add_subparsers(title="programs", required=True, metavar="PROGRAM")
    for name, metavar, help_text in _IMPORTS:
        source = sources.add_parser(name, help=help_text, description=f"Import from {help_text}.")
        source.add_argument("place", nargs="?", type=Path, metavar=metavar, help=help_text)
        source.add_argument("--dry-run", action="store_true", help="only print what would be done; needs no service")
        add_address(source)
        source.set_defaults(command=_import, source=name)


def _import(arguments: argparse.Namespace) -> int:
    from llama_async_proxy.importers.apply import apply, registered_models
    from llama_async_proxy.importers.plan import without_options
    from llama_async_proxy.importers.sources import SOURCES, ImportContext, describe

    plan = SOURCES[arguments.source](arguments.place, ImportContext(Path.home(), os.environ))
    plan = without_options(plan, _refusal_of_import)
    problems = list(plan.problems)
    taken = len(plan.models)
    if arguments.dry_run:
        print("\n".join(map(describe, plan.models)))
    else:
        call = partial(call_service, address_of(arguments))
        known = registered_models(call)
        for model in plan.models:
            outcome = apply(model, known, call)
            print(f"{outcome.name}: {outcome.done}")
            problems += [f"{outcome.name}: {outcome.problem}"] if outcome.problem else []
            taken -= not outcome.is_registered
    print("\n".join(problems), end="\n" if problems else "", file=sys.stderr)
    if not taken:
        raise ServiceError("nothing was taken over")
    return PARTLY if problems else 0


def _refusal_of_import(key: str) -> str | None:
    """Why the service would not take an option over REST. Commands of models have a permission of their own."""
    from llama_async_proxy.engines.custom_command import COMMAND_OPTIONS
    from llama_async_proxy.presets.catalogue import Catalogue
    from llama_async_proxy.presets.option_classes import OptionClass, class_of, reason

    catalogue = Catalogue(())
    if key in COMMAND_OPTIONS or class_of(key, catalogue) is not OptionClass.OWNER:
        return None
    return f"{reason(key, catalogue)}. Write it into the model's section of a preset file by hand, if you want it"

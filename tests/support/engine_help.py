"""The options of the program that stands in for llama-server: a --help laid out as its own, enough of every kind."""

from __future__ import annotations

from pathlib import Path

from llama_async_proxy.engines.help import parse_help
from llama_async_proxy.presets.catalogue import Catalogue

HELP = Path(__file__).with_name("engine_help.txt").read_text()
CATALOGUE = Catalogue(parse_help(HELP))

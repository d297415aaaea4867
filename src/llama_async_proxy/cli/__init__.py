"""The command line. One file is one group of commands."""

from llama_async_proxy.cli.command_line import build_parser, main

__all__ = ["build_parser", "main"]

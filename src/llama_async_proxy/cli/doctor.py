"""`doctor` checks this machine and says what to do."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from llama_async_proxy.cli.arguments import add_settings, settings_of
from llama_async_proxy.cli.status import FAILURE
from llama_async_proxy.settings import SETTINGS


def add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check this machine and say what to do",
        description="Check engine, versions, ports, directories, GPU and database, and where each setting came from.",
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    add_settings(doctor, SETTINGS)
    doctor.set_defaults(command=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from llama_async_proxy.operations.doctor import Finding, Level, examine

    settings = settings_of(arguments)
    findings = asyncio.run(examine(settings))
    if arguments.json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
        return 0
    marks = {Level.OK: "ok  ", Level.WARNING: "warn", Level.PROBLEM: "FAIL"}

    def show(finding: Finding) -> str:
        advice = f"\n       -> {finding.advice}" if finding.advice else ""
        return f"{marks[finding.level]}  {finding.subject}: {finding.found}{advice}"

    print("\n".join(show(finding) for finding in findings))
    print("\nSettings (value, where it came from):")
    for setting in SETTINGS:
        value, source = getattr(settings, setting.name), settings.sources[setting.name]
        print(f"  {setting.name:<26} {_shown(value):<40} {source}")
    return FAILURE if any(finding.level is Level.PROBLEM for finding in findings) else 0


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "-"
    return "-" if value in ("", None) else str(value)

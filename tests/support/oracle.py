"""llama.cpp's own count of the memory a load would take, without loading: its `common_fit_print`, from the wheel.

Run as a program it reads a JSON list of llama-server argument lists and prints one answer for each. Counting runs in a
process of its own because llama.cpp aborts the process for a model it does not like.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import xllamacpp

from llama_async_proxy.gguf.memory import LoadSettings

MIB = 1 << 20
SERVER = 12
"""`LLAMA_EXAMPLE_SERVER`: which program's options are parsed."""
_HOST = re.compile(r"^Host (\d+) (\d+) (\d+)", re.MULTILINE)
_PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"
_MODEL = "_Z28common_model_params_to_llamaR13common_params"
_CONTEXT = "_Z30common_context_params_to_llamaRK13common_params"
_PRINT = "_Z16common_fit_printPKcP18llama_model_paramsP20llama_context_params"


class Counted(NamedTuple):
    """Bytes on the host, whole MiB."""

    weights_bytes: int
    context_bytes: int
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(self)


def arguments(path: Path, load: LoadSettings) -> list[str]:
    """As llama-server takes them."""
    line = ["-m", str(path), "-c", str(load.context_size), "-ub", str(load.micro_batch_size)]
    line += ["-ctk", load.cache_type_k, "-ctv", load.cache_type_v, "-fa", load.flash_attention]
    line += [] if load.slots is None else ["-np", str(load.slots)]
    line += ["-kvu"] if load.unified_cache else []
    return [*line, "--swa-full"] if load.full_sliding_cache else line


def count(loads: Sequence[Sequence[str]]) -> list[Counted]:
    """What each load takes, given as llama-server arguments. Raises CalledProcessError when llama.cpp refuses one."""
    ran = subprocess.run(
        [sys.executable, __file__], input=json.dumps(loads), check=True, capture_output=True, text=True
    )
    counted = [Counted(*(int(number) * MIB for number in line)) for line in _HOST.findall(ran.stdout)]
    assert len(counted) == len(loads), ran.stderr
    return counted


class _Struct(ctypes.Structure):
    """Room for a C struct that is returned by value; both are smaller."""

    _fields_ = (("bytes", ctypes.c_char * 1024),)


def _print_fit(library: ctypes.CDLL, arguments: Sequence[str]) -> None:
    params = xllamacpp.CommonParams()
    address = id(params) + object.__basicsize__  # the C++ struct follows the object's header
    # --no-repack: weights repacked for the CPU would be left out of the count.
    line = [b"llama-server", b"--no-repack", *(argument.encode() for argument in arguments)]
    argv = (ctypes.c_char_p * (len(line) + 1))(*line, None)
    parse = getattr(library, _PARSE)
    parse.restype = ctypes.c_bool
    parse.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    if not parse(len(line), argv, address, SERVER, None):
        raise SystemExit(f"llama.cpp does not accept {arguments}")
    if params.n_parallel < 0:  # the server's own choice, made after parsing
        params.n_parallel, params.kv_unified = 4, True
    model, context = _converted(library, _MODEL, address), _converted(library, _CONTEXT, address)
    fit_print = getattr(library, _PRINT)
    fit_print.restype = None
    fit_print.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    fit_print(params.model.path.encode(), ctypes.addressof(model), ctypes.addressof(context))


def _converted(library: ctypes.CDLL, function: str, params: int) -> _Struct:
    convert = getattr(library, function)
    convert.restype, convert.argtypes = _Struct, [ctypes.c_void_p]
    converted: _Struct = convert(params)
    return converted


def _main() -> None:
    library = ctypes.CDLL(sys.modules["xllamacpp.xllamacpp"].__file__)
    library.llama_backend_init()
    for arguments in json.load(sys.stdin):
        _print_fit(library, arguments)
    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    _main()

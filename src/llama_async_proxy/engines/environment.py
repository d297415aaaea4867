"""Environment variables of child processes. Pure.

A child gets the variables that a program needs to find its libraries, its GPU and its home, and no others: the rest of
the service's environment may be secret (tokens, passwords), and llama.cpp reads names of its own (`LLAMA_*`, `AIP_*`,
`HF_*`; llama.cpp b11434, common/arg.cpp and tools/server) that would overrule the options of a load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

PASSED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "TERM"),
        *("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "MALLOC_ARENA_MAX"),
        # The built-in engine is a Python program and needs its paths.
        *("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV"),
        # Desktop drivers look here for the display that a GPU drives.
        *("DISPLAY", "WAYLAND_DISPLAY", "SYSTEMROOT"),
    }
)
PASSED_PREFIXES = (
    *("LC_", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "BLIS_"),
    *("CUDA_", "NVIDIA_", "NCCL_", "GGML_", "HIP_", "ROCR_", "ROCM_", "HSA_", "AMD_", "GPU_"),
    *("VK_", "MESA_", "RADV_", "SYCL_", "ONEAPI_", "ZE_", "ZES_", "NEO", "METAL_", "MTL_", "ASCEND_", "MUSA_"),
)
_SECRET = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY")
"""Parts of names whose values are secret. Such a variable is passed only when its whole name is listed."""

CHILD_ENVIRONMENT = MappingProxyType(
    {
        # This makes llama-server report its state on stdout and end with its stdin (llama.cpp b11434,
        # tools/server/server-models.cpp). Any number has that effect.
        "LLAMA_SERVER_ROUTER_PORT": "1",
        # By default llama-server lets any web page read its answers. Older builds refuse the flag but not the variable.
        "LLAMA_ARG_CORS_ORIGINS": "http://127.0.0.1",
    }
)
API_KEY_VARIABLE = "LLAMA_API_KEY"
"""Variable with the API key of a child. A key on the command line could be read by every user of the machine."""
LOG_ENVIRONMENT = MappingProxyType({"LLAMA_ARG_LOG_JSONL": "1"})
"""Makes a child log JSON with its memory breakdown. Older builds refuse the flag; they ignore the variable."""


def passed_environment(ours: Mapping[str, str], more: Sequence[str] = ()) -> dict[str, str]:
    """Variables of `ours` that a child gets. `more` lists further names from the settings, as `NAME` or `PREFIX*`."""
    names = frozenset(name for name in more if not name.endswith("*"))
    prefixes = tuple(name.removesuffix("*") for name in more if name.endswith("*"))
    return {name: text for name, text in ours.items() if _is_passed(name) or name in names or name.startswith(prefixes)}


def child_environment(passed: Mapping[str, str]) -> dict[str, str]:
    """Environment of a model's process: `passed` with the variables that make llama-server behave as a child."""
    return {**CHILD_ENVIRONMENT, **{name: text for name, text in passed.items() if name != API_KEY_VARIABLE}}


def router_environment(passed: Mapping[str, str]) -> dict[str, str]:
    """Environment of a router, without the variable that would make its children report to this service."""
    return {name: text for name, text in child_environment(passed).items() if name != "LLAMA_SERVER_ROUTER_PORT"}


def _is_passed(name: str) -> bool:
    if name in PASSED:
        return True
    return name.startswith(PASSED_PREFIXES) and not any(part in name.upper() for part in _SECRET)

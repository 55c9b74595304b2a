"""Processor, linear algebra and threads of a run; the last digits of its results depend on all of them."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Environment variables for the number of threads of OpenMP, MKL and OpenBLAS."""


def compute_facts() -> dict[str, Any]:
    """Processor, threads (torch's, and the variables that were set) and BLAS libraries of this process.

    A sum over two threads adds in another order than over one, and training amplifies a different last digit.
    """
    import torch

    return {
        "processor": processor(),
        "threads": {
            "torch": torch.get_num_threads(),
            "variables": {name: os.environ[name] for name in VARIABLES if os.environ.get(name)},
        },
        "blas": blas(),
    }


def processor() -> str:
    """The processor's model name."""
    about = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", about.read_text(), re.MULTILINE) if about.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def blas() -> list[dict[str, Any]]:
    """Name, version, kernel and threads of each BLAS that is loaded; that of torch is built into it."""
    import threadpoolctl
    import torch

    loaded = [
        {
            "name": one["internal_api"],
            "version": one.get("version"),
            "kernel": one.get("architecture"),
            "threads": one["num_threads"],
        }
        for one in threadpoolctl.threadpool_info()
        if one["user_api"] == "blas"
    ]
    built_in = re.search(r"Math Kernel Library Version (\S+)", torch.__config__.show())
    if built_in is not None:
        mkl = {"name": "mkl", "version": built_in[1], "kernel": None, "threads": torch.get_num_threads()}
        loaded.append(mkl)
    return sorted({str(one): one for one in loaded}.values(), key=str)


def variables_of(then: Mapping[str, Any]) -> dict[str, str]:
    """The variables with which another process has the number of threads of an ``environment.json``.

    Args:
        then: Content of ``environment.json``; without threads, as of an older run, the result is empty.
    """
    threads = then.get("threads")
    if not threads:
        return {}
    openblas = [one["threads"] for one in then.get("blas", []) if one["name"] == "openblas"]
    counts = dict.fromkeys(VARIABLES, threads["torch"])
    if openblas:
        counts["OPENBLAS_NUM_THREADS"] = max(openblas)
    counts |= {name: value for name, value in threads["variables"].items() if name in VARIABLES}
    # The file may be a stranger's: a variable such as LD_PRELOAD would run what it names.
    return {name: str(value) for name, value in counts.items() if re.fullmatch(r"\d{1,4}", str(value))}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each of Python, packages, device, processor, BLAS and threads that two runs do not share.

    Args:
        then: Content of ``environment.json`` of the one run.
        now: Content of that of the other.
    """
    pairs = {name: (then.get(name), now.get(name)) for name in ("python", "device")}
    versions = then.get("versions", {})
    pairs |= {name: (versions.get(name), version) for name, version in now.get("versions", {}).items()}
    if "threads" in then:
        pairs["processor"] = (then.get("processor"), now.get("processor"))
        pairs["BLAS"] = (_names(then), _names(now))
        pairs["threads"] = (then["threads"]["torch"], now["threads"]["torch"])
    lines = [f"{name}: {old} then, {new} now" for name, (old, new) in pairs.items() if old != new]
    return lines if "threads" in then else [*lines, "processor, BLAS and number of threads: not recorded then"]


def _names(facts: Mapping[str, Any]) -> str:
    names = {" ".join(str(one[key]) for key in ("name", "version", "kernel") if one[key]) for one in facts["blas"]}
    return ", ".join(sorted(names))

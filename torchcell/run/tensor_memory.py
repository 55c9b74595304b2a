"""How much memory the tensors of a step take at once."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from torch.autograd.profiler import profile


def tensor_megabytes(step: Callable[[], object], device: torch.device) -> float:
    """The most MB (1e6 bytes) that tensors held at once in ``step``, above what stood before.

    From torch's own record of allocations, so that it is exact where the resident set sees only large ones, and does
    not depend on what the process did before; what numpy or a library takes beside torch is not in it. NaN on a device
    of which there is no such record.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if device.type != "cpu":
        step()
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the recorder tells the user when it starts and stops
    with profile(use_cpu=True, use_kineto=True, profile_memory=True) as taken:
        step()
    assert taken.kineto_results is not None
    events = taken.kineto_results.events()
    held = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return float(np.cumsum([size for _, size in held]).max(initial=0)) / 1e6

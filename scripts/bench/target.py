"""A measured figure beside the target it must meet, and how seconds are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """One row of the bench's table."""

    what: str
    figure: str
    wanted: str
    met: bool


def at_least(what: str, value: float, target: float, unit: str = "x") -> Target:
    return Target(what, f"{value:,.0f}{unit}", f">= {target:,.0f}{unit}", value >= target)


def at_most(what: str, value: float, target: float, unit: str) -> Target:
    return Target(what, f"{value:,.3g} {unit}", f"<= {target:,.3g} {unit}", value <= target)


def seconds(work: Callable[[], Any], repeats: int = 5) -> float:
    """Median wall time of ``work`` after one run to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)

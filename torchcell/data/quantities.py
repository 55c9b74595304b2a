"""Doses and times as people write them: ``10``, ``10 µM``, ``500 nM``, ``24 h``."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

TO_MICROMOLAR: dict[str, float] = {"": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "mm": 1e3, "m": 1e6}
"""Unit in small letters, µ as u -> how many µM it is; without a unit it is µM."""
TO_HOURS: dict[str, float] = {"": 1.0, "h": 1.0, "hr": 1.0, "hours": 1.0, "min": 1 / 60, "d": 24.0, "days": 24.0}
_NUMBER_UNIT = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\d\s&]*)\s*")


def quantities(values: np.ndarray, units: np.ndarray, factor: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of texts, and which can't be read.

    Args:
        values: Texts [n], empty where there is none; a unit may follow the number.
        units: The unit of each where it stands in another column [n], else empty.
        factor: Unit -> its size, e.g. ``TO_MICROMOLAR``.

    Returns:
        float64 [n], NaN where there is none; bool [n], true where there is a text but no number with a known unit.
    """
    pairs = list(zip(values.tolist(), units.tolist(), strict=True))
    known = {pair: _read(*pair, factor) for pair in set(pairs)}
    numbers = np.array([known[pair] for pair in pairs], dtype=np.float64)
    return numbers, np.isnan(numbers) & (values != "")


def _read(value: str, unit: str, factor: Mapping[str, float]) -> float:
    split = _NUMBER_UNIT.fullmatch(value)
    if split is None:
        return np.nan
    named = (split[2] or unit).lower().replace("µ", "u").replace("μ", "u")
    try:
        return float(split[1]) * factor[named]
    except (ValueError, KeyError):
        return np.nan

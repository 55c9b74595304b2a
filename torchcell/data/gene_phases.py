"""Phases of a curriculum: a few genes are active first and more later; which these are, and where they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from torchcell.data.errors import InputError, near, some

KEYS = {"epoch", "genes"}
LEADS_FROM = 0.2
"""A source with this share of the genes that a phase adds is part of the phase's name."""


@dataclass(frozen=True)
class Phase:
    """Some epochs over the same genes.

    Attributes:
        epoch: The first epoch.
        genes: Positions in the outputs, ascending.
    """

    epoch: int
    genes: tuple[int, ...]


def find_phases(
    given: Sequence[Mapping[str, Any]], outputs: Sequence[str], order: Iterable[int] | None = None
) -> list[Phase]:
    """Find each phase's genes.

    Args:
        given: Each with ``epoch``, its first, from 0; ``genes``: a share of the outputs (0.02), a number of them (100),
            a list of names, or null for all.
        outputs: Names of all genes.
        order: Their positions, most wanted first; none: as they stand.

    Raises:
        InputError: No phase, other keys, epochs that do not rise from 0, more genes than there are, an unknown name, a
            phase that is not a superset of the one before, or a last one without all genes.
    """
    check_phases(given)
    ranked = list(range(len(outputs))) if order is None else [int(place) for place in order]
    phases = [
        Phase(int(phase["epoch"]), tuple(sorted(_positions(phase["genes"], number, outputs, ranked))))
        for number, phase in enumerate(given)
    ]
    for number, (earlier, later) in enumerate(pairwise(phases), 1):
        lacking = [outputs[place] for place in sorted(set(earlier.genes) - set(later.genes))]
        if lacking:
            raise InputError(
                f"phase {number} of the curriculum is no superset of phase {number - 1}: it lacks {len(lacking)} "
                f"of its genes: {some(lacking)}; a gene that was learned stays active"
            )
    if len(phases[-1].genes) < len(outputs):
        raise InputError(
            f"the curriculum's last phase has {len(phases[-1].genes):,} of the {len(outputs):,} genes; set its genes "
            "to null for all, or select fewer"
        )
    return phases


def check_phases(given: Sequence[Mapping[str, Any]]) -> None:
    """What can be told without the genes: there is a phase, with its keys, and each begins after the one before."""
    if not given:
        raise InputError("callbacks.curriculum.phases is empty; name at least one phase")
    for number, phase in enumerate(given):
        if set(phase) != KEYS:
            raise InputError(f"phase {number} of the curriculum has the keys {sorted(phase)}; it needs epoch and genes")
    starts = [phase["epoch"] for phase in given]
    if starts[0] != 0 or any(later <= earlier for earlier, later in pairwise(starts)):
        raise InputError(f"the curriculum's phases begin at the epochs {starts}; the first is 0, and each comes later")


def entry_phase(phases: Sequence[Phase], n: int) -> np.ndarray:
    """Number of the phase in which each of ``n`` genes becomes active, int64 [n]; 0 without phases."""
    entered = np.zeros(n, dtype=np.int64)
    for number in range(len(phases) - 1, -1, -1):
        entered[list(phases[number].genes)] = number
    return entered


def describe_phases(entered: np.ndarray, source: np.ndarray | None) -> list[dict[str, Any]]:
    """What the report tells of each phase.

    Args:
        entered: See ``entry_phase``, int64 [n].
        source: Where each gene came from [n], with or without "... for", which fills another's quota; none: unknown.

    Returns:
        By phase ``name``, the sources that lead among the genes it adds, and all ``sources`` of these with their
        number, largest first. Both are empty where no source is known.
    """
    found = []
    for number in range(int(entered.max(initial=0)) + 1):
        added = [] if source is None else source[entered == number].tolist()
        counts = Counter(str(name).split(" for ")[0] for name in added)
        sources = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        leading = [name for name, n in sources.items() if n >= LEADS_FROM * len(added)]
        found.append({"name": ", ".join(leading), "sources": sources})
    return found


def _positions(genes: Any, number: int, outputs: Sequence[str], ranked: Sequence[int]) -> Sequence[int]:
    if genes is None:
        return ranked
    if not isinstance(genes, int | float):
        names = [genes] if isinstance(genes, str) else [str(gene) for gene in genes]
        place = {name: i for i, name in enumerate(outputs)}
        unknown = [name for name in names if name not in place]
        if unknown or not names:
            nearest = near(unknown[0], list(place)) if unknown else []
            hint = f"; did you mean {nearest}?" if nearest else ""
            raise InputError(f"phase {number} of the curriculum names genes that are no outputs: {some(unknown)}{hint}")
        return sorted({place[name] for name in names})
    count = round(genes * len(outputs)) if isinstance(genes, float) else genes
    if isinstance(genes, float) and not 0 < genes <= 1:
        raise InputError(f"phase {number} of the curriculum: genes={genes} is a share above 0 and up to 1.0")
    if not 1 <= count <= len(outputs):
        raise InputError(
            f"phase {number} of the curriculum asks for {count:,} genes of {len(outputs):,}; lower it, give a share "
            "such as 0.2, or select more genes"
        )
    return ranked[:count]

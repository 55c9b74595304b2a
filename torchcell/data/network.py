"""``Network``: one named relation between genes, as an edge list by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from torchcell.data.errors import InputError, some


@dataclass(frozen=True, eq=False)
class Network:
    """An edge list by gene name.

    Attributes:
        name: The relation, e.g. ``physical``.
        source: Gene names [E].
        target: Gene names [E].
        weight: Confidence or 1, float32 [E].
        directed: Whether an edge runs from source to target only. The edges of an undirected network
            may stand in either or both directions; the graph symmetrises them.
        genes: Genes that the source covers, edges or not; empty: those with edges.
        lost: What parsing left out and how many of each.
    """

    name: str
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    directed: bool
    genes: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))
    lost: Mapping[str, int] = field(default_factory=dict)

    def validate(self) -> Network:
        """Return self, or raise one ``InputError`` that names the offending edges."""
        if not len(self.source) == len(self.target) == len(self.weight):
            raise InputError(f"network {self.name}: source, target and weight differ in length")
        if not len(self.source):
            raise InputError(f"network {self.name} has no edges; leave it out of the graph or mend its file")
        bad = ~np.isfinite(self.weight)
        if bad.any():
            edges = [f"{a}-{b}" for a, b in zip(self.source[bad], self.target[bad], strict=True)]
            raise InputError(f"network {self.name}: {len(edges)} edge(s) without a finite weight: {some(edges)}")
        return self

"""``Network``: one named relation between genes, or nodes of other types, as an edge list by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from torchcell.data.errors import InputError, some


@dataclass(frozen=True, eq=False)
class Network:
    """An edge list by name, of genes unless it says otherwise.

    Attributes:
        name: The relation, e.g. ``physical``.
        source: Names [E].
        target: Names [E].
        weight: Confidence or 1, float32 [E].
        directed: Whether an edge runs from source to target only. The edges of an undirected network
            may stand in either or both directions; the graph symmetrises them.
        genes: Genes that the source covers, edges or not; empty: those with edges.
        lost: What parsing left out and how many of each.
        source_type: What the sources are: ``gene``, ``reaction``, ...
        target_type: What the targets are.
    """

    name: str
    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    directed: bool
    genes: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))
    lost: Mapping[str, int] = field(default_factory=dict)
    source_type: str = "gene"
    target_type: str = "gene"

    def validate(self) -> Network:
        """Return self, or raise one ``InputError`` that names the offending edges."""
        if not len(self.source) == len(self.target) == len(self.weight):
            raise InputError(f"network {self.name}: source, target and weight differ in length")
        if not len(self.source):
            raise InputError(f"network {self.name} has no edges; leave it out of the graph or mend its file")
        if not self.directed and self.source_type != self.target_type:
            raise InputError(
                f"network {self.name} joins {self.source_type}s to {self.target_type}s, so its edges have a direction; "
                "set directed=True, and add the reverse as a network of its own"
            )
        bad = ~np.isfinite(self.weight)
        if bad.any():
            edges = [f"{a}-{b}" for a, b in zip(self.source[bad], self.target[bad], strict=True)]
            raise InputError(
                f"network {self.name}: {len(edges)} edge(s) without a finite weight: {some(edges)}; give numbers"
            )
        return self

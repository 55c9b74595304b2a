"""Edge lists by name -> sparse matrices over ordered names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from torchcell.data.errors import InputError, some
from torchcell.data.network import Network


def node_names(networks: Iterable[Network]) -> dict[str, list[str]]:
    """Node type -> all names that the networks give of it, sorted; genes first."""
    found: dict[str, set[str]] = {"gene": set()}
    for network in networks:
        found["gene"].update(network.genes.tolist())
        found.setdefault(network.source_type, set()).update(network.source.tolist())
        found.setdefault(network.target_type, set()).update(network.target.tolist())
    return {kind: sorted(names) for kind, names in found.items()}


def network_matrix(network: Network, names: Mapping[str, Sequence[str]], lost: dict[str, int]) -> sp.csr_matrix:
    """Edges among the known names as a matrix [targets, sources].

    Args:
        network: The edges.
        names: Node type -> ordered names.
        lost: Gets a count of what is left out: edges to unknown names, self-loops.

    Raises:
        InputError: No edge is left.
    """
    ends = ((network.source, network.source_type), (network.target, network.target_type))
    source, target = (_positions(listed, names[kind]) for listed, kind in ends)
    unknown = (source < 0) | (target < 0)
    loop = (source == target) & (network.source_type == network.target_type)
    nothing = (network.weight == 0) & ~unknown & ~loop
    for what, mask in (
        ("edges to unknown genes", unknown), ("self-loops", loop & ~unknown), ("edges of weight 0", nothing)
    ):  # fmt: skip
        if mask.any():
            lost[f"{network.name}: {what}"] = int(mask.sum())
    keep = ~(unknown | loop | nothing)
    if not keep.any():
        strangers = np.unique(np.concatenate([network.source[source < 0], network.target[target < 0]]))
        raise InputError(
            f"relation {network.name} has no edges among the graph's nodes: {len(strangers):,} of its names are not "
            f"there, {some(strangers)}; give it the graph's own names, or leave it out of the graph's config"
        )
    row, column, weight = target[keep], source[keep], network.weight[keep]
    if not network.directed:
        row, column = np.concatenate([row, column]), np.concatenate([column, row])
        weight = np.concatenate([weight, weight])
    order = np.lexsort((-weight, column, row))  # of duplicates the one of largest weight comes first
    row, column, weight = row[order], column[order], weight[order]
    first = np.ones(len(row), dtype=bool)
    first[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    shape = (len(names[network.target_type]), len(names[network.source_type]))
    return sp.csr_matrix((weight[first], (row[first], column[first])), shape=shape)


def _positions(listed: np.ndarray, names: Sequence[str]) -> np.ndarray:
    position = {name: i for i, name in enumerate(names)}
    return np.array([position.get(name, -1) for name in listed.tolist()])

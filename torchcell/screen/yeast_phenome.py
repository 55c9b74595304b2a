"""Yeast phenome: genes whose single knock-outs behave alike in a thousand growth screens, as a network."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from sklearn.neighbors import NearestNeighbors

from torchcell.graph.network import Network
from torchcell.io.cache import cached_record, read_arrays
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.sources import fetch

RECIPE = 1  # raise it when a parser changes, so that no older cache is read
FEWEST = 500
"""Genes that a screen must have a value of."""
CLIP = 6.0
"""Standard deviations of a screen beyond which a value says no more."""
RANK = 200
"""Singular vectors kept of genes by screens."""


@configurable
def yeast_phenome(neighbors: int = 10) -> Network:
    """``phenome``: each gene and the genes with the nearest profile of single knock-out phenotypes, weight the cosine.

    1,157 screens of single mutants: growth under drugs and stress, and other traits. Screens of genetic interactions
    are left out of the source, so that the network says nothing of the pairs of such a screen.

    Args:
        neighbors: Of each gene. Of 10, 20, 50 and 100 the first gave the best votes for held-out queries of Costanzo
            2010, see ``notes/2026-11-30-phenome.md``.

    Raises:
        InputError: Fewer than one neighbor, or a file that can't be had.

    Source: Turco and others, Yeast phenome, 2023, CC BY 4.0.
    """
    if neighbors < 1:
        raise InputError(f"yeast_phenome: neighbors={neighbors}; a gene needs one or more")
    recipe = {"recipe": RECIPE, "neighbors": neighbors}
    return cached_record(Network, "network-phenome", ["yeast_phenome"], recipe, lambda: _nearest(neighbors))


def _nearest(neighbors: int) -> Network:
    file = read_arrays(fetch("yeast_phenome")["yeast_phenome.npz"])
    value, genes = file["X"].astype(np.float64), file["orfs"].astype(str)
    profile = profiles(value)
    there = np.flatnonzero(np.abs(profile).any(1))
    found = NearestNeighbors(n_neighbors=min(neighbors + 1, len(there)), metric="cosine").fit(profile[there])
    distance, near = found.kneighbors(profile[there])
    source = np.repeat(np.arange(len(there)), near.shape[1])
    target, weight = near.ravel(), 1.0 - distance.ravel()
    kept = (source != target) & (weight > 0)
    ends = np.sort(np.stack([source[kept], target[kept]]), axis=0)  # undirected: each edge once
    (left, right), first = np.unique(ends, axis=1, return_index=True)
    lost = {"genes without a phenotype": len(genes) - len(there)}
    return Network(
        "phenome", genes[there[left]], genes[there[right]], weight[kept][first].astype(np.float32), False, dropped=lost
    )


def profiles(value_gs: np.ndarray) -> np.ndarray:
    """Profile of each gene over the screens' common directions.

    A screen's values in its standard deviations, missing ones at its mean; directions count by the square root of their
    singular value, since many screens measure growth alike and would drown the others.

    Args:
        value_gs: Genes by screens, NaN where missing.

    Returns:
        [genes, directions]; all 0 for a gene without a value.
    """
    measured = ~np.isnan(value_gs)
    enough = measured.sum(0) >= min(FEWEST, len(value_gs) // 2)
    value = np.where(measured, value_gs, np.nan)[:, enough]
    center, spread = np.nanmean(value, 0), np.nanstd(value, 0)
    z = np.clip((value - center) / np.where(spread > 0, spread, 1), -CLIP, CLIP)
    u, s, _ = scipy.linalg.svd(np.nan_to_num(z), full_matrices=False)
    directions: np.ndarray = (u * np.sqrt(s))[:, :RANK]
    directions[~measured[:, enough].any(1)] = 0
    return directions

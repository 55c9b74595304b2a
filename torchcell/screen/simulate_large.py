"""A synthetic cell of yeast's size: for measuring speed and memory only, there is nothing to learn in it.

Networks and phenotypes know nothing of each other. No accuracy on this data means anything; a model that scores
above chance on a test part has a leak. For planted truth at a learnable size see ``torchcell.screen.simulate``.
"""

from __future__ import annotations

import numpy as np

from torchcell.graph.network import Network
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.screen.record import KINDS, Screen

EDGES = (1_000_000, 620_000, 400_000, 250_000, 140_000, 70_000, 26_000, 10_874, 1_500)
"""Directed stored edges of the nine default relations; other numbers of relations and edges keep the shape."""
TAIL = 0.6
"""Expected degree falls with a gene's rank to this power: degrees have a power-law tail of exponent 1 + 1 / TAIL."""
FLEXIBLE = 200
"""Draws of a round are this many at least, so that small graphs need few rounds."""


@configurable
def synthetic_networks(
    n_genes: int = 6607, n_relations: int = 9, n_edges: int = 2_518_374, seed: int = 0
) -> list[Network]:
    """Random networks of heavy-tailed degree, for measuring speed only: there is nothing to learn.

    A Chung-Lu model: both ends of an edge are drawn in proportion to an expected degree, edges that stand already and
    self-loops are drawn again. Half of a gene's rank is common to all relations, so that hubs are hubs in several.
    Same arguments, same bytes. All relations are undirected but the middle one, ``n_relations // 2``.

    Args:
        n_genes: Genes, ``G00000`` on; a gene may be without edges.
        n_relations: Networks, ``relation_0`` on, from the largest to the smallest.
        n_edges: Directed edges that a graph of all relations stores: an undirected edge counts twice. Met exactly.
        seed: Seed of everything that is drawn.

    Raises:
        InputError: Too few edges for the relations, or more than half of all pairs in one relation.
    """
    rng = np.random.default_rng(seed)
    genes = gene_names(n_genes)
    common = rng.random(n_genes)
    networks = []
    for i, count in enumerate(edge_counts(n_genes, n_relations, n_edges)):
        directed = i == n_relations // 2
        rank = np.argsort(np.argsort(common + rng.random(n_genes)))
        weight = (rank + 1.0) ** -TAIL
        edge = _draw_edges(weight / weight.sum(), count if directed else count // 2, directed, rng)
        networks.append(
            Network(
                name=f"relation_{i}",
                source=genes[edge // n_genes],
                target=genes[edge % n_genes],
                weight=rng.uniform(0.1, 1.0, len(edge)).astype(np.float32),
                directed=directed,
                genes=genes,
            ).validate()
        )
    return networks


@configurable
def synthetic_screen(n_genes: int = 6607, n_sets: int = 20_000, seed: int = 0) -> Screen:
    """Random gene pairs, a tenth of triples, and a phenotype of pure noise: for measuring speed only.

    THERE IS NOTHING TO LEARN HERE: the phenotype is drawn without a look at the genes. Same arguments, same bytes.

    Args:
        n_genes: Genes, named as in ``synthetic_networks``.
        n_sets: Different perturbation sets; all their genes are absent.
        seed: Seed of everything that is drawn.

    Raises:
        InputError: Fewer than four genes, or more sets than a quarter of all pairs.
    """
    most = n_genes * (n_genes - 1) // 8
    if n_genes < 4 or not 0 < n_sets <= most:
        raise InputError(f"{n_genes} genes serve for 1 to {max(most, 0):,} sets, not {n_sets:,}; change one of them")
    rng = np.random.default_rng(seed)
    n_triples = n_sets // 10
    parts = [_draw_sets(n_genes, size, n, rng) for size, n in ((2, n_sets - n_triples), (3, n_triples))]
    sizes = np.repeat([2, 3], [n_sets - n_triples, n_triples])
    start = np.concatenate([[0], np.cumsum(sizes)])
    order = rng.permutation(n_sets)
    ptr = np.concatenate([[0], np.cumsum(sizes[order])]).astype(np.int64)
    member = np.arange(ptr[-1]) + np.repeat(start[:-1][order] - ptr[:-1], sizes[order])
    return Screen(
        name="synthetic",
        genes=gene_names(n_genes),
        gene=np.concatenate([part.ravel() for part in parts])[member],
        ptr=ptr,
        kind=np.full(ptr[-1], KINDS.index("absent"), dtype=np.int8),
        phenotype=rng.normal(size=(n_sets, 1)).astype(np.float32),
        phenotype_names=("noise",),
        sample_id=np.array([f"set{i:07d}" for i in range(n_sets)]),
    ).validate()


def gene_names(n_genes: int) -> np.ndarray:
    """``G00000`` on, [n_genes]; sorted, so that a graph keeps the order."""
    width = max(5, len(str(n_genes - 1)))
    return np.array([f"G{i:0{width}d}" for i in range(n_genes)])


def edge_counts(n_genes: int, n_relations: int, n_edges: int) -> list[int]:
    """Directed stored edges per relation, falling as ``EDGES`` does; they add up to ``n_edges``."""
    if n_genes < 3 or n_relations < 1:
        raise InputError(f"networks need three genes and one relation, not {n_genes} and {n_relations}")
    place = np.linspace(0, len(EDGES) - 1, n_relations)
    share = np.exp(np.interp(place, np.arange(len(EDGES)), np.log(EDGES)))
    count = np.maximum(2 * np.rint(n_edges * share / share.sum() / 2).astype(np.int64), 2)
    odd = n_relations // 2  # the directed relation takes what the even numbers of the others leave
    count[odd] = n_edges - (count.sum() - count[odd])
    if odd and count[odd] < 1:  # small relations were raised to two edges: the largest gives them
        given = 2 - count[odd] + count[odd] % 2
        count[0], count[odd] = count[0] - given, count[odd] + given
    pairs = n_genes * (n_genes - 1)
    if count.min() < 1 or count.max() > pairs // 2:
        raise InputError(
            f"{n_edges:,} edges don't fit {n_relations} relations over {n_genes:,} genes: a relation needs two edges "
            f"and holds at most {pairs // 2:,}; change one of the three"
        )
    return count.tolist()


def _draw_edges(share: np.ndarray, n: int, directed: bool, rng: np.random.Generator) -> np.ndarray:
    """``n`` different edges source * n_genes + target, sorted, int64 [n]; undirected ones have source < target."""
    n_genes, cumulative = len(share), np.cumsum(share)
    collected = np.empty(0, dtype=np.int64)
    while len(collected) < n:
        # Where hubs are joined to all already, further draws of them are lost; uniform ends reach the rest.
        size = 2 * (n - len(collected)) + FLEXIBLE
        source = np.searchsorted(cumulative[:-1], rng.random(size))
        even = rng.random(size) < 0.1
        target = np.where(even, rng.integers(0, n_genes, size), np.searchsorted(cumulative[:-1], rng.random(size)))
        if not directed:
            source, target = np.minimum(source, target), np.maximum(source, target)
        drawn = np.unique((source * n_genes + target)[source != target])
        collected = (
            np.union1d(collected, rng.permutation(drawn)[: n - len(collected)])
            if len(collected)
            else rng.permutation(drawn)[:n]
        )
    return np.sort(collected)


def _draw_sets(n_genes: int, size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """``n`` different sets of ``size`` different genes, in random order, int64 [n, size]."""
    power = n_genes ** np.arange(size, dtype=np.int64)[::-1]
    collected = np.empty(0, dtype=np.int64)
    while len(collected) < n:
        gene = np.sort(rng.integers(0, n_genes, (2 * (n - len(collected)) + FLEXIBLE, size)), axis=1)
        key = gene[(np.diff(gene, axis=1) > 0).all(1)] @ power
        collected = np.concatenate([collected, rng.permutation(np.setdiff1d(key, collected))[: n - len(collected)]])
    return collected[:, None] // power % n_genes

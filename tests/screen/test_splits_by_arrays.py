"""Splits by array operations assign what loops over the sets' names assigned."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from torchcell.core.split import assign_folds
from torchcell.screen.record import KINDS, Screen
from torchcell.screen.splits import SPLITS, query_genes

NAMES = ["A", "A1", "A10", "A:0", "AB", "a", "B-C", "B", "B C", "YAL001C", "YAL001C-A", "Æ", "Z", "z{", "~", "10", "2"]
"""Some begin another, and some sort otherwise with a sign behind them."""


def mixed_screen(seed: int, sizes: tuple[int, ...]) -> Screen:
    rng = np.random.default_rng(seed)
    genes = rng.permutation(NAMES)
    sets: dict[tuple, None] = {}
    for _ in range(300):
        members = rng.permutation(len(genes))[: rng.choice(sizes)].tolist()
        sets[tuple(zip(members, rng.integers(0, 3, len(members)).tolist(), strict=True))] = None
    unlike = {tuple(sorted(one)): one for one in sets}.values()
    size = [len(one) for one in unlike]
    member = np.array([pair for one in unlike for pair in one])
    n = len(size)
    ptr = np.concatenate([[0], np.cumsum(size)])
    return Screen(
        name="mixed",
        genes=genes,
        gene=member[:, 0],
        ptr=ptr,
        kind=member[:, 1].astype(np.int8),
        phenotype=rng.normal(size=(n, 1)).astype(np.float32),
        phenotype_names=("y",),
        sample_id=np.array([f"s{i}" if i % 7 else f"é{i}" for i in rng.permutation(n).tolist()]),
        columns={"query": genes[member[ptr[:-1], 0] // 2]},
    ).validate()


def text_keys(screen: Screen) -> np.ndarray:
    members = [f"{screen.genes[g]}:{k}" for g, k in zip(screen.gene, screen.kind, strict=True)]
    return np.array(["|".join(sorted(members[a:b])) for a, b in zip(screen.ptr[:-1], screen.ptr[1:], strict=True)])


def by_loop(screen: Screen, method: str) -> tuple[list[str], list[list[str]]]:
    """Part and clusters of each sample."""
    if method == "random":
        part_of = assign_folds(text_keys(screen), 5, 1, 3)
        return [part_of[key] for key in text_keys(screen).tolist()], [sorted(genes) for genes in screen.sets()]
    names = query_genes(screen) if method == "query_disjoint" else screen.genes[np.unique(screen.gene)]
    part_of = assign_folds(names, 5, 1, 3)
    parts, clusters = [], []
    for genes in screen.sets():
        own = [part_of.get(gene, "") for gene in genes]
        strictest = min(own, key=lambda part: ("test", "val", "train", "").index(part))
        chosen = [gene for gene, part in zip(genes, own, strict=True) if part == strictest]
        if method == "gene_disjoint_all":
            strictest, chosen = strictest if len(set(own)) == 1 else "unused", list(genes)
        parts.append(strictest or "train")
        clusters.append(sorted(chosen))
    return parts, clusters


@pytest.mark.parametrize("sizes", [(1,), (2,), (1, 2, 3, 5)])
@pytest.mark.parametrize("method", ["random", "query_disjoint", "gene_disjoint_any", "gene_disjoint_all"])
def test_parts_and_clusters_are_those_of_a_loop_over_names(method, sizes):
    for seed in range(3):
        screen = mixed_screen(seed, sizes)
        try:
            split = SPLITS.make(screen, method, 5, 1, 3)
        except ValueError as error:
            assert "empty" in str(error), "few sets of one or five genes"  # noqa: PT017
            continue
        parts, clusters = by_loop(screen, method)
        assert split.part.tolist() == parts
        rows = split.group.reshape(len(screen), -1).tolist()
        assert [[name for name in row if name] for row in rows] == clusters
        lines = sorted(f"{name}\t{part}" for name, part in zip(screen.sample_id.tolist(), parts, strict=True))
        assert split.hash == hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("sizes", [(2,), (1, 2, 3, 5)])
def test_duplicate_keys_are_numbers_in_the_order_of_the_texts_of_the_sets(sizes):
    screen = mixed_screen(0, sizes)
    screen = screen.subset(np.random.default_rng(1).integers(0, len(screen), 400))
    texts, keys = text_keys(screen), screen.duplicate_keys()
    np.testing.assert_array_equal(np.unique(keys, return_inverse=True)[1], np.unique(texts, return_inverse=True)[1])


def test_keys_of_sets_beyond_64_bits_stay_in_order():
    rng, n_genes = np.random.default_rng(0), 3_000
    rows = [np.sort(rng.permutation(n_genes)[:size]) for size in rng.integers(4, 9, 200)]
    rows += [np.append(row[:-1], n_genes - 1 - i % 7) for i, row in enumerate(rows[:50])]
    member = np.concatenate(rows)
    screen = Screen(
        name="large",
        genes=np.array([f"G{i}" for i in range(n_genes)]),
        gene=member,
        ptr=np.cumsum([0, *map(len, rows)]),
        kind=np.full(len(member), KINDS.index("knockdown"), dtype=np.int8),
        phenotype=np.zeros((len(rows), 1), dtype=np.float32),
        phenotype_names=("y",),
        sample_id=np.arange(len(rows)).astype(str),
    )
    np.testing.assert_array_equal(
        np.unique(screen.duplicate_keys(), return_inverse=True)[1], np.unique(text_keys(screen), return_inverse=True)[1]
    )

"""Public screens of genetic interactions: Costanzo et al. 2010, Kuzmin et al. 2018."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from torchcell.io.cache import cached_record
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.io.gene_names import yeast_gene_names
from torchcell.io.sources import fetch
from torchcell.screen.record import KINDS, Screen

if TYPE_CHECKING:
    import pandas as pd


COSTANZO = "costanzo2010"
COSTANZO_FILE = "sgadata_costanzo2009_intermediateCutoff_101120.txt.gz"
COLUMNS = ("query_strain", "query_name", "array_strain", "array_name", "epsilon", "sd", "p_value")
RECIPE = 1  # raise it when the parser changes, so that no older cache is read


@configurable
def costanzo2010() -> Screen:
    """Genetic interaction scores (epsilon, a fitness, no unit) of 165,947 pairs of yeast ORFs.

    A x B and B x A are one measurement written twice: rows of the same two strains are averaged first, so that
    no split can put a copy of a test pair into train. Different alleles of a pair are averaged afterwards.
    Every allele (deletion, DAmP, temperature-sensitive) counts as loss of the gene. The file holds significant
    pairs only (p < 0.05 and abs(epsilon) > 0.08) and no replicates.

    Returns:
        A screen with phenotype ``gene_interaction``, sample ids such as ``YAL063C|YBR266C`` and the columns
        ``query`` and ``array`` (ORFs that had the role in any row of the pair, joined by ``|``), ``sd`` (of
        epsilon; of the mean where alleles are averaged, errors taken as independent), ``p_value`` (the smallest of
        the pair) and ``n_measurements`` (pairs of strains averaged).

    Raises:
        InputError: The file can't be had or is damaged.

    Source: Costanzo et al., Science 2010, doi:10.1126/science.1180823.
    """
    return cached_record(Screen, COSTANZO, [COSTANZO], {"recipe": RECIPE}, _parse)


def read_rows() -> pd.DataFrame:
    """The rows of the file as they are, with the ORFs ``query`` and ``array`` taken from the strain names."""
    import pandas as pd

    rows = pd.read_csv(fetch(COSTANZO)[COSTANZO_FILE], sep="\t", header=None, names=list(COLUMNS))
    for role in ("query", "array"):
        rows[role] = rows[f"{role}_strain"].str.split("_").str[0]
    return rows


def strain_names() -> dict[str, set[str]]:
    """Allele and gene names of the screen with their ORFs, e.g. ``CDC2-7`` and ``CDC2`` for YDL102W.

    Of an allele name all beginnings up to a hyphen are listed too.
    """
    rows = read_rows()
    names: dict[str, set[str]] = {}
    for role in ("query", "array"):
        for name, orf in rows[[f"{role}_name", role]].drop_duplicates().itertuples(index=False):
            whole = name.upper().removesuffix("_DAMP")
            parts = whole.split("-") if whole != orf else [whole]
            for length in range(len(parts), 0, -1):
                names.setdefault("-".join(parts[:length]), set()).add(orf)
    return names


def _parse() -> Screen:
    rows = read_rows()
    for one, other, low, high in (
        ("query_strain", "array_strain", "low_strain", "high_strain"),
        ("query", "array", "low", "high"),
    ):
        rows[low], rows[high] = rows[[one, other]].min(axis=1), rows[[one, other]].max(axis=1)
    measured = rows.groupby(["low", "high", "low_strain", "high_strain"], sort=True)
    measurements = measured[["epsilon", "sd", "p_value"]].agg({"epsilon": "mean", "sd": "mean", "p_value": "min"})
    measurements["variance"] = measurements["sd"] ** 2
    by_pair = measurements.groupby(level=["low", "high"], sort=True)
    pairs = by_pair.agg(
        epsilon=("epsilon", "mean"),
        variance=("variance", "sum"),
        p_value=("p_value", "min"),
        n_measurements=("epsilon", "size"),
    ).reset_index()
    genes, gene = np.unique(pairs[["low", "high"]].to_numpy(dtype=str), return_inverse=True)
    return Screen(
        name=COSTANZO,
        genes=genes,
        gene=gene.reshape(-1).astype(np.int64),
        ptr=np.arange(0, 2 * len(pairs) + 1, 2, dtype=np.int64),
        kind=np.full(2 * len(pairs), KINDS.index("absent"), dtype=np.int8),
        phenotype=pairs[["epsilon"]].to_numpy(dtype=np.float32),
        phenotype_names=("gene_interaction",),
        sample_id=_join(pairs),
        columns={
            "query": _costanzo_roles(rows, "query", pairs),
            "array": _costanzo_roles(rows, "array", pairs),
            "sd": (np.sqrt(pairs["variance"]) / pairs["n_measurements"]).to_numpy(dtype=np.float32),
            "p_value": pairs["p_value"].to_numpy(dtype=np.float32),
            "n_measurements": pairs["n_measurements"].to_numpy(dtype=np.int64),
        },
        dropped={
            "rows that repeat a measurement in the other orientation": len(rows) - len(measurements),
            "measurements averaged with another allele of the pair": len(measurements) - len(pairs),
        },
    )


def _costanzo_roles(rows: pd.DataFrame, role: str, pairs: pd.DataFrame) -> np.ndarray:
    """Per pair the ORFs that had the role in any of its rows, joined by ``|`` in sorted order."""
    had = [
        rows.loc[rows[role] == rows[side], ["low", "high"]].drop_duplicates().assign(**{side + "_had": True})
        for side in ("low", "high")
    ]
    flags = pairs[["low", "high"]].merge(had[0], how="left").merge(had[1], how="left")
    low_had, high_had = flags["low_had"].notna().to_numpy(), flags["high_had"].notna().to_numpy()
    low, high = pairs["low"].to_numpy(dtype=str), pairs["high"].to_numpy(dtype=str)
    return np.where(low_had & high_had, _join(pairs), np.where(low_had, low, high))


def _join(pairs: pd.DataFrame) -> np.ndarray:
    """The two ORFs of each pair, joined by ``|``."""
    return (pairs["low"] + "|" + pairs["high"]).to_numpy(dtype=str)


KUZMIN = "kuzmin2018"
KUZMIN_FILE = "kuzmin2018_significant_triplets_links.txt"
CONTROL = "hoΔ"
"""Deletion of *HO*, which has no effect: a row with it is the digenic control of a trigenic cross."""

Negatives = Literal["uniform", "matched"]


@dataclass(frozen=True)
class Triples:
    """The file by ORF.

    Attributes:
        positives: The set of three ORFs -> (query gene, query gene, array gene); the query genes sorted.
        controls: Pairs of ORFs with a significant digenic interaction in the same screen.
        by_controls: How many query pairs only the digenic controls could tell.
        dropped: What mapping and merging left out.
    """

    positives: dict[frozenset[str], tuple[str, str, str]]
    controls: frozenset[frozenset[str]]
    by_controls: int
    dropped: dict[str, int]


@configurable
def kuzmin2018(negatives: Negatives = "uniform", negatives_per_positive: int = 1, seed: int = 0) -> Screen:
    """Significant trigenic interactions (1) and triples sampled from query pair x array gene (0, unlabeled).

    The file has no score and no confirmed null triple: a sampled triple was probably measured and not significant,
    and nobody says so. How negatives are drawn decides the score: the frequency of the query pair alone gives AUROC
    .77 on a random split with ``uniform`` and .52 with ``matched`` (``tests/data/test_kuzmin.py``, three seeds).

    A negative is a query pair and an array gene of the positives, drawn independently; three different genes, none of
    the positives, none twice. Triples whose genes interact in a digenic control are *not* left out: positives have
    them too, and a rule about them would tell the label.

    Args:
        negatives: ``uniform``: every query pair and every array gene is equally likely; ``matched``: each as likely as
            it is among the positives.
        negatives_per_positive: Sampled triples per interaction.
        seed: Of the sampling.

    Returns:
        A binary screen with phenotype ``trigenic_interaction``, sample ids of the sorted ORFs joined by ``|``, and the
        columns ``query`` (two ORFs joined by ``|``), ``array`` and ``unlabeled`` (True for sampled triples).

    Raises:
        InputError: An unknown way of sampling, more negatives than there are triples, or no file.

    Source: Kuzmin et al., Science 2018, doi:10.1126/science.aao1729.
    """
    if negatives not in ("uniform", "matched"):
        raise InputError(f"negatives={negatives!r}: choose 'uniform' or 'matched'")
    if negatives_per_positive < 0:
        raise InputError(f"negatives_per_positive={negatives_per_positive}: must be 0 or more")
    recipe = {"recipe": RECIPE, "negatives": negatives, "per_positive": negatives_per_positive, "seed": seed}
    sources = [KUZMIN, "costanzo2010", "yeast_gene_names"]

    def build() -> Screen:
        triples = read_triples()
        positives = [triples.positives[key] for key in sorted(triples.positives, key=sorted)]
        sampled = sample_negatives(positives, negatives, negatives_per_positive * len(positives), seed)
        return replace(_screen(positives, sampled), dropped=triples.dropped)

    return cached_record(Screen, KUZMIN, sources, recipe, build)


def read_triples() -> Triples:
    """Map the alleles of the file to ORFs and tell query genes from array genes.

    Allele names are joined by ``_`` in alphabetical order, so their place tells nothing. The query pair of a triple is
    the pair of its genes that most triples share. Where that is a tie (15 of 3,188 triples stand alone), the digenic
    controls decide: a control joins a query gene with an array gene, so the array gene is the one with the largest
    share of known query genes among its partners there. On triples without a tie this second rule agrees in 94 %.
    """
    names = yeast_gene_names(strain_names())
    trigenic: list[frozenset[str]] = []
    controls: set[frozenset[str]] = set()
    lost: Counter[str] = Counter()
    lines = fetch(KUZMIN)[KUZMIN_FILE].read_text(encoding="utf-8").splitlines()[1:]
    for line in lines:
        alleles = line.split()[0].split("_")
        control = CONTROL in alleles
        genes = frozenset(names.resolve_allele(allele) or "" for allele in alleles if allele != CONTROL)
        mapped = "" not in genes and len(genes) == (2 if control else 3)
        if control:
            lost["digenic control rows"] += 1
            controls |= {genes} if mapped else set()
        elif mapped:
            trigenic.append(genes)
        else:
            lost["trigenic rows with an allele of no known ORF"] += 1
    lost["trigenic rows that name a triple again"] = len(trigenic) - len(set(trigenic))
    positives, by_controls = _kuzmin_roles(set(trigenic), controls)
    return Triples(positives, frozenset(controls), by_controls, dict(lost))


def sample_negatives(
    positives: list[tuple[str, str, str]], how: Negatives, count: int, seed: int
) -> list[tuple[str, str, str]]:
    """Draw ``count`` triples (query gene, query gene, array gene) that are no positives; see ``kuzmin2018``."""
    pairs, arrays = [(a, b) for a, b, _ in positives], [c for _, _, c in positives]
    if how == "uniform":
        pairs, arrays = sorted(set(pairs)), sorted(set(arrays))
    taken = {frozenset(triple) for triple in positives}
    possible = {frozenset((*pair, array)) for pair in set(pairs) for array in set(arrays) if array not in pair}
    if count > len(possible - taken):
        raise InputError(
            f"{count:,} negatives asked for, {len(possible - taken):,} triples to draw from; ask for fewer"
        )
    generator = np.random.default_rng(seed)
    drawn: list[tuple[str, str, str]] = []
    while len(drawn) < count:
        choice = zip(
            generator.integers(len(pairs), size=count),
            generator.integers(len(arrays), size=count),
            strict=True,
        )
        for i, j in choice:
            triple = (*pairs[i], arrays[j])
            key = frozenset(triple)
            if len(key) == 3 and key not in taken and len(drawn) < count:
                taken.add(key)
                drawn.append(triple)
    return drawn


def _kuzmin_roles(
    trigenic: set[frozenset[str]], controls: Iterable[frozenset[str]]
) -> tuple[dict[frozenset[str], tuple[str, str, str]], int]:
    """The query pair and the array gene of each triple, and how many the digenic controls had to tell."""
    shared = Counter(pair for triple in trigenic for pair in combinations(sorted(triple), 2))
    pair_of: dict[frozenset[str], tuple[str, str] | None] = {}
    for triple in trigenic:
        first, second, _ = Counter({pair: shared[pair] for pair in combinations(sorted(triple), 2)}).most_common()
        pair_of[triple] = first[0] if first[1] > second[1] else None
    query_genes = {gene for pair in pair_of.values() if pair for gene in pair}
    partners: dict[str, list[bool]] = {}
    for one, other in (tuple(control) for control in controls):
        partners.setdefault(one, []).append(other in query_genes)
        partners.setdefault(other, []).append(one in query_genes)
    roles = {}
    for triple, pair in pair_of.items():
        if pair is None:
            array = max(sorted(triple), key=lambda gene: float(np.mean(partners.get(gene, [False]))))
            first_gene, second_gene = sorted(triple - {array})
        else:
            first_gene, second_gene = pair
            (array,) = triple - set(pair)
        roles[triple] = (first_gene, second_gene, array)
    return roles, sum(pair is None for pair in pair_of.values())


def _screen(positives: list[tuple[str, str, str]], sampled: list[tuple[str, str, str]]) -> Screen:
    triples = np.array(positives + sampled, dtype=str)
    members = np.sort(triples, axis=1)
    genes, gene = np.unique(members, return_inverse=True)
    unlabeled = np.arange(len(triples)) >= len(positives)
    return Screen(
        name=KUZMIN,
        genes=genes,
        gene=gene.reshape(-1).astype(np.int64),
        ptr=np.arange(0, 3 * len(triples) + 1, 3, dtype=np.int64),
        kind=np.full(3 * len(triples), KINDS.index("absent"), dtype=np.int8),
        phenotype=(~unlabeled)[:, None].astype(np.float32),
        phenotype_names=("trigenic_interaction",),
        sample_id=np.array(["|".join(row) for row in members]),
        task="binary",
        columns={
            "query": np.array(["|".join(row[:2]) for row in triples]),
            "array": triples[:, 2],
            "unlabeled": unlabeled,
        },
    )

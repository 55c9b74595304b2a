"""Costanzo 2010: genetic interactions of yeast gene pairs, one sample per unordered pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchcell.data.cache import cached_screen
from torchcell.data.screen import KINDS, Screen
from torchcell.data.sources import fetch

if TYPE_CHECKING:
    import pandas as pd

SOURCE = "costanzo2010"
FILE = "sgadata_costanzo2009_intermediateCutoff_101120.txt.gz"
COLUMNS = ("query_strain", "query_name", "array_strain", "array_name", "epsilon", "sd", "p_value")
RECIPE = 1  # raise it when the parser changes, so that no older cache is read


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
    return cached_screen(SOURCE, [SOURCE], {"recipe": RECIPE}, _parse)


def read_rows() -> pd.DataFrame:
    """The rows of the file as they are, with the ORFs ``query`` and ``array`` taken from the strain names."""
    import pandas as pd

    rows = pd.read_csv(fetch(SOURCE)[FILE], sep="\t", header=None, names=list(COLUMNS))
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
        name=SOURCE,
        genes=genes,
        gene=gene.reshape(-1).astype(np.int64),
        ptr=np.arange(0, 2 * len(pairs) + 1, 2, dtype=np.int64),
        kind=np.full(2 * len(pairs), KINDS.index("absent"), dtype=np.int8),
        phenotype=pairs[["epsilon"]].to_numpy(dtype=np.float32),
        phenotype_names=("gene_interaction",),
        sample_id=_join(pairs),
        columns={
            "query": _roles(rows, "query", pairs),
            "array": _roles(rows, "array", pairs),
            "sd": (np.sqrt(pairs["variance"]) / pairs["n_measurements"]).to_numpy(dtype=np.float32),
            "p_value": pairs["p_value"].to_numpy(dtype=np.float32),
            "n_measurements": pairs["n_measurements"].to_numpy(dtype=np.int64),
        },
        lost={
            "rows that repeat a measurement in the other orientation": len(rows) - len(measurements),
            "measurements averaged with another allele of the pair": len(measurements) - len(pairs),
        },
    )


def _roles(rows: pd.DataFrame, role: str, pairs: pd.DataFrame) -> np.ndarray:
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

"""Write a screen of N pairs as a user would have it: ``python scripts/bench/make_screen.py 4050000 screen.csv``.

The same N gives the same file. Its columns are ``sample_id``, ``genes``, ``query``, ``array`` and two phenotypes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

N_GENES, SPARE, RANK = 5_000, 1.2, 4
"""Genes, as in the yeast screens; more of them where their pairs would not be ``SPARE`` times those wanted."""


def make_screen(n: int, seed: int = 0) -> pa.Table:
    """A table of ``n`` different pairs with an interaction of low rank, and a fitness that genes add up to."""
    rng = np.random.default_rng(seed)
    n_genes = max(N_GENES, int(np.sqrt(2 * SPARE * n)) + 2)
    pair = rng.permutation(n_genes * (n_genes - 1) // 2)[:n]
    high = ((1 + np.sqrt(1 + 8 * pair.astype(np.float64))) / 2).astype(np.int64)
    high += (high + 1) * high // 2 <= pair  # the square root may be off by one
    high -= high * (high - 1) // 2 > pair
    low = pair - high * (high - 1) // 2
    turned = rng.random(n) < 0.5
    query, array = np.where(turned, high, low), np.where(turned, low, high)
    factor = rng.normal(size=(n_genes, RANK)) / RANK
    interaction = np.einsum("nr,nr->n", factor[query], factor[array]) + rng.normal(size=n) * 0.1
    fitness = rng.normal(1, 0.1, n_genes)[np.stack([query, array])].sum(0) - 1 + interaction
    names = pa.array([f"Y{chr(65 + i % 16)}{'LR'[i % 2]}{i // 16:03d}{'CW'[i % 2]}" for i in range(n_genes)])
    first, second = names.take(pa.array(query)), names.take(pa.array(array))
    columns = {
        "sample_id": pc.binary_join_element_wise("p", pc.utf8_lpad(pa.array(np.arange(n)).cast("string"), 8, "0"), ""),
        "genes": pc.binary_join_element_wise(first, second, "|"),
        "query": first,
        "array": second,
        "fitness": np.round(fitness, 4),
        "interaction": np.round(interaction, 4),
    }
    return pa.table(columns)


def write_screen(n: int, path: str | Path) -> Path:
    """The same table as a ``.csv`` or ``.parquet`` file."""
    path = Path(path)
    if path.suffix == ".parquet":
        pq.write_table(make_screen(n), path)
        return path
    table = make_screen(n)
    with path.open("wb") as file:  # pyarrow would put the names into quotation marks
        file.write((",".join(table.column_names) + "\n").encode())
        csv.write_csv(table, file, csv.WriteOptions(include_header=False, quoting_style="none"))
    return path


if __name__ == "__main__":
    write_screen(int(sys.argv[1]), sys.argv[2])

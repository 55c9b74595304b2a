"""Reading a screen of 500,000 pairs, checked and ready to train on, against pyarrow's parsing of the file alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from pyarrow import csv
from target import Target, at_most, seconds

from torchcell.screen.table import read_screen

N_PAIRS, N_GENES, WANTED = 500_000, 5_000, 20.0


def run() -> list[Target]:
    """The ratio of both, with an id, two genes and a phenotype a row."""
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "screen.csv")
        parsed, read = seconds(lambda: csv.read_csv(path)), seconds(lambda: read_screen(path), 3)
    return [at_most(f"a screen of {N_PAIRS:,} pairs against pyarrow.csv alone", read / parsed, WANTED, "x")]


def _write(path: Path) -> Path:
    rng = np.random.default_rng(0)
    first, second = np.triu_indices(N_GENES, 1)
    chosen = rng.permutation(len(first))[:N_PAIRS]
    values = rng.normal(size=N_PAIRS).tolist()
    rows = zip(first[chosen].tolist(), second[chosen].tolist(), values, strict=True)
    with path.open("w") as file:
        file.write("sample_id,genes,fitness\n")
        file.writelines(f"s{i},Y{a:04d}W|Y{b:04d}W,{value:.4f}\n" for i, (a, b, value) in enumerate(rows))
    return path

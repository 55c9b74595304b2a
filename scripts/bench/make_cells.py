"""``python scripts/bench/make_cells.py N OUT.h5ad``: N cells of a made-up screen, the same on every machine.

Sparse counts over 2,000 genes, about 170 of them above zero in a cell; a tenth of the cells are controls, the rest of
conditions with about 150 cells each, in mixed order as a file of a laboratory has them. A perturbation silences its
own gene and moves twenty others. The file is written in blocks, as anndata writes: memory does not grow with N.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

GENES, BLOCK, SIZE = 2_000, 4_096, 150
CONTROLS = 0.1
PIECE = 2**15
"""Values of a chunk, as h5py chooses for a file of this size."""
MOVED = 20
"""Genes that a perturbation moves besides its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("n", type=int, metavar="N", help="cells")
    parser.add_argument("out", metavar="OUT.h5ad", help="file to write")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_cells(given.n, given.out, given.seed)


def write_cells(n: int, out: str | Path, seed: int = 0) -> None:
    """Write n cells; ``X`` is CSR of float32 counts, ``obs`` has ``perturbation`` and ``cell_line``."""
    rng = np.random.default_rng(seed)
    n_conditions = max(round(n * (1 - CONTROLS) / SIZE), 5)
    of_cell = rng.integers(0, n_conditions, n)
    of_cell[rng.random(n) < CONTROLS] = -1
    level = np.exp(rng.normal(-3.2, 1.4, GENES)).clip(max=20)
    with h5py.File(out, "w") as file:
        root = file.create_group("X")
        root.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (n, GENES)})
        parts = {
            name: root.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(PIECE,))
            for name, kind in (("data", "f4"), ("indices", "i4"))
        }
        indptr = np.zeros(n + 1, dtype=np.int64)
        for start in range(0, n, BLOCK):
            own = of_cell[start : start + BLOCK]
            block = _counts(own, level, np.random.default_rng([seed, start]), seed)
            done = int(indptr[start])
            indptr[start + 1 : start + len(own) + 1] = done + block.indptr[1:]
            for name, each in parts.items():
                each.resize((done + block.nnz,))
                each[done:] = getattr(block, name)
        root.create_dataset("indptr", data=indptr)
        names = np.array([*(_name(i) for i in range(n_conditions)), "control"])
        obs = pd.DataFrame(
            {"perturbation": pd.Categorical(names[of_cell]), "cell_line": pd.Categorical(np.full(n, "K562"))},
            index=pd.Index(np.char.add("AAACCTGAGAAA-", np.arange(n).astype(str))),
        )
        var = pd.DataFrame(index=[f"G{i:04d}" for i in range(GENES)])
        for key, table in (("obs", obs), ("var", var)):
            write_elem(file, key, table)
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


def _name(condition: int) -> str:
    """Singles of the measured genes, then pairs."""
    if condition < GENES:
        return f"G{condition:04d}"
    one, two = sorted(np.random.default_rng(condition).choice(GENES, 2, replace=False).tolist())
    return f"G{one:04d}+G{two:04d}"


def _counts(own: np.ndarray, level: np.ndarray, rng: np.random.Generator, seed: int) -> sparse.csr_matrix:
    """Counts of cells of these conditions, -1 a control."""
    mean = level * rng.gamma(4.0, 0.25, (len(own), 1))
    for row, condition in enumerate(own.tolist()):
        if condition >= 0:
            effect = np.random.default_rng([seed, condition, 1])
            moved = effect.choice(GENES, MOVED, replace=False)
            mean[row, moved] *= np.exp(effect.normal(0, 1, MOVED))
            mean[row, [int(part[1:]) for part in _name(condition).split("+")]] *= 0.1
    return sparse.csr_matrix(rng.poisson(mean).astype(np.float32))


if __name__ == "__main__":
    main()

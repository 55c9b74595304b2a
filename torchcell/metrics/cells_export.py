"""Predictions as the two h5ad files that the ``cell-eval`` package reads: what was measured, what was predicted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from torchcell.data.cache import atomic_write
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, some

if TYPE_CHECKING:
    import anndata

PERTURBATION, GROUP, CONTROL = "target_gene", "celltype", "non-targeting"
"""Columns of ``obs`` and the label of a control, as ``cell-eval run`` looks for them by itself."""


def cell_eval_pair(record: Conditions, prediction: np.ndarray) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Measured and predicted cells with the same labels and genes.

    The measured file has the cells of every condition and the truth's half of the controls; the predicted one the other
    half. ``cell-eval`` pairs all cells of a file with all of its controls, so that a record of several groups needs its
    option ``--celltype-col celltype``.

    Args:
        record: n conditions with their cells.
        prediction: Mean expression [n, G], or sets of S cells [n, S, G]. A mean becomes one cell: enough for ``mae``
            and the discrimination scores; a test between cells, as in ``overlap_at_N``, needs sets. Below 0 there is no
            expression: such values become 0.

    Raises:
        InputError: Predictions of another shape, or conditions without one.
    """
    sets = prediction[:, None] if prediction.ndim == 2 else prediction
    if sets.ndim != 3 or (len(sets), sets.shape[2]) != (len(record), len(record.genes)):
        raise InputError(
            f"{record.name}: predictions of shape {prediction.shape}, expected "
            f"({len(record)}, {len(record.genes)}) or sets ({len(record)}, cells, {len(record.genes)})"
        )
    if (lacking := ~np.isfinite(sets).all((1, 2))).any():
        raise InputError(f"{record.name}: conditions without a prediction: {some(record.sample_id[lacking])}")
    real, predicted = (_controls(record, half) for half in (True, False))
    real.append((record.cells.X[record.member], np.repeat(np.arange(len(record)), record.sizes), False))
    asked = np.repeat(np.arange(len(record)), sets.shape[1])
    predicted.append((np.maximum(sets, 0).reshape(-1, sets.shape[2]), asked, False))
    return _table(record, real), _table(record, predicted)


def write_cell_eval(folder: Path, record: Conditions, prediction: np.ndarray) -> list[Path]:
    """Write ``cell_eval_real.h5ad`` and ``cell_eval_predicted.h5ad`` into ``folder``, see ``cell_eval_pair``.

    Score them with ``cell-eval run -ap cell_eval_predicted.h5ad -ar cell_eval_real.h5ad --profile vcc``.
    """
    paths = [folder / f"cell_eval_{what}.h5ad" for what in ("real", "predicted")]
    for path, table in zip(paths, cell_eval_pair(record, prediction), strict=True):
        with atomic_write(path) as temporary:
            table.write_h5ad(temporary)
    return paths


def _controls(record: Conditions, half: bool) -> list[tuple[object, np.ndarray, bool]]:
    """Expression of one half of each group's controls, a condition that they belong to, and that they are controls."""
    ptr, member = record.controls(half)
    first = np.unique(record.group, return_index=True)[1]
    cells = [member[ptr[i] : ptr[i + 1]] for i in first.tolist()]
    return [(record.cells.X[at], np.full(len(at), i), True) for i, at in zip(first.tolist(), cells, strict=True)]


def _table(record: Conditions, parts: list[tuple[object, np.ndarray, bool]]) -> anndata.AnnData:
    import anndata

    condition = np.concatenate([at for _, at, _ in parts])
    is_control = np.concatenate([np.full(len(at), flag) for _, at, flag in parts])
    columns = {
        PERTURBATION: np.where(is_control, CONTROL, record.perturbation[condition].astype(str)),
        GROUP: record.group[condition].astype(str),
    }
    obs = pd.DataFrame(columns, index=np.arange(len(condition)).astype(str))
    X = sparse.vstack([sparse.csr_matrix(values, dtype=np.float32) for values, _, _ in parts], format="csr")
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=record.genes.astype(str)))

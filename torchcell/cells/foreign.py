"""Predictions of other people's models for single cells: an h5ad of predicted cells, or of a mean a condition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from torchcell.cells.pseudobulk import BAR, EVERYWHERE, Pseudobulk, groups_of
from torchcell.core.foreign import Foreign, ForeignColumns, ForeignFormat, on_genes, refuse_undefined
from torchcell.io.cache import atomic_write
from torchcell.io.errors import InputError, some
from torchcell.io.h5ad import read_h5ad
from torchcell.io.in_memory import InMemory
from torchcell.io.labels import CONTROL_WORDS, label_texts, read_labels
from torchcell.io.matrices import as_float32, layer_of

NAMES = ("perturbation", "condition", "target_gene", "gene", "pert")
"""Names of the column of perturbations, the first that a file has: ours, that of GEARS, those of State."""
GROUP = "cell_type"
"""Column of exported cells with the covariates that the data pair by: the cell type of cell-load."""
MOST_NEGATIVE = 0.2
"""Share of negative values from which on predictions can't be levels of log-normalized expression."""


def keys(record: Pseudobulk) -> np.ndarray:
    """``perturbation|group`` of each condition [n]."""
    return record.sample_id


def others(record: Pseudobulk, name: str) -> np.ndarray:
    """The perturbation beside the cell line, the group beside the perturbation."""
    return np.asarray(record.perturbation if name == "cell_line" else record.group).astype(str)


def read(path: str | Path | InMemory, record: Pseudobulk, how: ForeignColumns) -> Foreign:
    """Read predicted cells; those of a condition are averaged, as the measured ones are.

    ``obs`` has the perturbation (``A``, ``A+B``; parts such as ``ctrl`` are no genes) and the covariates that the data
    pair by; ``X`` or a layer has expression on the scale of the data. Predicted control cells are left out: the true
    ones are used.

    Raises:
        InputError: A missing column, no gene in common, values that are not what ``values`` says.
    """
    how.refuse_unknown(path, ("perturbation", *record.covariates))
    adata = read_h5ad(path)
    table, values = adata.obs, layer_of(adata, how.layer, str(path))
    label = label_texts(_column(path, table, how, "perturbation", NAMES).to_numpy())
    words = frozenset(CONTROL_WORDS) | frozenset(record.cells.control_words)
    label, control, _ = read_labels(str(path), adata.obs_names.to_numpy().astype(str), label, words)
    covariates = [_column(path, table, how, name, (name,)).astype(str).tolist() for name in record.covariates]
    group = np.array(
        [BAR.join(one) for one in zip(*covariates, strict=True)] if covariates else [EVERYWHERE] * len(label)
    )
    key = np.array([f"{one}{BAR}{place}" for one, place in zip(label, group, strict=True)], dtype=str)
    notes = (
        [f"{control.sum():,} predicted control cells were left out: the measured ones are used"]
        if control.any()
        else []
    )
    different, row = np.unique(key[~control], return_inverse=True)
    matrix = as_float32(values[0])[~control]
    means = np.stack([np.asarray(matrix[row == i].mean(axis=0)).ravel() for i in range(len(different))])
    means, lacking = on_genes(path, means.astype(np.float32), values[1], record.genes.astype(str))
    refuse_undefined(path, different, means[:, ~np.isnan(means).all(axis=0)])
    _refuse_other_values(path, means, record, how)
    if how.values == "change":
        own = {text: i for i, text in enumerate(record.sample_id.tolist())}
        known = np.array([own.get(text, -1) for text in different.tolist()])
        means[known >= 0] += record.input_control[known[known >= 0]]
    return Foreign(different, means, (*notes, *lacking))


def _column(path: object, table: pd.DataFrame, how: ForeignColumns, name: str, usual: tuple[str, ...]) -> pd.Series:
    """The column that ``columns`` names, or the first of the usual ones."""
    wanted = (how.columns[name],) if name in how.columns else usual
    found = next((one for one in wanted if one in table), None)
    if found is None:
        raise InputError(
            f"{path}: obs has no column {some(wanted)} for {name}; it has {some(map(str, table.columns), 12)}"
        )
    return table[found]


def _refuse_other_values(path: object, means: np.ndarray, record: Pseudobulk, how: ForeignColumns) -> None:
    """Raise where values are not what ``how`` says: a level is hardly ever negative, a change often is."""
    known = means[:, ~np.isnan(means).all(axis=0)]
    negative, largest = float((known < 0).mean()), float(np.nanmax(np.abs(known)))
    control = float(record.input_control.max())
    if how.values == "level" and negative > MOST_NEGATIVE:
        raise InputError(
            f"{path}: {negative:.0%} of the values are negative: these are changes, not expression; say values=change"
        )
    if how.values == "change" and negative == 0:
        raise InputError(f"{path}: no value is negative: this is expression, not a change; say values=level")
    if largest > 3 * max(control, 1.0):
        raise InputError(
            f"{path}: a value of {largest:g}, where the data reach {control:g}: not on the scale of the data "
            f"({record.cells.scale}, {record.cells.library or 'no'} counts a cell)"
        )


def export(record: Pseudobulk, part: np.ndarray, folder: Path, name: str) -> list[Path]:
    """Write ``data.h5ad`` (cells, with ``split`` in ``obs``), ``split.csv`` (cell, split), ``cell_load.toml``.

    ``split`` of a cell is the part of its condition; ``control`` of a control cell that predictions may start from;
    ``unused`` of the other half of them, from which the measured changes are taken, and of any other cell.
    """
    import anndata

    cells = record.cells
    split = np.where(cells.is_control & ~record.control_half, "control", "unused").astype("<U7")
    for i, where in enumerate(part.tolist()):
        split[record.members(i)] = where
    group = groups_of(cells, record.covariates)
    known = {"perturbation": np.where(cells.is_control, "control", cells.perturbation), **cells.covariates}
    obs = pd.DataFrame({**known, GROUP: group, "split": split}, index=cells.sample_id)
    adata = anndata.AnnData(as_float32(cells.X), obs, pd.DataFrame(index=cells.genes))
    paths = [folder / "data.h5ad", folder / "split.csv", folder / "cell_load.toml"]
    with atomic_write(paths[0]) as temporary:
        adata.write_h5ad(temporary)
    with atomic_write(paths[1]) as temporary:
        obs[["split"]].to_csv(temporary, index_label="cell")
    with atomic_write(paths[2]) as temporary:
        temporary.write_text(_toml(record, part, folder, name), encoding="utf-8")
    return paths


def _toml(record: Pseudobulk, part: np.ndarray, folder: Path, name: str) -> str:
    """The split as cell-load reads it: what is held out of each group; the rest is for training."""
    lines = ["[datasets]", f"{json.dumps(name)} = {json.dumps(str(folder.resolve()))}", "", "[training]"]
    lines += [f'{json.dumps(name)} = "train"', "", "[zeroshot]", "", "[fewshot]"]
    for group in np.unique(record.group).tolist():
        lines += ["", f"[fewshot.{json.dumps(f'{name}.{group}')}]"]
        for held in ("val", "test"):
            names = record.perturbation[(record.group == group) & (part == held)]
            lines.append(f"{held} = {json.dumps(sorted(names.tolist()))}")
    return "\n".join(lines) + "\n"


FORMAT = ForeignFormat(keys, others, lambda record: record.input_control, read, export)

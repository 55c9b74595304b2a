"""Perturbations to predict from a user's own control cells: a list of perturbations, and an h5ad of cells."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from torchcell.data.backed import expression, keys_of
from torchcell.data.cells import CellExpression, Scale
from torchcell.data.cells_file import annotation, validated
from torchcell.data.checks import column, flags, refuse, refuse_repeats, texts
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError, near, some
from torchcell.data.gene_names import GeneNames
from torchcell.data.measured_genes import MeasuredGenes, alias_table
from torchcell.data.pairing import BAR, groups_of
from torchcell.data.perturbation_labels import label_texts, read_request_labels
from torchcell.data.tables import read_table, require_columns, text_cells

if TYPE_CHECKING:
    import pandas as pd

TOTAL_OFF = 0.01
"""By how much, as a share, a cell's total may miss what the cells were scaled to."""


@dataclass(frozen=True)
class Controls:
    """A user's control cells, and how to read them.

    Attributes:
        path: The h5ad file or zarr folder. Where ``obs`` has a flag ``is_control``, cells that it denies are left out.
        scale: What the values are, ``counts`` or ``lognorm``; checked, never guessed. None: what those of training
            were.
        columns: Internal name of a covariate -> name in ``obs``.
        layer: Take the values from this layer instead of ``X``; ``raw``: those and the genes of ``adata.raw``.
        gene_column: Column of ``var`` with the gene symbols; by default the names of ``var``.
        aliases: Table of ``alias`` and ``gene``, so that old and new symbols meet; several aliases in a cell are joined
            by ``;``. None: symbols are compared without case.
        missing_genes: What to do about a gene that the file lacks: ``error``, or take its ``mean`` over the controls
            of training.
    """

    path: str | Path
    scale: Scale | None = None
    columns: Mapping[str, str] | None = None
    layer: str | None = None
    gene_column: str | None = None
    aliases: str | Path | None = None
    missing_genes: Literal["error", "mean"] = "error"


@dataclass(frozen=True)
class Trained:
    """What a model knows of the cells that it was trained on.

    Attributes:
        genes: Measured genes, which it predicts [G].
        known: All genes that may be perturbed.
        mean: Mean expression of the control cells, log-normalised [G].
        scale: What the values in the training file were.
        library: Counts a cell that they were scaled to; none: not known.
        covariates: What a cell and its controls share.
        control_words: What control cells were called in training, in small letters; parts of a label that name no gene.
    """

    genes: Sequence[str]
    known: Sequence[str]
    mean: np.ndarray
    scale: Scale
    library: float | int | None
    covariates: Sequence[str]
    control_words: Sequence[str] = ()


def read_cells_request(path: str | Path, controls: Controls, trained: Trained) -> Conditions:
    """Read perturbations to predict, and the control cells that they start from.

    The list is a table with the column ``perturbation``, ``A+B`` for several genes, and at will the covariates of the
    training data and ``sample_id``. A row is predicted in each group of control cells that its
    covariates fit, so in all of them where it tells none.

    Args:
        path: The list.
        controls: The cells.
        trained: What they must fit.

    Returns:
        A condition a row and group, without any cell of its own.

    Raises:
        InputError: A missing column, a label that names nothing or a gene twice, a row that fits no group or
            stands twice; genes that the file lacks; values that are not what ``scale`` says, or were scaled to other
            counts than those of training.
    """
    names = alias_table(controls.aliases)
    cells = _control_cells(controls, trained, names)
    group = groups_of(cells, trained.covariates)
    members = {name: np.flatnonzero(group == name) for name in np.unique(group).tolist()}
    table = read_table(path)
    asked = _labels(path, table, MeasuredGenes(trained.known, names), trained.control_words)
    row, of_group = _rows(path, table, list(members), trained.covariates)
    own = [members[name] for name in of_group]
    given = text_cells(table, "sample_id")
    times = np.bincount(row, minlength=len(table))
    ids = np.array(
        [
            given[i] if given[i] and times[i] == 1 else f"{given[i] or asked[i]}|{name}"
            for i, name in zip(row, of_group, strict=True)
        ]
    )
    refuse_repeats(str(path), ids, "perturbations of a group, or sample ids,")
    return Conditions(
        name=Path(path).stem,
        cells=cells,
        sample_id=ids,
        perturbation=np.array([asked[i] for i in row]),
        group=np.array(of_group),
        ptr=np.zeros(len(row) + 1, dtype=np.int64),
        member=np.empty(0, dtype=np.int64),
        control_ptr=np.cumsum([0, *map(len, own)]).astype(np.int64),
        control_member=np.concatenate(own).astype(np.int64),
        control_half=np.zeros(len(cells), dtype=bool),
        covariates=tuple(trained.covariates),
        lost=cells.lost,
    )


def _control_cells(controls: Controls, trained: Trained, names: GeneNames | None) -> CellExpression:
    """The cells over the model's genes, log-normalised as those of training were."""
    name, scale = Path(controls.path).stem, controls.scale or trained.scale
    if controls.missing_genes not in ("error", "mean"):
        raise InputError(f"missing_genes={controls.missing_genes!r}: must be error or mean")
    columns = controls.columns or {}
    unread = sorted(set(columns) - set(trained.covariates))
    if unread:
        raise InputError(f"{name}: nothing reads columns {some(unread)}; the covariates are {list(trained.covariates)}")
    key, about_genes = keys_of(controls.path, controls.layer)
    obs, var = annotation(controls.path, "obs"), annotation(controls.path, about_genes)
    genes = var.index.to_numpy() if controls.gene_column is None else column(name, var, controls.gene_column)
    X = expression(controls.path, key)[:]
    covariates = {part: texts(column(name, obs, columns.get(part, part))) for part in trained.covariates}
    every = np.ones(len(obs), dtype=bool)
    is_control = flags(name, "is_control", obs["is_control"].to_numpy()) if "is_control" in obs else every
    ids, label = obs.index.to_numpy().astype(str), np.full(len(obs), "control")
    cells = CellExpression(name, X, label, is_control, texts(genes), ids, scale, covariates)
    cells = validated(cells, controls.path, controls.layer)
    lost = {} if is_control.all() else {"cells that are no controls": int((~is_control).sum())}
    cells = replace(cells.subset(is_control), lost=lost)
    return _on_genes(_normalised(cells, trained), controls, trained, names)


def _normalised(cells: CellExpression, trained: Trained) -> CellExpression:
    if cells.scale == "counts":
        if trained.library is None:
            raise InputError(
                f"{cells.name}: the model was trained on values that were log-normalised before, to how many counts is "
                "not known; log-normalise yours as those were, and say scale=lognorm"
            )
        return cells.lognorm(trained.library)
    if trained.library is not None and len(cells):
        counts = cells.X.expm1() if sparse.issparse(cells.X) else np.expm1(cells.X)
        total = np.asarray(counts.sum(1), dtype=np.float64).ravel()
        off = total / trained.library - 1
        # Fewer than all genes add up to less; more than all there never is, and one other total a cell is another rule.
        if off.max() > TOTAL_OFF or (np.ptp(total) < TOTAL_OFF * total.max() and off.max() < -TOTAL_OFF):
            raise InputError(
                f"{cells.name}: the cells were scaled to {np.median(total):,.0f} counts before the logarithm, those of "
                f"training to {trained.library:,.0f}; give counts (scale=counts), or scale as in training"
            )
    return cells


def _on_genes(cells: CellExpression, controls: Controls, trained: Trained, names: GeneNames | None) -> CellExpression:
    """The model's genes in its order, found by name; what the file lacks is refused, or the mean of training."""
    measured, wanted = MeasuredGenes(cells.genes, names), np.array(trained.genes, dtype=str)
    found = [measured.find(gene) for gene in wanted.tolist()]
    exact = {gene for gene, own in zip(wanted.tolist(), found, strict=True) if gene == own}
    taken: set[str] = set()
    for i, (gene, own) in enumerate(zip(wanted.tolist(), found, strict=True)):
        if own in taken or (own != gene and own in exact):  # another of our genes has a better claim
            found[i] = None
        elif own is not None:
            taken.add(own)
    there = np.array([own is not None for own in found])
    if not there.any() or (not there.all() and controls.missing_genes == "error"):
        lacking = wanted[~there]
        raise InputError(
            f"{cells.name} lacks {len(lacking):,} of the model's {len(wanted):,} genes: {some(lacking)}; the file has "
            f"{near(str(lacking[0]), cells.genes.tolist()) or some(cells.genes, 3)}. Name the genes as in training "
            "(gene_column, aliases)" + ("" if not there.any() else ", or set missing_genes=mean")
        )
    held = cells.on_genes([own for own in found if own is not None])
    filled: Any = np.empty((len(cells), len(wanted)), dtype=np.float32)
    filled[:, there] = held.X.toarray() if sparse.issparse(held.X) else held.X
    filled[:, ~there] = np.asarray(trained.mean, dtype=np.float32)[~there]
    if not there.all():
        warnings.warn(
            f"{cells.name}: {int((~there).sum()):,} genes that the file lacks stand at their mean in training: "
            f"{some(wanted[~there])}",
            stacklevel=2,
        )
    X = sparse.csr_matrix(filled) if sparse.issparse(held.X) else filled
    return replace(held, X=X, counts=None, genes=wanted)


def _labels(path: str | Path, table: pd.DataFrame, known: MeasuredGenes, controls: Sequence[str]) -> list[str]:
    """Perturbations by the model's names of the genes, where it has them."""
    require_columns(path, table, ["perturbation"])
    rows = np.array([f"row {i + 2}" for i in range(len(table))])
    return read_request_labels(str(path), rows, label_texts(text_cells(table, "perturbation")), known, controls)


def _rows(
    path: str | Path, table: pd.DataFrame, groups: list[str], covariates: Sequence[str]
) -> tuple[list[int], list[str]]:
    """Row and group of each condition: all groups that a row's covariates fit."""
    told = {name: text_cells(table, name) for name in covariates if name in table}
    row, of_group, lone = [], [], []
    for i in range(len(table)):
        wanted = {name: cells[i] for name, cells in told.items() if cells[i]}
        values = (dict(zip(covariates, group.split(BAR), strict=True)) if covariates else {} for group in groups)
        fits = [group for group, own in zip(groups, values, strict=True) if wanted.items() <= own.items()]
        if not fits:
            lone.append(f"row {i + 2} ({', '.join(wanted.values())})")
        row += [i] * len(fits)
        of_group += fits
    refuse(str(path), np.array(lone), "no control cells", f"the controls are of {some(groups)}")
    return row, of_group

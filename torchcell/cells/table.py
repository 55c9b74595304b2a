"""A user's single cells as h5ad, and requests for perturbations that a trained model is asked about."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from torchcell.cells.backed import LIBRARY, expression, keys_of, layers_of, matrix_at, opened
from torchcell.cells.joined import files_of, joined_cells
from torchcell.cells.pseudobulk import BAR, Pseudobulk, groups_of, joined, stratified
from torchcell.cells.record import CellExpression, covariate
from torchcell.cells.scan import scanned
from torchcell.cells.spec import CellsSpec
from torchcell.cells.values import Scale, ScaleError
from torchcell.core.prediction_notes import Notes, by_owner, unless_known, unlike_sizes
from torchcell.io.categorical import Categorical
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, column, flags, near, refuse, refuse_repeats, some, table_column, texts
from torchcell.io.gene_features import GeneFeatures
from torchcell.io.gene_names import GeneNames, MeasuredGenes, alias_table
from torchcell.io.labels import ControlLabels, label_texts, read_request_labels
from torchcell.io.matrices import RAW, dense
from torchcell.io.tables import read_table, require_columns, text_cells

FEW = 256
"""Cells by which a matrix is known as counts."""


@configurable
@dataclass(frozen=True)
class MatrixOptions:
    """Where a file holds expression and the names of its genes, and how it is read.

    Attributes:
        layer: Take the values from this layer instead of ``X``; ``raw``: those and the genes of ``adata.raw``.
        gene_column: Column of ``var`` with the gene symbols; none: the names of ``var``.
        aliases: Table of ``alias`` and ``gene``, so that a perturbed gene is found among the measured ones by an old
            symbol too; several aliases in a cell are joined by ``;``. None: symbols are compared without case.
        library: Counts a cell is scaled to before the logarithm; unread for ``lognorm``.
        backed: Leave the values on disk and read the cells of a batch when they are asked for.

    Raises:
        InputError: A value that can't be, by its key.
    """

    layer: str | None = None
    gene_column: str | None = None
    aliases: str | Path | None = None
    library: float | int = LIBRARY
    backed: bool = False

    def __post_init__(self) -> None:
        if self.library <= 0:
            raise InputError(f"data.record.matrix.library={self.library}: a cell is scaled to more than 0 counts")


@configurable
@dataclass(frozen=True)
class ConditionOptions:
    """Which cells and conditions are kept.

    Attributes:
        max_cells: Read this many cells, chosen at random, each condition in its share; none: all.
        min_cells: Cells that a condition needs, at least 2.
        few_cells: What to do with a condition of fewer: ``error``, or ``drop`` it and count it.
        seed: Of the choice of cells and of the halves of the controls.

    Raises:
        InputError: A value that can't be, by its key.
    """

    max_cells: int | None = None
    min_cells: int = 10
    few_cells: Literal["error", "drop"] = "error"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.few_cells not in ("error", "drop"):
            raise InputError(f"data.record.conditions.few_cells={self.few_cells!r}: must be error or drop")
        if self.max_cells is not None and self.max_cells < 1:
            raise InputError(f"data.max_cells={self.max_cells}: must be 1 or more")


@configurable
def cells_file(
    path: str | Path | Sequence[str | Path],
    scale: Scale,
    control: ControlLabels | None = None,
    columns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
    covariates: Sequence[str] = (),
    matrix: MatrixOptions | None = None,
    conditions: ConditionOptions | None = None,
    name: str | None = None,
) -> Pseudobulk:
    """Read cells, log-normalize counts, and group the cells by perturbation and covariates.

    Args:
        path: The h5ad file or zarr folder; or several, as a list or a pattern such as ``plates/*.h5ad``, of which the
            genes that all of them have are taken.
        scale: What its values are, ``counts`` or ``lognorm``; checked, never guessed.
        control: Label of the control cells, or several, whatever their case; without it ``obs`` must hold the flag
            ``is_control``.
        columns: Internal name (``perturbation``, ``is_control``, or one of ``covariates``) -> name in ``obs``; a list
            has one such map a file.
        covariates: What a perturbed cell and its controls share, e.g. ``[cell_line, batch]``; none: nothing. Of
            several files ``file`` is one: the name of the file.
        matrix: Where the values and the genes' names are; none: in ``X`` and the names of ``var``.
        conditions: Which cells are kept; none: all, and a condition of fewer than 10 is an error.
        name: Of the record; by default the file's.

    Raises:
        InputError: A file that can't be read, missing columns or layers, values that are not what ``scale`` says,
            a condition with too few cells, a group without control cells.
    """
    matrix, keep = matrix or MatrixOptions(), conditions or ConditionOptions()
    files = files_of(path)
    if len(files) == 1:
        cells = read_cells(files[0], scale, control, columns, covariates, matrix, name)  # type: ignore[arg-type]
    else:
        on_disk = replace(matrix, backed=True)
        cells = joined_cells(
            files,
            columns,
            covariates,
            name or "cells",
            lambda file, named, kept: read_cells(file, scale, control, named, kept, on_disk),
        )
    cells = cells.named_as_measured(alias_table(matrix.aliases))
    if keep.max_cells is not None:
        keys = joined(cells.perturbation, groups_of(cells, covariates))
        kept = stratified(keys.codes, keep.max_cells, keep.seed)
        cells = _thinned(cells, keys, kept, max(keep.min_cells, 2), keep.few_cells)
    cells = cells.validate_names()
    record = Pseudobulk.grouped(cells, covariates, keep.min_cells, keep.few_cells, keep.seed)
    with naming_counts(files[0], matrix.layer):
        return scanned(record, matrix.library, in_memory=not matrix.backed)


def read_cells(
    path: str | Path,
    scale: Scale,
    control: ControlLabels | None = None,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] = (),
    matrix: MatrixOptions | None = None,
    name: str | None = None,
) -> CellExpression:
    """The cells of a file, their expression left on disk; arguments as in ``cells_file``.

    Expression that is stored by columns is read, or, if it must stay on disk (``backed``), refused.
    """
    matrix = matrix or MatrixOptions()
    key, about_genes = keys_of(path, matrix.layer)
    obs, var = annotation(path, "obs"), annotation(path, about_genes)
    X, name = expression(path, key, matrix.backed), name or Path(path).stem
    named = matrix.gene_column
    genes = var.index.to_numpy() if named is None else column(f"{name} (var)", var, named)
    return CellExpression.from_obs(X, obs, genes, scale, columns, control, covariates, name)


def validated(cells: CellExpression, path: str | Path, layer: str | None) -> CellExpression:
    """The cells, checked."""
    with naming_counts(path, layer):
        return cells.validate()


@contextmanager
def naming_counts(path: str | Path, layer: str | None) -> Iterator[None]:
    """Where values are not what ``scale`` says, the error names the matrices that hold counts."""
    try:
        yield
    except ScaleError as error:
        every = dict.fromkeys((*layers_of(path), RAW, None))
        choices = [one for one in every if one != layer and _holds_counts(path, one)]
        if not choices:
            raise
        named = " or ".join("layer=null (X)" if one is None else f"layer={one}" for one in choices)
        raise InputError(f"{error}; this file holds counts too: {named}") from None


def _holds_counts(path: str | Path, layer: str | None) -> bool:
    """Whether the first cells of a matrix are whole numbers, one above 1; a matrix that is not there is none."""
    key = keys_of(path, layer)[0]
    if key not in opened(path):
        return False
    values = dense(matrix_at(path, key)[:FEW])
    return bool((values >= 0).all() and (values == np.floor(values)).all() and values.max(initial=0) > 1)


def _thinned(
    cells: CellExpression, keys: Categorical, kept: np.ndarray, min_cells: int, few_cells: Literal["error", "drop"]
) -> CellExpression:
    """The cells at ``kept``; a condition (``keys`` [n]) that thereby has too few is refused, or dropped and counted."""
    names, row, count = keys.names, keys.codes, np.bincount(keys.codes, minlength=len(keys.names))
    left = np.bincount(row[kept], minlength=len(names))
    thin = (count >= min_cells) & (left < min_cells)
    thin[row[cells.is_control]] = False
    if not thin.any():
        return cells.subset(kept)
    if few_cells == "error":
        told = [f"{names[i]} ({left[i]} of {count[i]})" for i in np.flatnonzero(thin).tolist()]
        raise InputError(
            f"{cells.name}: max_cells={len(kept)} leaves fewer than min_cells={min_cells} cells of {len(told)} "
            f"condition(s): {some(told)}; set max_cells higher, or min_cells lower"
        )
    dropped = {f"conditions of which max_cells={len(kept)} leaves fewer than {min_cells} cells": int(thin.sum())}
    return replace(cells.subset(kept[~thin[row[kept]]]), dropped={**cells.dropped, **dropped})


def annotation(path: str | Path, key: str) -> pd.DataFrame:
    """``obs`` or ``var`` of an h5ad file or zarr folder; a damaged file is an error that says so."""
    from anndata.io import read_elem

    root = opened(path)
    if key not in root:
        raise InputError(f"{path} is no AnnData file: it has no table {key!r}")
    try:
        return read_elem(root[key]) if hasattr(root[key], "keys") else _table_of_old(path, key)
    except Exception as error:  # anndata wraps what HDF5 and zarr raise in errors of its own
        raise InputError(f"{path} is damaged: its table {key} can't be read ({error}); copy it again") from error


def _table_of_old(path: str | Path, key: str) -> pd.DataFrame:
    """A table as anndata wrote it before 0.7: one structured array, its categories elsewhere in the file."""
    import warnings

    from torchcell.io.h5ad import read_h5ad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the file's age is no news to the user
        adata = read_h5ad(path, backed=True)
    return adata.raw.var if key == "raw/var" else getattr(adata, key)


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
        mean: Mean expression of the control cells, log-normalized [G].
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


def read_cells_request(path: str | Path, controls: Controls, trained: Trained) -> Pseudobulk:
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
    groups = group.names.tolist()
    table = read_table(path)
    asked = _labels(path, table, MeasuredGenes(trained.known, names), trained.control_words)
    row, of_group = _rows(path, table, groups, trained.covariates)
    members = [np.flatnonzero(group == name) for name in groups]
    halves = [half for own in members for half in (own, own[:0])]  # all controls are for the prediction
    given = text_cells(table, "sample_id")
    times = np.bincount(row, minlength=len(table))
    ids = np.array(
        [
            given[i] if given[i] and times[i] == 1 else f"{given[i] or asked[i]}|{name}"
            for i, name in zip(row, of_group, strict=True)
        ]
    )
    refuse_repeats(str(path), ids, "perturbations of a group, or sample ids,")
    return Pseudobulk(
        name=Path(path).stem,
        cells=cells,
        sample_id=ids,
        perturbation=np.array([asked[i] for i in row]),
        group=np.array(of_group),
        ptr=np.zeros(len(row) + 1, dtype=np.int64),
        member=np.empty(0, dtype=np.int64),
        controls=np.array([groups.index(name) for name in of_group], dtype=np.int64),
        control_ptr=np.cumsum([0, *map(len, halves)]).astype(np.int64),
        control_member=np.concatenate(halves).astype(np.int64),
        covariates=tuple(trained.covariates),
        dropped=cells.dropped,
    )


def _control_cells(controls: Controls, trained: Trained, names: GeneNames | None) -> CellExpression:
    """The cells over the model's genes, log-normalized as those of training were."""
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
    covariates = {part: covariate(table_column(name, obs, columns.get(part, part))) for part in trained.covariates}
    every = np.ones(len(obs), dtype=bool)
    is_control = flags(name, "is_control", obs["is_control"].to_numpy()) if "is_control" in obs else every
    ids, label = obs.index.to_numpy().astype(str), Categorical.of(np.full(len(obs), "control"))
    cells = CellExpression(name, X, label, is_control, texts(genes), ids, scale, covariates)
    cells = validated(cells, controls.path, controls.layer)
    dropped = {} if is_control.all() else {"cells that are no controls": int((~is_control).sum())}
    cells = replace(cells.subset(is_control), dropped=dropped)
    return _on_genes(_normalized(cells, trained), controls, trained, names)


def _normalized(cells: CellExpression, trained: Trained) -> CellExpression:
    if cells.scale == "counts":
        if trained.library is None:
            raise InputError(
                f"{cells.name}: the model was trained on values that were log-normalized before, to how many counts is "
                "not known; log-normalize yours as those were, and say scale=lognorm"
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
    filled[:, there] = dense(held.X)
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


def cell_notes(record: Pseudobulk, spec: CellsSpec) -> Notes:
    """Genes that were never perturbed in training, combinations of another size, groups without training cells."""
    targets, trained = record.targets, spec.trained_perturbations
    owner = np.repeat(np.arange(len(targets)), [len(genes) for genes in targets])
    names = np.array([gene for genes in targets for gene in genes], dtype=str)
    new = ~np.isin(names, trained.genes)
    never = by_owner("never perturbed in training:", names[new], owner[new], len(targets))
    sizes = [len(genes) for genes in targets]
    return {
        "gene never perturbed in training": never,
        "combination of another size": unlike_sizes("combination", sizes, trained.sizes),
        "unseen group": unless_known("no training cells of", record.group, spec.groups),
    }


LEVEL_OFF = 2.0
"""By what factor the mean expression of the controls may differ from training before it is worth a word."""


def read_perturbations(path: str, spec: CellsSpec, controls: Controls | None) -> Pseudobulk:
    """Read perturbations by the names of their genes, see ``read_cells_request``.

    Args:
        path: The list, with a column ``perturbation``.
        spec: Of a model of cells.
        controls: The cells that predictions start from.

    Raises:
        InputError: No controls, or what ``read_cells_request`` refuses.
    """
    if controls is None:
        raise InputError(
            "this model predicts from control cells: name them with controls=FILE.h5ad; "
            "python -m torchcell.predict --help tells how they are read"
        )
    mean = spec.gene_center.numpy()
    known = (*spec.genes, *_network_genes(spec))
    units = (spec.input_scale, spec.library)
    trained = Trained(spec.outputs, known, mean, *units, spec.covariates, spec.control_words)
    record = read_cells_request(path, controls, trained)
    level, expected = float(np.unique(record.input_control, axis=0).mean()), float(mean.mean())
    if not 1 / LEVEL_OFF <= level / max(expected, 1e-6) <= LEVEL_OFF:
        warnings.warn(
            f"{controls.path}: the mean expression of the controls is {level:.3g}, in training it was {expected:.3g}; "
            "are they normalized alike, over the same genes?",
            stacklevel=2,
        )
    return record


def extend_spec(request: Pseudobulk, spec: CellsSpec) -> CellsSpec:
    """The spec whose groups are those of the request, with the genes that it perturbs and only the networks know."""
    spec = replace(spec, groups=tuple(np.unique(request.group).tolist()))
    held, features = spec.network_genes, spec.gene_features
    asked = {gene for genes in request.targets for gene in genes} - set(spec.genes)
    at = [] if held is None else [i for i, gene in enumerate(held.genes) if gene in asked]
    if held is None or features is None or not at:
        return spec
    genes = np.array([held.genes[i] for i in at], dtype=str)
    return spec.with_added(GeneFeatures(genes, features.columns, held.values.numpy()[at]))


def _network_genes(spec: CellsSpec) -> tuple[str, ...]:
    """The genes that are neither measured nor perturbed in training, and that the networks know."""
    known, held = set(spec.genes), spec.network_genes
    return () if held is None else tuple(gene for gene in held.genes if gene not in known)


def with_known_genes(record: Pseudobulk, vocabulary: tuple[str, ...], policy: str) -> tuple[Pseudobulk, dict[str, int]]:
    """Refuse perturbed genes outside the vocabulary, or drop the conditions that name one.

    Args:
        record: The conditions.
        vocabulary: What the model knows.
        policy: ``error`` or ``drop``.

    Returns:
        The conditions that are left, and how many were dropped, by what was wrong with them.
    """
    known, targets = set(vocabulary), record.targets
    lacking = sorted({gene for genes in targets for gene in genes} - known)
    if not lacking:
        return record, {}
    if policy == "error":
        hint = near(lacking[0], vocabulary)
        raise InputError(
            f"{record.name}: perturbed genes that the model does not know: {some(lacking)}"
            + (f" (the nearest to the first are {hint})" if hint else "")
            + "; correct the names, or set unknown_genes=drop to leave them out; predict also takes features of new "
            "genes, added_genes=FILE"
        )
    kept = np.array([known.issuperset(genes) for genes in targets])
    return record.subset(kept), {"conditions that perturb an unknown gene": int((~kept).sum())}


def named_conditions(record: Pseudobulk, prediction: np.ndarray, spec: CellsSpec) -> pd.DataFrame:
    """Sample id, perturbation, group and its covariates, then a column a gene [n, G]."""
    known = {"sample_id": record.sample_id, "perturbation": record.perturbation, "group": record.group}
    known |= {name: record.column(name) for name in record.covariates}
    names = pd.DataFrame({name: values for name, values in known.items() if name not in spec.outputs})
    return pd.concat([names, pd.DataFrame(prediction, columns=list(spec.outputs))], axis=1)

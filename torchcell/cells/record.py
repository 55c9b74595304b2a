"""``Cells``: counts of single cells with labels and covariates, normalized on reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from torchcell.cells.backed import LIBRARY, BackedMatrix, lognormalized, matrix_fingerprints
from torchcell.cells.values import CHUNK, Scale, ValueChecks
from torchcell.io.categorical import Categorical
from torchcell.io.errors import (
    InputError,
    as_positions,
    column,
    flags,
    near,
    refuse,
    refuse_repeats,
    refuse_shapes,
    some,
    table_column,
    texts,
)
from torchcell.io.fingerprint import NOT_VALUES, fingerprint, record_fingerprint
from torchcell.io.gene_names import MeasuredGenes
from torchcell.io.labels import (
    ControlLabels,
    as_measured,
    control_words,
    label_texts,
    ordered,
    read_labels,
    refuse_twice,
)
from torchcell.io.matrices import dense, layer_of, summed

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from torchcell.io.gene_names import GeneNames


@dataclass(frozen=True, eq=False)
class CellExpression:
    """Cells with their perturbations; n cells, G genes.

    Attributes:
        name: Short name, e.g. ``papalexi2021``.
        X: Expression [n, G]: a float array, a SciPy matrix, which stays sparse (CSR, a place's entries summed), or a
            ``BackedMatrix`` on disk.
        perturbation: Label of each cell's perturbation [n]; given as texts in any form, kept as ``Categorical``.
        is_control: Whether a cell is an unperturbed control, bool [n].
        genes: Gene names [G], each once.
        sample_id: Unique names of the cells [n].
        scale: ``counts`` (checked: non-negative integers) or ``lognorm`` (checked: not all integers).
        covariates: Name -> value per cell [n], likewise, e.g. ``cell_line``, ``batch``.
        dropped: What parsing left out and how many of each.
        counts: Raw counts beside a log-normalized ``X``, where they are known [n, G]; some ways to choose genes
            need them.
        library: Counts a cell that ``lognorm`` scaled to; none: it did not.
        totals: Counts of each cell that ``lognorm`` divided by, float64 [n]; none: it did not, or they stay on disk.
        control_words: Parts of a label that name no gene but a control, in small letters; empty where not known.
        checked: The ``X`` whose values were found valid, and for which scale; others are looked at anew.
    """

    name: str
    X: Any
    perturbation: Categorical
    is_control: np.ndarray
    genes: np.ndarray
    sample_id: np.ndarray
    scale: Scale
    covariates: Mapping[str, Categorical] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    counts: Any = None
    library: float | int | None = None
    totals: np.ndarray | None = None
    control_words: tuple[str, ...] = ()
    checked: tuple[Any, Scale] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("X", "counts"):  # every step after this one may take an entry for the value of its place
            object.__setattr__(self, name, summed(getattr(self, name)))
        object.__setattr__(self, "perturbation", Categorical.of(self.perturbation))
        covariates = {name: Categorical.of(values) for name, values in self.covariates.items()}
        object.__setattr__(self, "covariates", covariates)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def target(self) -> np.ndarray:
        """Expression, dense float32 [n, G]: a sparse ``X`` is expanded, so take a subset first."""
        return dense(self.X[:])

    @property
    def task(self) -> str:
        """What the target is: one value per gene."""
        return "expression"

    @property
    def phenotype_names(self) -> tuple[str, ...]:
        """Names of the target's columns: the genes."""
        return tuple(self.genes.tolist())

    def subset(self, index: np.ndarray) -> CellExpression:
        """The cells at ``index`` (integers or a mask), in that order; the gene list stays whole."""
        at = as_positions(index)
        X = _on_rows(self.X, at)
        return replace(
            self,
            X=X,
            checked=(X, self.scale) if self.is_checked else None,
            perturbation=self.perturbation[at],
            is_control=self.is_control[at],
            sample_id=self.sample_id[at],
            covariates={name: values[at] for name, values in self.covariates.items()},
            counts=_on_rows(self.counts, at),
            totals=None if self.totals is None else self.totals[at],
        )

    def on_genes(self, genes: Sequence[str] | np.ndarray) -> CellExpression:
        """The same cells over ``genes`` in that order, found by name; a gene that is not measured is an error."""
        wanted, place = np.asarray(genes).tolist(), {gene: i for i, gene in enumerate(self.genes.tolist())}
        lacking = [gene for gene in wanted if gene not in place]
        if lacking:
            hint = near(lacking[0], list(place))
            raise InputError(
                f"{self.name}: {len(lacking)} of {len(wanted)} genes are not measured: {some(lacking)}; "
                + (f"the nearest to the first are {hint}" if hint else "name them as the file's genes are named")
            )
        at = np.array([place[gene] for gene in wanted], dtype=np.int64)
        X = _on_columns(self.X, at)
        checked = (X, self.scale) if self.is_checked else None
        return replace(self, genes=self.genes[at], X=X, counts=_on_columns(self.counts, at), checked=checked)

    def named_as_measured(self, names: GeneNames | None = None) -> CellExpression:
        """The same cells, perturbed genes bearing the names of the measured ones that they are, in their order.

        Args:
            names: Aliases; none: names are compared without case.
        """
        given, measured = self.perturbation, MeasuredGenes(self.genes, names)
        found = [*map(str, as_measured(given.names, measured).tolist())]
        of_perturbed = given[~self.is_control]
        twice = Categorical.coded(found, np.searchsorted(given.names, of_perturbed.names)[of_perturbed.codes])
        refuse_twice(self.name, self.sample_id[~self.is_control], of_perturbed, twice)
        changed = ~self.is_control & (np.array(found, dtype=str) != given.names)[given.codes]
        renamed = {"labels that gave way to the name of the measured gene": len(given[changed].names)}
        codes = given.codes + np.int32(len(found)) * changed
        labels = ordered(Categorical.coded([*given.names, *found], codes))
        return replace(self, perturbation=labels, dropped={**self.dropped, **(renamed if changed.any() else {})})

    def lognorm(self, library: float | int = LIBRARY) -> CellExpression:
        """Counts as ln(1 + counts / total x ``library``), the counts kept beside; log-normalized cells as they are."""
        if self.scale == "lognorm":
            return self
        if isinstance(self.X, BackedMatrix):
            X, totals = replace(self.X, library=library), None
        else:
            X, totals = lognormalized(self.X, library), np.asarray(self.X.sum(1, dtype=np.float64)).ravel()
        now: dict[str, Any] = {"scale": "lognorm", "checked": (X, "lognorm") if self.is_checked else None}
        return replace(self, X=X, counts=self.X, library=library, totals=totals, **now)

    def fingerprint(self) -> str:
        """A hash over all values and names, see ``torchcell.io.fingerprint``; not over ``name`` and ``dropped``.

        Counts are the same on every machine, and their logarithms differ in the last digit: where counts are known,
        ``X`` is known by them, by each cell's total and by ``library``.
        """
        rest = record_fingerprint(self, (*NOT_VALUES, "X", "counts", "totals"))
        values, totals = matrix_fingerprints(self.X if self.counts is None else self.counts)
        if self.totals is not None:
            totals = fingerprint(self.totals)
        return fingerprint([rest, values, None if self.counts is None else totals])

    def validate(self) -> CellExpression:
        """Return self, or raise one ``InputError`` that names the offending cells or genes."""
        self.validate_names()._validate_values()
        return self

    def validate_names(self) -> CellExpression:
        """The same without a look at the values."""
        n, ids = len(self.sample_id), self.sample_id
        shapes = {"X": (n, len(self.genes)), "perturbation": (n,), "is_control": (n,)}
        shapes["counts"] = shapes["X"]
        refuse_shapes(self.name, {"X": self.X, **vars(self)}, shapes)
        refuse_shapes(self.name, self.covariates, dict.fromkeys(self.covariates, (n,)))
        refuse_repeats(self.name, ids, "sample ids")
        refuse_repeats(self.name, self.genes, "genes")
        unnamed = int(np.isin(self.genes, ["", "nan", "None"]).sum())
        if unnamed or all(gene.isdigit() for gene in self.genes.tolist()):
            which = f"{unnamed} gene(s) have no name" if unnamed else "the genes are numbered, not named"
            raise InputError(f"{self.name}: {which}: {some(self.genes)}; put gene symbols in var_names")
        if self.scale not in ("counts", "lognorm"):
            raise InputError(f"{self.name}: scale is {self.scale!r}; say counts or lognorm")
        refuse(self.name, ids[self.perturbation == ""], "no perturbation label", "label or drop them")
        for name, values in self.covariates.items():
            refuse(self.name, ids[values == ""], f"no {name}", "fill the covariate or drop the cells")
        if not self.is_control.any():
            labels = some(self.perturbation.names)
            raise InputError(f"{self.name}: no control cells; the labels are {labels}: name the control's")
        return self

    def _validate_values(self) -> None:
        """Look at every stored value once; a sparse zero is never odd."""
        if self.is_checked:
            return
        checks = ValueChecks(self.name, self.scale, self.sample_id, self.genes)
        for start, chunk in self.chunks():
            checks.add(start, chunk)
        checks.finish()
        object.__setattr__(self, "checked", (self.X, self.scale))

    @property
    def is_checked(self) -> bool:
        """Whether these very values were found to be what ``scale`` says."""
        return self.checked is not None and self.checked[0] is self.X and self.checked[1] == self.scale

    def chunks(self) -> Iterator[tuple[int, Any]]:
        """Position of the first cell and expression, a few thousand cells at a time."""
        for start in range(0, len(self), CHUNK):
            yield start, self.X[start : start + CHUNK]

    def to_anndata(self) -> anndata.AnnData:
        """``X``, and in ``obs`` ``perturbation``, ``is_control`` and the covariates; ``uns['scale']``."""
        import anndata
        import pandas as pd

        covariates = {name: np.asarray(values) for name, values in self.covariates.items()}
        columns = {"perturbation": np.asarray(self.perturbation), "is_control": self.is_control, **covariates}
        obs, var = pd.DataFrame(columns, index=self.sample_id), pd.DataFrame(index=self.genes)
        return anndata.AnnData(self.X[:], obs=obs, var=var, uns={"scale": self.scale})

    @classmethod
    def from_anndata(
        cls,
        adata: anndata.AnnData,
        scale: Scale,
        columns: Mapping[str, str] | None = None,
        control: ControlLabels | None = None,
        covariates: Sequence[str] = (),
        name: str = "cells",
        layer: str | None = None,
    ) -> CellExpression:
        """Read a record from AnnData in memory; ``validate`` it afterwards.

        Args:
            adata: Cells and genes are named by ``obs`` and ``var``.
            scale: What the values are.
            columns: Internal name (``perturbation``, ``is_control``, or one of ``covariates``) -> name in
                ``obs``, for those that differ, e.g. ``{"cell_line": "cell_type"}``.
            control: Label of the control cells, or several, whatever their case; without it ``obs`` must hold the flag
                ``is_control``. Beside a gene it is left out: ``KLF1+ctrl`` perturbs ``KLF1`` alone.
            covariates: Internal names of the covariates to keep.
            name: Name of the record.
            layer: Take the values from this layer instead of ``X``; ``raw``: those and the genes of ``adata.raw``.

        Raises:
            InputError: A missing column or layer, a key of ``columns`` that nothing reads, labels that name no
                perturbation or a gene twice.
        """
        values, genes = layer_of(adata, layer, name)
        X = values if sparse.issparse(values) else np.asarray(values)
        return cls.from_obs(X, adata.obs, genes, scale, columns, control, covariates, name)

    @classmethod
    def from_obs(
        cls,
        X: Any,
        obs: pd.DataFrame,
        genes: np.ndarray,
        scale: Scale,
        columns: Mapping[str, str] | None = None,
        control: ControlLabels | None = None,
        covariates: Sequence[str] = (),
        name: str = "cells",
    ) -> CellExpression:
        """The record of expression ``X`` [n, G], one row of ``obs`` a cell; arguments as in ``from_anndata``."""
        columns = columns or {}
        known = {"perturbation", "is_control", *covariates}
        if set(columns) - known:
            raise InputError(f"{name}: nothing reads columns {some(set(columns) - known)}; known: {sorted(known)}")
        found = {part: table_column(name, obs, columns.get(part, part)) for part in ("perturbation", *covariates)}
        labels, ids, flagged = label_texts(found["perturbation"]), obs.index.to_numpy().astype(str), None
        if control is None:
            flagged = flags(name, "is_control", column(name, obs, columns.get("is_control", "is_control")))
            own = {label.casefold() for label in labels[~flagged].names.tolist()}
            idle = control_words(labels[flagged].names.tolist()) - own  # a gene, whatever control cells are called
        else:
            idle = control_words(control)
        perturbed, is_control, lost = read_labels(name, ids, labels, idle, flagged)
        return cls(
            name=name,
            X=X,
            perturbation=perturbed,
            is_control=is_control,
            genes=texts(genes),
            sample_id=ids,
            scale=scale,
            covariates={part: covariate(found[part]) for part in covariates},
            dropped=lost,
            control_words=tuple(sorted(idle)),
        )


def covariate(values: Any) -> Categorical:
    """A column of ``obs`` as text; a missing value becomes the empty text."""
    import pandas as pd

    column = pd.Series(values) if not isinstance(values, pd.Series) else values
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = [*texts(column.cat.categories.to_numpy()), ""]
        return Categorical.coded(names, np.where(column.cat.codes < 0, len(names) - 1, column.cat.codes))
    return Categorical.of(texts(column.to_numpy()))


def sums(values: Any) -> np.ndarray:
    """Sum over cells, float64 [G]; SciPy's own sum adds float32 values up in float32."""
    return np.asarray(np.ones(values.shape[0]) @ values, dtype=np.float64).ravel()


def _on_rows(X: Any, at: np.ndarray) -> Any:
    """Rows of a matrix, on disk where it is there; none of none."""
    return None if X is None else X.on_rows(at) if isinstance(X, BackedMatrix) else X[at]


def _on_columns(X: Any, at: np.ndarray) -> Any:
    return None if X is None else X.on_columns(at) if isinstance(X, BackedMatrix) else X[:, at]


def moments(X: Any, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over the cells ``at``, each float64 [G]; some cells at a time, sparse ones kept sparse.

    Args:
        X: Expression [n, G]: an array, a SciPy CSR matrix or a ``BackedMatrix``.
        at: Positions of at least one cell.
    """
    at, total, squares = np.sort(at), np.zeros(X.shape[1]), np.zeros(X.shape[1])
    for start in range(0, len(at), CHUNK):
        # In float64, for the square of the mean is taken from the mean square.
        values = summed(X[at[start : start + CHUNK]]).astype(np.float64)
        total += sums(values)
        squares += sums(values.power(2) if sparse.issparse(values) else values**2)
    mean = total / len(at)
    return mean, np.maximum(squares / len(at) - mean**2, 0.0)

"""``CellExpression``: expression of single cells with what was perturbed in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import sparse

from torchcell.data.checks import as_positions, column, flags, refuse, refuse_repeats, refuse_shapes, texts
from torchcell.data.errors import InputError, some

if TYPE_CHECKING:
    import anndata

Scale = Literal["counts", "lognorm"]
"""What the values are: raw UMI counts, or log of normalised counts."""


@dataclass(frozen=True, eq=False)
class CellExpression:
    """Cells with their perturbations; n cells, G genes.

    Attributes:
        name: Short name, e.g. ``papalexi2021``.
        X: Expression [n, G], a float array or a SciPy CSR matrix, which stays sparse.
        perturbation: Label of each cell's perturbation [n].
        is_control: Whether a cell is an unperturbed control, bool [n].
        genes: Gene names [G], each once.
        sample_id: Unique names of the cells [n].
        scale: ``counts`` (checked: non-negative integers) or ``lognorm``.
        covariates: Name -> value per cell [n], as text, e.g. ``cell_line``, ``batch``.
        lost: What parsing left out and how many of each.
    """

    name: str
    X: Any
    perturbation: np.ndarray
    is_control: np.ndarray
    genes: np.ndarray
    sample_id: np.ndarray
    scale: Scale
    covariates: Mapping[str, np.ndarray] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def target(self) -> np.ndarray:
        """Expression, dense float32 [n, G]: a sparse ``X`` is expanded, so take a subset first."""
        return np.asarray(self.X.toarray() if sparse.issparse(self.X) else self.X, dtype=np.float32)

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
        return replace(
            self,
            X=self.X[at],
            perturbation=self.perturbation[at],
            is_control=self.is_control[at],
            sample_id=self.sample_id[at],
            covariates={name: values[at] for name, values in self.covariates.items()},
        )

    def validate(self) -> CellExpression:
        """Return self, or raise one ``InputError`` that names the offending cells or genes."""
        n, ids = len(self.sample_id), self.sample_id
        shapes = {"X": (n, len(self.genes)), "perturbation": (n,), "is_control": (n,)}
        refuse_shapes(self.name, {"X": self.X, **vars(self)}, shapes)
        refuse_shapes(self.name, self.covariates, dict.fromkeys(self.covariates, (n,)))
        refuse_repeats(self.name, ids, "sample ids")
        refuse_repeats(self.name, self.genes, "genes")
        if self.scale not in ("counts", "lognorm"):
            raise InputError(f"{self.name}: scale is {self.scale!r}; say counts or lognorm")
        refuse(self.name, ids[self.perturbation == ""], "no perturbation label", "label or drop them")
        for name, values in self.covariates.items():
            refuse(self.name, ids[values == ""], f"no {name}", "fill the covariate or drop the cells")
        if not self.is_control.any():
            labels = some(np.unique(self.perturbation))
            raise InputError(f"{self.name}: no control cells; the labels are {labels}: name the control's")
        refuse(self.name, ids[self._rows(lambda x: ~np.isfinite(x))], "values that are not finite", "mend them")
        refuse(self.name, ids[self._rows(lambda x: x < 0)], "negative values", f"{self.scale} has none")
        if self.scale == "counts":
            broken = ids[self._rows(lambda x: x != np.floor(x))]
            refuse(self.name, broken, "values that are no integers", "give raw counts, or declare scale=lognorm")
        return self

    def _rows(self, odd: Any) -> np.ndarray:
        """Positions of the cells with a stored value that is ``odd``; a sparse zero is never odd."""
        if sparse.issparse(self.X):
            entries = self.X.tocoo()
            return np.unique(entries.row[odd(entries.data)])
        return np.flatnonzero(odd(np.asarray(self.X)).any(1))

    def to_anndata(self) -> anndata.AnnData:
        """``X``, and in ``obs`` ``perturbation``, ``is_control`` and the covariates; ``uns['scale']``."""
        import anndata
        import pandas as pd

        columns = {"perturbation": self.perturbation, "is_control": self.is_control, **self.covariates}
        obs, var = pd.DataFrame(columns, index=self.sample_id), pd.DataFrame(index=self.genes)
        return anndata.AnnData(self.X, obs=obs, var=var, uns={"scale": self.scale})

    @classmethod
    def from_anndata(
        cls,
        adata: anndata.AnnData,
        scale: Scale,
        columns: Mapping[str, str] | None = None,
        control: str | None = None,
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
            control: Label of the control cells; without it ``obs`` must hold the flag ``is_control``.
            covariates: Internal names of the covariates to keep.
            name: Name of the record.
            layer: Take the values from this layer instead of ``X``.

        Raises:
            InputError: A missing column or layer, a key of ``columns`` that nothing reads.
        """
        columns = columns or {}
        known = {"perturbation", "is_control", *covariates}
        if set(columns) - known:
            raise InputError(f"{name}: nothing reads columns {some(set(columns) - known)}; known: {sorted(known)}")
        if layer is not None and layer not in adata.layers:
            raise InputError(f"{name}: no layer {layer!r}; the file has {list(adata.layers)}")
        values = adata.X if layer is None else adata.layers[layer]
        found = {part: column(name, adata.obs, columns.get(part, part)) for part in ("perturbation", *covariates)}
        labels = texts(found["perturbation"])
        if control is None:
            is_control = flags(name, "is_control", column(name, adata.obs, columns.get("is_control", "is_control")))
        else:
            is_control = labels == control
        return cls(
            name=name,
            X=sparse.csr_matrix(values) if sparse.issparse(values) else np.asarray(values),
            perturbation=labels,
            is_control=is_control,
            genes=adata.var_names.to_numpy().astype(str),
            sample_id=adata.obs_names.to_numpy().astype(str),
            scale=scale,
            covariates={part: texts(found[part]) for part in covariates},
        )

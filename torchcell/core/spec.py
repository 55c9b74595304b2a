"""``Spec``: what a model reads and what it predicts; the only thing a model knows about the data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchcell.evaluation.registry import metric_set
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError, some
from torchcell.io.fingerprint import fingerprint
from torchcell.io.gene_features import GeneFeatures


@dataclass(frozen=True, eq=False)
class Spec:
    """A plain, serialisable description of a datamodule's inputs and outputs.

    Attributes:
        task: ``regression`` and ``binary`` score each output over samples, ``expression`` and ``response`` each
            sample over outputs, which are genes.
        outputs: Names of the T predicted values, in order.
        genes: The vocabulary that gene indices in a batch refer to.
        kinds: Kinds of perturbation that occur in training.
        center: Mean of each output over the training samples, float32 [T]; 0 for binary outputs.
        scale: Standard deviation likewise [T]; 1 for binary outputs.
        graph: The wild-type graph, its genes being ``genes``.
        split_hash: Of the split that center, scale and all else was fitted on.
        extras: What a representation needs besides: covariate levels, tables. Strings, numbers,
            tensors, and lists and dicts of them. ``gene_features`` holds their ``columns`` and ``values``, float32
            [N, F]; ``network_genes`` further ``genes`` with ``values`` of the same columns, which a request may name;
            ``n_trained_with`` how many of the genes the model was built with, where others were added.
        fingerprints: Of ``samples`` and ``graph``, see ``torchcell.io.fingerprint``; empty in old checkpoints.
    """

    task: str
    outputs: tuple[str, ...]
    genes: tuple[str, ...]
    kinds: tuple[str, ...]
    center: Tensor
    scale: Tensor
    graph: CellGraph | None
    split_hash: str
    extras: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metric_set(self.task)  # an unknown one is an error
        if self.graph is not None and tuple(self.graph.genes.tolist()) != self.genes:
            raise InputError("the spec's genes are not the graph's genes, in the graph's order")
        held = self.gene_features
        if held is not None and held.values.shape != (len(self.genes), len(held.columns)):
            raise InputError(f"gene features {held.values.shape} for {len(self.genes)} genes: a row a gene is needed")

    @property
    def gene_features(self) -> GeneFeatures | None:
        """What a model may read of each gene besides its name; none where the data give no features."""
        if "gene_features" not in self.extras:
            return None
        held = self.extras["gene_features"]
        return GeneFeatures(np.array(self.genes, dtype=str), tuple(held["columns"]), held["values"].numpy())

    @property
    def data_fingerprint(self) -> str:
        """One hash over the values of all data; empty where it is not known."""
        return fingerprint(self.fingerprints) if self.fingerprints else ""

    @property
    def trained_genes(self) -> Tensor:
        """Positions of the genes that training samples name, int64."""
        if "trained_genes" not in self.extras:
            raise InputError(
                "model.cold_start needs to know the trained genes, which these data don't tell; set it to 0"
            )
        return self.extras["trained_genes"]

    @property
    def n_trained_with(self) -> int:
        """Genes that the model was built with; those added later come after them."""
        return self.extras.get("n_trained_with", len(self.genes))

    def with_added(self, features: GeneFeatures) -> Spec:
        """The same inputs with further genes after the known ones: isolated in the graph, known by their features.

        Args:
            features: Of the added genes; columns are matched by name.

        Raises:
            InputError: A gene that is known or stands twice, a column that is missing or one too many, a missing
                value, or a spec without gene features.
        """
        own = self.gene_features
        if own is None:
            raise InputError(
                "this checkpoint reads no gene features, so it can tell nothing of an added gene; train with "
                "data.features"
            )
        known = sorted(set(features.genes.tolist()) & set(self.genes))
        if known:
            raise InputError(f"added genes that the checkpoint already knows: {some(known)}; leave them out")
        added = features.validate().in_columns(own.columns)
        names = added.genes.tolist()
        values = torch.from_numpy(np.concatenate([own.values, added.values]))
        extras = {
            "gene_features": {"columns": list(own.columns), "values": values},
            "n_trained_with": self.n_trained_with,
        }
        graph = None if self.graph is None else self.graph.with_genes(names)
        return replace(self, genes=(*self.genes, *names), graph=graph, extras=self.extras | extras)

    def to_plain(self) -> dict[str, Any]:
        """Strings, numbers, tensors, lists and dicts only: it loads with ``weights_only=True``."""
        return {
            "task": self.task,
            "outputs": list(self.outputs),
            "genes": list(self.genes),
            "kinds": list(self.kinds),
            "center": self.center.cpu(),
            "scale": self.scale.cpu(),
            "graph": None if self.graph is None else self.graph.to_plain(),
            "split_hash": self.split_hash,
            "extras": self.extras,
            "fingerprints": dict(self.fingerprints),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Spec:
        """The inverse of ``to_plain``."""
        graph = plain["graph"]
        return cls(
            task=plain["task"],
            outputs=tuple(plain["outputs"]),
            genes=tuple(plain["genes"]),
            kinds=tuple(plain["kinds"]),
            center=plain["center"],
            scale=plain["scale"],
            graph=None if graph is None else CellGraph.from_plain(graph),
            split_hash=plain["split_hash"],
            extras=plain["extras"],
            fingerprints=dict(plain.get("fingerprints", {})),
        )


def fit_scaler(target: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """Centre and scale of each output over the training samples; missing values don't count.

    Args:
        target: float32 [n, T], NaN where missing.
        task: Binary outputs keep centre 0 and scale 1.

    Returns:
        center [T] and scale [T]; an output that does not vary has scale 1.
    """
    outputs = target.shape[1]
    if task == "binary":
        return torch.zeros(outputs), torch.ones(outputs)
    center = target.double().nanmean(0)
    variance = (target.double() - center).square().nanmean(0)
    scale = torch.where(variance > 1e-16, variance.sqrt(), torch.ones_like(variance))
    if not torch.isfinite(center).all():
        raise InputError("an output has no measured value in the training part; drop it or change the split")
    return center.float(), scale.float()

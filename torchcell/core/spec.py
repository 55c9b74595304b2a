"""``Spec``: inputs and outputs of a model; the only thing that a model knows of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from torchcell.core.plain import fields_from_plain, fields_to_plain
from torchcell.evaluation.registry import metric_set
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.configurable import configurable, find
from torchcell.io.errors import InputError, some
from torchcell.io.fingerprint import fingerprint
from torchcell.io.gene_features import GeneFeatures

WEIGHTS = {"names": "weights"}
"""Metadata of a field with names that a model's weights belong to. Data with other names need other weights."""
INDICES = {"names": "indices"}
"""Metadata of a field with names that a batch refers to by number, or with settings that a batch is made by. Where a
checkpoint and the data differ in it, the model would predict something else than it says. Fields without metadata hold
values that were measured or fitted. ``torchcell.training.data_changes`` compares all of them."""

CLASS = "class"
"""Key of a plain spec for the name of its class."""


@configurable(subclasses=True)
@dataclass(frozen=True, eq=False)
class Spec:
    """What a model knows of its data in every task. Each task adds fields in ``torchcell/<task>/spec.py``.

    A spec is plain: names, numbers, tensors and small frozen dataclasses of them, so that a checkpoint carries it and
    ``from_plain`` reads it back without running anything.

    Attributes:
        task: ``regression`` and ``binary`` score each output over samples, ``expression`` and ``response`` each
            sample over outputs, which are genes.
        outputs: Names of the T predicted values, in order.
        genes: The vocabulary [N] that gene indices in a batch refer to.
        kinds: Perturbation types that occur in training.
        center: Mean of each output over the training samples, in its unit, float32 [T]; 0 for binary outputs.
        scale: Standard deviation likewise [T]; 1 for binary outputs.
        graph: The wild-type graph over ``genes``.
        split_hash: Hash of the split; center, scale and all else are fitted on its training part.
        fingerprints: Fingerprints of the data by name (``samples``, ``graph``, ...), see ``torchcell.io.fingerprint``.
        gene_features: Features [N, F] of the genes that a model may use; or none.
        n_added: How many genes, the last ones, were added after training; see ``with_added``.
        n_columns: F, how many columns of its prior a network reads; see ``torchcell.core.prior``.
    """

    WORDS: ClassVar[str] = "any data"
    """Name of such data in messages."""

    LISTED: ClassVar[bool] = False
    """Whether batches beside a prior have lists, see ``Batch.lists``."""

    task: str
    outputs: tuple[str, ...] = field(metadata=WEIGHTS)
    genes: tuple[str, ...] = field(metadata=WEIGHTS)
    kinds: tuple[str, ...] = field(metadata=WEIGHTS | {"label": "kinds of perturbation"})
    center: Float[Tensor, " T"]
    scale: Float[Tensor, " T"]
    graph: CellGraph | None
    split_hash: str
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    gene_features: GeneFeatures | None = None
    n_added: int = 0
    n_columns: int = 0

    def __post_init__(self) -> None:
        metric_set(self.task)  # an unknown one is an error that lists those that are known
        for name in ("center", "scale"):
            if getattr(self, name).shape != (len(self.outputs),):
                raise InputError(f"{name} {list(getattr(self, name).shape)} for {len(self.outputs)} outputs")
        if self.graph is not None and tuple(self.graph.genes.tolist()) != self.genes:
            raise InputError("the spec's genes are not the graph's genes, in the graph's order")
        features = self.gene_features
        if features is not None and features.values.shape != (len(self.genes), len(features.columns)):
            raise InputError(
                f"gene features {features.values.shape} for {len(self.genes)} genes: a row a gene is needed"
            )
        if features is not None and tuple(features.genes.tolist()) != self.genes:
            raise InputError("the gene features are not of the spec's genes, in their order")
        if not 0 <= self.n_added <= len(self.genes):
            raise InputError(f"{self.n_added} added genes among {len(self.genes)}")

    def check_model(self, model: type) -> None:
        """Refuse a class of models that cannot use these data; a task may add further conditions.

        Args:
            model: The class, with its ``reads``, see ``torchcell.core.model.Model``.

        Raises:
            InputError: The class is for the spec of another task.
        """
        reads: type[Spec] = getattr(model, "reads", Spec)
        if not isinstance(self, reads):
            raise InputError(
                f"{model.__name__} reads a {reads.__name__}, and the data's spec is a {type(self).__name__}: choose a "
                f"model of {self.WORDS}"
            )

    def gene_facts(self) -> dict[str, np.ndarray]:
        """Further columns of a table of gene embeddings, name -> [N]."""
        return {}

    @property
    def data_fingerprint(self) -> str:
        """One hash over all fingerprints; empty where there are none."""
        return fingerprint(dict(self.fingerprints)) if self.fingerprints else ""

    @property
    def n_trained_with(self) -> int:
        """Number of genes that the model was built with; those added later come after them."""
        return len(self.genes) - self.n_added

    def with_added(self, features: GeneFeatures) -> Self:
        """The same spec with further genes after the known ones; they have features, and no edges in the graph.

        Args:
            features: Of the added genes; columns are matched by name.

        Raises:
            InputError: A gene that is known or stands twice, a missing or an unknown column, a missing value, or a
                spec without gene features.
        """
        own = self.gene_features
        if own is None:
            raise InputError(
                "this checkpoint uses no gene features, so it can predict nothing for an added gene; train with "
                "data.features"
            )
        known = sorted(set(features.genes.tolist()) & set(self.genes))
        if known:
            raise InputError(f"added genes that the checkpoint already knows: {some(known)}; leave them out")
        added = features.validate().in_columns(own.columns)
        names = added.genes.tolist()
        genes = (*self.genes, *names)
        values = np.concatenate([own.values, added.values])
        return replace(
            self,
            genes=genes,
            graph=None if self.graph is None else self.graph.with_genes(names),
            gene_features=GeneFeatures(np.array(genes, dtype=str), own.columns, values),
            n_added=self.n_added + len(names),
        )

    def to_plain(self) -> dict[str, Any]:
        """Strings, numbers, tensors, lists and dicts only, with the class's name: loads with ``weights_only=True``."""
        return {CLASS: class_name(type(self)), **fields_to_plain(self)}

    @classmethod
    def from_plain(cls, plain: Any, trust: tuple[str, ...] = ()) -> Self:
        """The inverse of ``to_plain``. The class that is named must be this one or a subclass of it.

        Args:
            plain: Plain values from a checkpoint.
            trust: Further packages whose specs may be loaded, e.g. your own.

        Raises:
            InputError: A class that is no spec or lies outside the trusted packages, or values of another type than
                the class declares; it names them.
        """
        if not isinstance(plain, dict) or CLASS not in plain:
            raise InputError(f"the spec names no {CLASS!r}")
        spec = spec_class(plain[CLASS], trust)
        if not issubclass(spec, cls):
            raise InputError(f"the spec is a {spec.__name__}, and a {cls.__name__} is needed")
        return fields_from_plain(spec, {key: value for key, value in plain.items() if key != CLASS}, "spec")


def class_name(cls: type) -> str:
    """Full name of a class, e.g. ``torchcell.cells.spec.CellsSpec``."""
    return f"{cls.__module__}.{cls.__qualname__}"


def spec_class(name: Any, trust: tuple[str, ...] = ()) -> type[Spec]:
    """The class of specs with a full name: one that is imported already, else one of a trusted package.

    Raises:
        InputError: A name outside the trusted packages, an unknown one, or the name of something else than a spec.
    """
    if not isinstance(name, str):
        raise InputError(f"the spec's class must be a name, not {type(name).__name__}")
    known = {class_name(cls): cls for cls in _all_specs()}
    if name in known:
        return known[name]
    target = find(name, trust)
    if not (isinstance(target, type) and issubclass(target, Spec)):
        raise InputError(f"the spec's class {name!r} is no spec; nothing of it was run")
    return target


def _all_specs() -> list[type[Spec]]:
    specs: list[type[Spec]] = [Spec]
    for cls in specs:
        specs += cls.__subclasses__()
    return specs


def fit_scaler(target: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """Center and scale of each output over the training samples; missing values don't count.

    Args:
        target: float32 [n, T], NaN where missing.
        task: Binary outputs keep center 0 and scale 1.

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

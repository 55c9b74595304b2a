"""The perturbation index: a batch is gene indices, a pointer, kinds, targets and sample numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.core.batch import LARGEST_BATCH, Batch, Packed
from torchcell.core.datamodule import RecordDataModule, derangement
from torchcell.core.prediction_notes import Notes, trained_range
from torchcell.core.spec import Spec
from torchcell.core.split import Split
from torchcell.evaluation.bootstrap import FEWEST_CLUSTERS
from torchcell.evaluation.checks import Halves
from torchcell.graph.cell_graph import CellGraph, owner
from torchcell.graph.neighborhood import check_hops
from torchcell.io.errors import InputError, near, some
from torchcell.io.gene_features import GeneFeatures
from torchcell.screen.record import KINDS, Screen
from torchcell.screen.screen_graph import cost_note, joined
from torchcell.screen.spec import ScreenSpec
from torchcell.screen.table import screen_notes
from torchcell.screen.task import TASK

STEPS, SMALLEST_BATCH = 32, 16
"""Steps of an epoch, and bounds of a batch, where nobody says how large a batch is."""
HELD_OUT_GENES = "held_out_genes"
"""The split that a screen gets where nobody chooses another one."""


@dataclass(frozen=True, eq=False)
class PerturbationBatch(Batch):
    """B perturbation sets with M members in all, besides the ``target`` and ``sample`` of every batch.

    Attributes:
        gene: Members, positions in ``spec.genes``, int64 [M].
        ptr: Set i is ``gene[ptr[i]:ptr[i + 1]]``, int64 [B + 1].
        kind: What happened to each member, positions in ``KINDS``, int64 [M].
        level: Dose or expression level of each member, float32 [M], NaN where it has none.
    """

    gene: Tensor
    ptr: Tensor
    kind: Tensor
    level: Tensor

    @property
    def owner(self) -> Tensor:
        """The set that each member belongs to, int64 [M]."""
        return owner(self.ptr, len(self.gene))

    def narrow(self, start: int, stop: int) -> PerturbationBatch:
        """Sets ``start`` to ``stop``; all but the pointer are views."""
        first, last = int(self.ptr[start]), int(self.ptr[stop])
        return PerturbationBatch(
            self.target[start:stop],
            self.sample[start:stop],
            self.gene[first:last],
            self.ptr[start : stop + 1] - first,
            self.kind[first:last],
            self.level[first:last],
            prior=None if self.prior is None else self.prior[start:stop],
        )


class PerturbationSets:
    """All samples of a screen packed into tensors once; indexing with a tensor slices out a batch.

    Args:
        screen: The samples.
        vocabulary: Gene names that the indices of a batch refer to.

    Attributes:
        prior: See ``Batch``, of all samples [n, T]; none unless it is set.

    Raises:
        InputError: A gene outside the vocabulary, named with its nearest matches.
    """

    prior: Tensor | None = None

    def __init__(self, screen: Screen, vocabulary: tuple[str, ...]) -> None:
        position = {name: i for i, name in enumerate(vocabulary)}
        index = np.array([position.get(name, -1) for name in screen.genes.tolist()], dtype=np.int64)
        gene = index[screen.gene]
        if (gene < 0).any():
            raise InputError(unknown_genes_message(screen, vocabulary))
        # Of millions of samples in few bytes; a batch has the numbers that torch looks things up by.
        self.gene = torch.from_numpy(gene.astype(np.int32))
        self.kind = torch.from_numpy(screen.kind.astype(np.int8))
        # Without levels one NaN stands for all, seen through a view of any length.
        self.level = None if screen.level is None else torch.from_numpy(screen.level.astype(np.float32))
        self.ptr = torch.from_numpy(screen.ptr.astype(np.int64))
        self.target = torch.from_numpy(screen.target.astype(np.float32))

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, index: Tensor) -> PerturbationBatch:
        # index_select is several times faster on one dimension than indexing with brackets.
        start = self.ptr.index_select(0, index)
        sizes = self.ptr.index_select(0, index + 1) - start
        ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        total = int(ptr[-1])
        member = torch.repeat_interleave(start - ptr[:-1], sizes, output_size=total).add_(torch.arange(total))
        return PerturbationBatch(
            self.target.index_select(0, index),
            index,
            self.gene.index_select(0, member).long(),
            ptr,
            self.kind.index_select(0, member).long(),
            torch.full((), torch.nan).expand(total) if self.level is None else self.level.index_select(0, member),
            prior=None if self.prior is None else self.prior.index_select(0, index),
        )

    def exchanged(self, index: Tensor, source: Tensor) -> PerturbationSets:
        """The same samples and targets, but those at ``index`` have the perturbations of those at ``source``."""
        order = torch.arange(len(self))
        order[index] = source
        batch = self[order]  # a batch of all samples, whose perturbations the twin takes over
        twin = copy.copy(self)
        twin.gene, twin.kind, twin.ptr = batch.gene.int(), batch.kind.to(torch.int8), batch.ptr
        twin.level = None if self.level is None else batch.level
        twin.prior = batch.prior
        return twin


def unknown_genes_message(screen: Screen, vocabulary: tuple[str, ...]) -> str:
    """Name and count the genes outside the vocabulary, with near matches and what to do."""
    missing = sorted(set(np.unique(screen.genes[screen.gene]).tolist()) - set(vocabulary))
    hints = [f"{name} -> {' / '.join(near(name, vocabulary))}" for name in missing[:3] if near(name, vocabulary)]
    did_you_mean = f"; did you mean {', '.join(hints)}?" if hints else "."
    return (
        f"{len(missing)} gene(s) of {screen.name} are not in the vocabulary of {len(vocabulary):,} genes: "
        f"{some(missing)}{did_you_mean} Correct the names, or set unknown_genes=drop to leave "
        "their sets out; predict and embed also take features of new genes, added_genes=FILE"
    )


class PerturbationDataModule(RecordDataModule):
    """Batches of perturbation sets for models that look genes up by index; see ``RecordDataModule``.

    The same batch serves the lazy representation, where a model reads the whole graph without the set's genes, and
    the k-hop one, where it reads their neighborhood: node sets are made on the device from the indices.

    Args:
        batch_size: Samples a training batch and process; none: 16 to 1,024, for about 32 steps an epoch.
        unknown_genes: Genes that the graph lacks are an ``error``; ``isolate`` makes them nodes without an edge, as
            long as the graph knows half of them; ``drop`` leaves out the samples that name one.
        hops: What a model that takes genes out of the graph sees of it: all of it (none), or the nodes within
            1, 2 or 3 hops of the set.
        features: What a model may read of each gene besides its name, a row for each gene of the vocabulary; or how to
            make it of the graph, see ``torchcell.graph.features``.
        aliases: Table of ``alias`` and ``gene``, by which the graph's names are found for the screen's. The other
            arguments are those of ``RecordDataModule``.
    """

    TASK = TASK
    request_columns = ("genes",)
    spec: ScreenSpec
    takes_prior = True

    why_random: str | None = None
    """Why ``held_out_genes`` came to be ``random``; none where it did not."""

    def __init__(
        self,
        record: Screen,
        split: dict[str, Any],
        graph: CellGraph | None = None,
        batch_size: int | None = 1024,
        eval_batch_size: int = 8192,
        subset: int | None = None,
        unknown_genes: Literal["isolate", "error", "drop"] = "error",
        seed: int = 0,
        hops: int | None = None,
        features: Callable[[CellGraph], GeneFeatures] | GeneFeatures | None = None,
        aliases: str | None = None,
    ) -> None:
        if hops is not None:
            check_hops(hops)
        isolate = unknown_genes == "isolate"
        changed: dict[str, int] = {}
        if graph is not None:
            graph, changed = joined(record, graph, aliases, isolate)
        if callable(features):
            if graph is None:
                raise InputError(
                    "data.features is made of a graph, and the data has none; choose one, e.g. graph=yeast, or read a "
                    "table with torchcell.io.gene_features.read_gene_features"
                )
            features = features(graph)
        self.hops, self.features = hops, features
        policy: Literal["error", "drop"] = "error" if unknown_genes == "isolate" else unknown_genes
        super().__init__(record, split, graph, batch_size or 1, eval_batch_size, subset, policy, seed)
        self.dropped |= changed
        if batch_size is None:
            per_step = int((self.split.part == "train").sum()) // STEPS
            self.batch_size = min(max(per_step, SMALLEST_BATCH), LARGEST_BATCH)

    def assign_folds(self, record: Screen, split: Mapping[str, Any]) -> Split:
        """By the ``split`` config; ``held_out_genes`` is ``gene_disjoint_any`` where each fold then tests genes enough
        for a verdict, else ``random``. Folds of one screen never differ in it.
        """
        if split["method"] != HELD_OUT_GENES:
            return super().assign_folds(record, split)
        n_genes, n_folds = len(np.unique(record.gene)), split["n_folds"]
        enough = n_genes >= FEWEST_CLUSTERS * n_folds
        if not enough:
            self.why_random = (
                f"{n_genes} genes in {n_folds} folds leave fewer than {FEWEST_CLUSTERS} to test, so samples are dealt "
                "at random; split=gene_disjoint_any holds genes out all the same"
            )
        return super().assign_folds(record, {**split, "method": "gene_disjoint_any" if enough else "random"})

    def fingerprinted(self) -> dict[str, Any]:
        """The samples, the graph, and a user's features of genes."""
        return {**super().fingerprinted(), "gene features": self.features}

    def training_values(self) -> Screen:
        """The training part without names and further columns, which are most of a screen's bytes."""
        whole = self.record_whole
        nameless = replace(whole, sample_id=np.broadcast_to("", len(whole)), columns={}, replicates=None, truth=None)
        return nameless.subset(self.split.index("train"))

    def make_spec(self, base: Spec, train: Screen) -> ScreenSpec:
        """Genes, sizes and levels of training samples; a model's hops; gene features."""
        position = {name: i for i, name in enumerate(self.genes)}
        named = sorted({position[name] for name in train.genes[np.unique(train.gene)].tolist()})
        if self.features is not None:
            values = self.features.validate().aligned(self.genes)
            features = GeneFeatures(np.array(self.genes, dtype=str), tuple(self.features.columns), values)
            base = replace(base, gene_features=features)
        return ScreenSpec(
            **vars(base),
            trained_genes=torch.tensor(named, dtype=torch.int64),
            trained_sizes=tuple(np.unique(train.sizes).tolist()),
            trained_levels=() if train.level is None else tuple(trained_range(train.level)),
            hops=self.hops,
        )

    @staticmethod
    def pack(record: Screen, spec: ScreenSpec) -> PerturbationSets:
        """The screen's samples as tensors."""
        return PerturbationSets(record, spec.genes)

    @staticmethod
    def vocabulary(record: Screen, graph: CellGraph | None) -> tuple[str, ...]:
        """The graph's genes, or without a graph the screen's."""
        return tuple((record.genes if graph is None else graph.genes).tolist())

    def kinds(self, record: Screen) -> tuple[str, ...]:
        """Kinds of perturbation in the training part."""
        return tuple(KINDS[k] for k in np.unique(record.kind))

    @staticmethod
    def filter_known(record: Screen, vocabulary: tuple[str, ...], policy: str) -> tuple[Screen, dict[str, int]]:
        """Refuse genes outside the vocabulary, or drop the sets that name one."""
        known = np.isin(record.genes, vocabulary)[record.gene]
        if known.all():
            return record, {}
        if policy == "error":
            raise InputError(unknown_genes_message(record, vocabulary))
        unknown = np.zeros(len(record), dtype=bool)
        unknown[record.owner[~known]] = True
        return record.subset(~unknown), {"samples with a gene outside the graph": int(unknown.sum())}

    @staticmethod
    def to_table(record: Screen, prediction: np.ndarray, spec: ScreenSpec) -> pd.DataFrame:
        """Sample id, genes and kinds of each set, then a column a phenotype."""
        table = RecordDataModule.to_table(record, prediction, spec)
        table.insert(1, "genes", ["|".join(genes) for genes in record.sets()])
        kinds = np.array(KINDS)[record.kind]
        pairs = zip(record.ptr[:-1], record.ptr[1:], strict=True)
        table.insert(2, "kinds", ["|".join(kinds[a:b]) for a, b in pairs])
        if record.level is not None:
            pairs = zip(record.ptr[:-1], record.ptr[1:], strict=True)
            table.insert(3, "levels", ["|".join(map(str, record.level[a:b])) for a, b in pairs])
        return table

    @staticmethod
    def prediction_notes(record: Screen, spec: ScreenSpec, model: Any) -> Notes:
        """New set sizes, genes and perturbation types; levels that the model does not read or know."""
        return screen_notes(record, spec, model.reads_levels)

    def inputs(self) -> tuple[str, ...]:
        """The perturbation: a model that reads it must lose when samples get each other's."""
        return ("perturbation",)

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """The samples with each other's perturbations."""
        packed = self.packed
        assert isinstance(packed, PerturbationSets)
        keys = self.record_whole.subset(index.numpy()).duplicate_keys()
        order = derangement(torch.from_numpy(np.unique(keys, return_inverse=True)[1]), generator)
        return None if order is None else packed.exchanged(index, index[order])

    def halves(self, part: str) -> Halves | None:
        """Means of every other replicate of each sample, where the screen has replicates."""
        from torchcell.screen.baselines import half_means

        replicates = self.record(part).replicates
        return None if replicates is None else Halves(*half_means(replicates), np.zeros(len(replicates)))

    def ceiling(self, record: Screen) -> np.ndarray | None:
        """What true replicates predict of each other; see ``torchcell.screen.baselines``."""
        from torchcell.screen.baselines import replicate_ceiling

        return None if record.replicates is None else replicate_ceiling(record)

    def notes(self) -> list[str]:
        """Says so where negatives were sampled and nobody has measured them, and where levels go unread."""
        record = self.record_whole
        said = [] if self.why_random is None else [self.why_random]
        costly = None if self.graph is None else cost_note(record, self.graph)
        said += [] if costly is None else [costly]
        unlabeled = record.columns.get("unlabeled", np.zeros(1, dtype=bool))
        if unlabeled.any():
            said.append(
                f"{int(unlabeled.sum()):,} of {len(record):,} samples are sampled negatives: unlabeled sets, not "
                "sets known to be without interaction. Scores say how well measured positives are told from them."
            )
        if record.level is not None and len(np.unique(record.level[~np.isnan(record.level)])) > 1:
            said.append(
                "The sets differ in level, which the baselines do not read, nor a model but the transformer with "
                "model.levels=true: sets that differ in nothing else get the same prediction."
            )
        return said

    @staticmethod
    def read_request(path: str, spec: ScreenSpec) -> Screen:
        """A user's list of perturbation sets for ``predict``; see docs/concepts/contracts.md."""
        from torchcell.screen.table import read_perturbations

        return read_perturbations(path)

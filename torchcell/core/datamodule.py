"""``RecordDataModule``: turns a record and a split into loaders and a ``Spec``, for every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from torchcell.core.batch import BatchOrder, Packed, PackedLoader
from torchcell.core.constant_targets import constant_notes
from torchcell.core.prediction_notes import Notes
from torchcell.core.prior import FOLDS, InnerPart, Prior
from torchcell.core.spec import Spec, fit_scaler
from torchcell.core.split import Split
from torchcell.core.task import Task
from torchcell.evaluation.checks import Halves
from torchcell.evaluation.metrics import ProfileContext
from torchcell.evaluation.registry import metric_set
from torchcell.evaluation.results import Design, Results, clusters_in
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.configurable import configurable
from torchcell.io.console import Console
from torchcell.io.errors import InputError
from torchcell.io.tables import write_table

if TYPE_CHECKING:
    import anndata


@configurable(subclasses=True)
class RecordDataModule(lightning.LightningDataModule):
    """Base of all datamodules. A subclass must define the methods that raise here.

    Args:
        record: A record with ``sample_id`` [n], ``target`` [n, T], ``subset``, ``blind``, ``validate``.
        split: Keys of the ``split`` config: method, n_folds, fold, seed, file.
        graph: The wild-type graph, or none.
        batch_size: Samples a training batch of one process.
        eval_batch_size: Samples a batch in validation and test; it does not change results, so it may be large.
        subset: Use only this many samples, for trials; drawn by the split's seed, so that runs share a test part.
        unknown_genes: ``error``, or ``drop`` the samples that name a gene outside the vocabulary.
        seed: Seed of the order of batches.
    """

    def __init__(
        self,
        record: Any,
        split: dict[str, Any],
        graph: CellGraph | None = None,
        batch_size: int = 1024,
        eval_batch_size: int = 8192,
        subset: int | None = None,
        unknown_genes: Literal["error", "drop"] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if unknown_genes not in ("error", "drop"):
            raise InputError(f"data.unknown_genes={unknown_genes!r}: must be error or drop")
        self.graph, self.batch_size, self.eval_batch_size = graph, batch_size, eval_batch_size
        self.seed = seed
        self.genes = self.vocabulary(record, graph)
        record, dropped = self.filter_known(record.validate(), self.genes, unknown_genes)
        self.dropped = {**getattr(record, "dropped", {}), **dropped}
        self.record_whole = self.draw(record, subset, split)
        self.split: Split = self.assign_folds(self.record_whole, split)
        self.spec = self._spec()
        self.packed = self.packed_whole()

    # What a subclass decides; ``spec`` is of the class that its ``make_spec`` returns ------------------

    spec: Any
    target_notes: list[str]

    TASK = Task("samples")
    """The task of these data."""
    reads_controls = False
    """Whether ``read_request`` takes a file of control cells too."""
    takes_prior = False
    """Whether packed samples have an attribute ``prior`` [n, T], and batches ``prior`` [B, T]."""
    prior: Prior | None = None
    """The prior beside the network; see ``use_prior``."""
    reads_columns = False
    """Whether ``read_request`` takes a map of column names."""
    request_columns: tuple[str, ...] = ()
    """Columns of a request that a list alone fills; none: a list says too little."""
    ceiling_is = "ceiling"
    """Name of the ceiling in the verdict: ``ceiling`` of a noiseless prediction, or ``one replicate``."""
    request_batch = 8192
    """Samples a batch of ``predict``, where no other number is given."""

    @staticmethod
    def pack(record: Any, spec: Any) -> Packed:
        """All samples as tensors; indexing with a tensor of positions gives a batch."""
        raise NotImplementedError("a datamodule must define pack")

    def packed_whole(self) -> Packed:
        """The samples of the run as ``pack`` gives them, with values that depend on the split."""
        return self.pack(self.record_whole, self.spec)

    @staticmethod
    def read_request(path: str, spec: Any) -> Any:
        """A record without targets from a file for ``predict``."""
        raise NotImplementedError("this datamodule cannot read a request from a file")

    @staticmethod
    def extend_spec(request: Any, spec: Any) -> Any:
        """The spec with names from a request that no training sample has, such as new molecules."""
        return spec

    @staticmethod
    def draw(record: Any, subset: int | None, split: Mapping[str, Any]) -> Any:
        """The samples of a trial, see ``drawn``; all of them where ``subset`` is none."""
        return drawn(record, subset, split)

    def assign_folds(self, record: Any, split: Mapping[str, Any]) -> Split:
        """The split of a record, by the keys of the ``split`` config."""
        return self.TASK.splits.make(record, **split)

    def inner_folds(self, train: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Folds of the training part that hold out what the split holds out.

        By the split's method; where it came from a file, by its clusters if most test samples have one that is new,
        else at random.

        Yields:
            Which samples of ``train`` to fit on and which to predict, masks [n]; a fold without either is left out.

        Raises:
            InputError: There is no such fold.
        """
        method, refused = self.split.method if self.split.n_folds else "random", {}
        by_cluster = not self.split.n_folds and self.split.holds_clusters_out
        for fold in range(FOLDS):
            keys = {"method": method, "n_folds": FOLDS, "fold": fold, "seed": self.split.seed + 1}
            try:
                if by_cluster:
                    held_out = self.split.again(train.sample_id, FOLDS, fold)
                    fitted_on = ~held_out
                else:
                    part = self.assign_folds(train, keys).part
                    fitted_on, held_out = np.isin(part, ("train", "val")), part == "test"
            except InputError as error:
                refused[fold] = str(error)
                continue
            if fitted_on.any() and held_out.any():
                yield fitted_on, held_out
            else:
                refused[fold] = "it has no samples to fit on, or none to predict"
        how = "the file's clusters" if by_cluster else method
        if len(refused) == FOLDS:
            raise InputError(
                f"the training part of {len(train)} samples can't be split again by {how} into {FOLDS} folds "
                f"({refused[0]}); take more samples, or leave out what is fitted out of fold (baselines.stack=null)"
            )
        for fold, why in refused.items():
            Console(stderr=True, markup=False).print(f"inner fold {fold} of {FOLDS} by {how} is left out: {why}")

    @staticmethod
    def filter_known(record: Any, vocabulary: tuple[str, ...], policy: str) -> tuple[Any, dict[str, int]]:
        """The samples whose names are all known, and counts of what the ``policy`` dropped."""
        return record, {}

    @staticmethod
    def to_table(record: Any, prediction: np.ndarray, spec: Any) -> pd.DataFrame:
        """The table that ``predict`` writes: sample ids, then a column for each output."""
        table = pd.DataFrame(prediction, columns=list(spec.outputs))
        table.insert(0, "sample_id", record.sample_id)
        return table

    @staticmethod
    def prediction_notes(record: Any, spec: Any, model: Any) -> Notes:
        """Notes of ``predict`` on samples unlike those of training, by topic; ``spec`` is that of ``model``."""
        return {}

    @staticmethod
    def graph_of(spec: Any) -> Any:
        """The graph that predictors were fitted with, from the spec."""
        return spec.graph

    @staticmethod
    def input_control(record: Any) -> np.ndarray | None:
        """Control that a prediction starts from and its change is taken from [n, T]; none for scalar phenotypes."""
        return None

    @classmethod
    def profiles(cls, record: Any, prediction: np.ndarray, spec: Spec) -> anndata.AnnData:
        """Predictions for an h5ad file: other columns of ``to_table`` in ``obs``; layers ``control`` and ``change``.

        Raises:
            InputError: The outputs are no genes.
        """
        import anndata

        if not metric_set(spec.task).per_gene:
            raise InputError("an h5ad file holds predicted expression; name a .parquet or .csv file for a phenotype")
        obs = cls.to_table(record, prediction, spec).drop(columns=list(spec.outputs)).set_index("sample_id")
        adata = anndata.AnnData(prediction.astype(np.float32), obs=obs, var=pd.DataFrame(index=list(spec.outputs)))
        control = cls.input_control(record)
        if control is not None:
            adata.layers["control"] = np.asarray(control, dtype=np.float32)
            adata.layers["change"] = adata.X - adata.layers["control"]
        return adata

    @staticmethod
    def vocabulary(record: Any, graph: CellGraph | None) -> tuple[str, ...]:
        """Names of the genes that indices in a batch refer to."""
        return ()

    def kinds(self, record: Any) -> tuple[str, ...]:
        """Perturbation types in the training part."""
        return ()

    def task(self, record: Any) -> str:
        """Name of the metric set that scores a record, see ``evaluation.registry``."""
        return record.task

    def outputs(self, record: Any) -> tuple[str, ...]:
        """Names of the T predicted values."""
        return tuple(record.phenotype_names)

    def training_values(self) -> Any:
        """The training part for the spec; of millions of samples a task leaves out names, which no spec reads."""
        return self.record("train")

    def make_spec(self, base: Spec, train: Any) -> Spec:
        """The spec of the task: the fields of ``base``, and those that the task fits on the training part."""
        return base

    def training_loader(self, shuffle: bool, rank: int, world: int, batch_size: int) -> PackedLoader:
        """Training batches of process ``rank`` of ``world``; by default the samples of the training part."""
        index = torch.from_numpy(self.split.index("train"))
        return PackedLoader(self.packed, BatchOrder(index, shuffle, self.seed, rank, world), batch_size)

    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs whose use is checked; the first is the one that the split holds out."""
        return ()

    def shuffled(self, name: str, index: Tensor, generator: torch.Generator) -> Packed | None:
        """Packed samples in which the input ``name`` is exchanged among those at ``index``; None where all of them have
        the same one.
        """
        raise NotImplementedError("a datamodule that names inputs must define shuffled")

    def constant(self, name: str, index: Tensor) -> Packed | None:
        """Packed samples with one value of the input ``name`` for all; None where they share it, or none fits."""
        return None

    def halves(self, part: str) -> Halves | None:
        """Two independent measurements of each sample of ``part``; None without replicates."""
        return None

    def design(self) -> Design:
        """How the parts were made, for the text of the verdict."""
        split = self.split
        n_clusters = clusters_in(split.group[split.part != "unused"])
        return Design(split.key, n_clusters, split.method, split.n_folds or None, self.ceiling_is)

    def fingerprinted(self) -> dict[str, Any]:
        """The data of a run by name, each with a method ``fingerprint``; or None."""
        return {"samples": self.record_whole, "graph": self.graph}

    def ceiling(self, record: Any) -> np.ndarray | None:
        """Predictions of the target by replicates [n, T]; none without replicates."""
        return None

    def eval_control(self, record: Any) -> np.ndarray | None:
        """Control that the measured change is taken from [n, T]; none for scalar phenotypes."""
        return None

    def context(self, part: str, record: Any) -> ProfileContext:
        """Controls and centers for scoring the samples of ``part``."""
        return ProfileContext(self.eval_control(record))

    def notes(self) -> list[str]:
        """Sentences for every report on these data."""
        return []

    def tables(self) -> dict[str, pd.DataFrame]:
        """Further tables for the run folder by file name, e.g. how genes were selected."""
        return {}

    def evaluation_inputs(self, part: str) -> dict[str, Callable[[], Any]]:
        """Records that every system predicts to be scored on ``part``: name -> function that makes the record. The part
        itself has the name "". One record is made at a time, since it may have millions of samples.
        """
        return {"": lambda: self.record(part)}

    def summarize_prediction(self, part: str, name: str, prediction: np.ndarray) -> np.ndarray:
        """What to keep of a prediction [n, T] for the record ``name`` of ``evaluation_inputs``; by default all."""
        return prediction

    def export(self, part: str, prediction: np.ndarray, folder: Path) -> list[Path]:
        """Write prediction [n, T] and measured values of ``part`` to files that other programs score."""
        raise InputError("cell_eval_out is for single cells: the package cell-eval reads no other data; leave it out")

    def results(
        self, part: str, predictions: Mapping[str, Mapping[str, np.ndarray]], model: str, ceiling: str | None
    ) -> list[Results]:
        """The results to evaluate; the first are written as the run's predictions.

        Args:
            part: One of the split's parts.
            predictions: What ``summarize_prediction`` returned, by name as in ``evaluation_inputs``, then by system.
            model: The system under test.
            ceiling: The system that is the ceiling, if there is one.
        """
        record = self.record(part)
        results = Results(
            sample_id=record.sample_id,
            group=self.split.group[self.split.index(part)],
            outputs=self.spec.outputs,
            measured=np.asarray(record.target, dtype=np.float32),
            systems=predictions[""],
            part=part,
            task=self.spec.task,
            set_size=getattr(record, "sizes", None),
            context=self.context(part, record),
            model=model,
            ceiling=ceiling,
            design=self.design(),
        )
        return [results]

    # What is the same for all ----------------------------------------------------------------------

    def _spec(self) -> Spec:
        train, task = self.training_values(), self.task(self.record_whole)
        target = np.asarray(train.target, dtype=np.float32)
        center, scale = fit_scaler(torch.from_numpy(target), task)
        self.target_notes = self._constant_notes(target, task)
        base = Spec(
            task=task,
            outputs=self.outputs(self.record_whole),
            genes=self.genes,
            kinds=self.kinds(train),
            center=center,
            scale=scale,
            graph=self.graph,
            split_hash=self.split.hash,
        )
        spec = self.make_spec(base, train)  # may make further data, e.g. features of genes
        fingerprints = {name: data.fingerprint() for name, data in self.fingerprinted().items() if data is not None}
        return replace(spec, fingerprints=fingerprints)

    def _constant_notes(self, train: np.ndarray, task: str) -> list[str]:
        """See ``constant_notes``; of genes only the training part is looked at, which is in memory here [n, T]."""
        used, targets = metric_set(task), {"train": train}
        if not used.per_gene:
            values = np.asarray(self.record_whole.target)
            targets |= {part: values[self.split.index(part)] for part in ("val", "test")}
        return constant_notes(targets, self.outputs(self.record_whole), used.labels, used.per_gene)

    def inner_parts(self) -> Iterator[InnerPart]:
        """The inner folds of the training part: to fit on, to predict, and where that stands in ``predicted_by``."""
        train, at = self.record("train"), self.split.index("train")
        for fitted_on, held_out in self.inner_folds(train):
            yield InnerPart(train.subset(fitted_on), train.subset(held_out), at[held_out])

    def learned_from(self) -> np.ndarray:
        """Which of the samples of ``predicted_by`` a network learns from: their prior must be out of fold."""
        return self.split.index("train")

    def calibration_labels(self, part: str) -> np.ndarray:
        """Labels of a part [n, T] by which scores of a prior become log-odds; NaN is left out."""
        return np.asarray(self.record(part).target, dtype=np.float32)

    def residual_spec(self, train: Any, prediction: np.ndarray) -> Spec:
        """The spec of a network that learns the residual of a prior: ``scale`` is that of the residual.

        Args:
            train: The training part.
            prediction: Out-of-fold prediction of it [n, T]; NaN where there is none.
        """
        if metric_set(self.spec.task).labels:
            return self.spec
        center = self.spec.center.double().numpy()
        residual = np.asarray(train.target, dtype=np.float64) - np.where(np.isnan(prediction), center, prediction)
        scale = torch.from_numpy(residual).square().nanmean(0).sqrt().clamp(min=1e-8).float()
        return replace(self.spec, scale=scale)

    def use_prior(self, prior: Prior, prediction: Tensor) -> None:
        """Put the prediction of a prior [n, T] for all samples into the batches."""
        self.prior = prior
        self.packed.prior = prediction  # type: ignore[attr-defined]

    def predicted_by(self, prior: Prior) -> Tensor:
        """What a prior predicts of all samples, as ``predict`` would ask for them [n, T]."""
        return prior.predict(self.record_whole)

    def packed_record(self, record: Any) -> Packed:
        """``pack`` for a record of these data, with the prediction of the prior."""
        packed = self.pack(record, self.spec)
        if self.prior is not None:
            packed.prior = self.prior.predict(record)  # type: ignore[attr-defined]
        return packed

    def write(self, folder: Path) -> None:
        """Write ``split.parquet`` and the further tables into a run folder."""
        self.split.save(folder / "split.parquet", self.spec.data_fingerprint)
        for name, table in self.tables().items():
            write_table(table, folder / name)

    @property
    def sample_id(self) -> np.ndarray:
        """Names of the samples; ``batch.sample`` holds positions in it."""
        return self.record_whole.sample_id

    def record(self, part: str) -> Any:
        """The samples of one part as a record."""
        return self.record_whole.subset(self.split.index(part))

    def loader(
        self, part: str, shuffle: bool = False, packed: Packed | None = None, pad: bool = True, whole: bool = False
    ) -> PackedLoader:
        """Batches of one part.

        Args:
            part: Part of the split.
            shuffle: Whether to permute the samples anew each epoch.
            packed: Samples with other inputs, e.g. shuffled ones; none: those of the run.
            pad: See ``BatchOrder``.
            whole: Whether a process gets whole batches, not single samples, as in a pass that scores the part.
        """
        rank, world = self._rank_and_world()
        size = self.batch_size if part == "train" and not whole else self.eval_batch_size
        index = torch.from_numpy(self.split.index(part))
        order = BatchOrder(index, shuffle, self.seed, rank, world, pad, size if whole else 1)
        return PackedLoader(packed or self.packed, order, size)

    def _rank_and_world(self) -> tuple[int, int]:
        """Number of this process, and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> PackedLoader:
        """Training batches, in a new order each epoch unless the trainer overfits a few."""
        shuffle = not getattr(self.trainer, "overfit_batches", 0)
        return self.training_loader(shuffle, *self._rank_and_world(), self.batch_size)

    def val_dataloader(self) -> PackedLoader:
        """Validation batches, each sample once also under DDP."""
        return self.loader("val", pad=False)

    def test_dataloader(self) -> PackedLoader:
        """Test batches, the same for any number of processes."""
        return self.loader("test", whole=True)


def drawn(record: Any, subset: int | None, split: Mapping[str, Any]) -> Any:
    """``subset`` samples of a record, drawn by the seed of the ``split`` config, in their order; none: all.

    Runs with the same split config then have the same split, whatever the seed of the run.
    """
    if subset is None or subset >= len(record):
        return record
    order = np.random.default_rng(int(split.get("seed", 0))).permutation(len(record))
    return record.subset(np.sort(order[:subset]))


def derangement(key: Tensor, generator: torch.Generator) -> Tensor | None:
    """A random order in which no sample takes the input of one with the same input.

    Args:
        key: Number of each sample's input, the same for equal inputs, int64 [m].
        generator: Random generator.

    Returns:
        Sample i takes the input of sample ``order[i]``, int64 [m]. Where more than half of the samples have the same
        input, some of them keep it. None where all have the same one.
    """
    _, value, count = torch.unique(key, return_inverse=True, return_counts=True)
    if len(count) < 2:
        return None
    n, most = len(key), int(count.max())
    # Sort so that equal inputs stand together, in random order; then shift all by at least the largest such block.
    rank = torch.randperm(len(count), generator=generator)[value]
    within = torch.randperm(n, generator=generator)
    block = within[rank[within].argsort(stable=True)]
    least, largest = min(most, n - 1), max(n - most, min(most, n - 1))
    step = least + int(torch.randint(largest - least + 1, (1,), generator=generator))
    order = torch.empty_like(block)
    order[block] = block.roll(-step)
    return order

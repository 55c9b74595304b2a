"""Time and memory of each phase of a step."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import importlib.util
import itertools
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn
from torch.autograd.profiler import profile

from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.io.console import Console
from torchcell.io.errors import InputError, near, some
from torchcell.io.progress import track
from torchcell.training import build, checkpoint
from torchcell.training.build import PRECISIONS
from torchcell.training.distributed.processes import DistributedContext
from torchcell.training.entry import conf_dir


def tensor_megabytes(step: Callable[[], object], device: torch.device) -> float:
    """The most MB (1e6 bytes) that tensors took at once in ``step``, above the level before.

    It is from torch's record of allocations, so that small ones count too, and what the process did before plays no
    part; memory of numpy or other libraries is not in it. NaN on a device without such a record.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    if device.type != "cpu":
        step()
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the recorder prints when it starts and stops
    with profile(use_cpu=True, use_kineto=True, profile_memory=True) as taken:
        step()
    assert taken.kineto_results is not None
    events = taken.kineto_results.events()
    allocations = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return float(np.cumsum([size for _, size in allocations]).max(initial=0)) / 1e6


PHASES = ("loader", "forward", "forward + backward", "full step")


class Objective(nn.Module):
    """The weighted sum of a model's loss terms, as in its training step but without a log.

    Args:
        model: The model.
        max_epochs: Length of the run, where the weights follow a schedule; they are those of its first epoch.
    """

    def __init__(self, model: Model, max_epochs: int) -> None:
        super().__init__()
        self.model = model
        weights = model.loss_weights or {}
        self.weights = weights(0, max_epochs) if callable(weights) else weights

    def forward(self, batch: Any) -> Tensor:
        """The scalar to differentiate."""
        terms = self.model.losses(batch, self.model(batch.blind()))
        return torch.stack([self.weights.get(name, 1.0) * term for name, term in terms.items()]).sum()


class Subject:
    """A model with the batches of one process, ready for each phase.

    Args:
        cfg: ``model``, ``trainer`` and ``seed`` are read.
        data: Datamodule; batches are those that it trains on.
        process: Its device and its share of the samples.
        batch_size: Samples a batch and process; none: the datamodule's.
    """

    def __init__(
        self, cfg: DictConfig, data: RecordDataModule, process: DistributedContext, batch_size: int | None = None
    ) -> None:
        torch.manual_seed(cfg.seed)
        network = cfg.model.copy()
        with open_dict(network):
            network.prior = None  # which is fitted before the first step, and costs none of its time
        self.model = checkpoint.built(network, data.spec).to(process.device)
        self.model.train()
        optimizers, _ = self.model.configure_optimizers()
        self.optimizer: torch.optim.Optimizer = optimizers[0]
        self.objective: nn.Module = Objective(self.model, cfg.trainer.max_epochs)
        if process.world > 1:
            chosen = OmegaConf.select(cfg, "trainer.strategy", default={})
            options = {name: value for name, value in chosen.items() if name != "_target_"}
            self.objective = nn.parallel.DistributedDataParallel(self.objective, **options)
        self.clip = cfg.trainer.gradient_clip_val or float("inf")
        precision = str(cfg.trainer.precision)
        if precision not in PRECISIONS:
            raise InputError(f"trainer.precision={precision}: the profile knows {list(PRECISIONS)}")
        self.dtype, self.device = PRECISIONS[precision], process.device
        self.loader = data.training_loader(True, process.rank, process.world, batch_size or data.batch_size)

    def batches(self) -> Iterator[Any]:
        """Batches on the device without end, in a new order each epoch."""
        epoch = 0
        while True:
            self.loader.sampler.set_epoch(epoch)
            yield from (batch.to(self.device) for batch in self.loader)
            epoch += 1

    def work(self, phase: str, batch: Any) -> None:
        """The work of ``phase`` on a loaded batch."""
        if phase == "loader":
            return
        autocast = self.dtype is not None
        with torch.autocast(self.device.type, self.dtype) if autocast else contextlib.nullcontext():
            if phase == "forward":
                self.model(batch.blind())
                return
            loss = self.objective(batch)
        loss.backward()
        if phase == "full step":
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
        self.optimizer.zero_grad()

    def batch_facts(self) -> dict[str, float | None]:
        """Samples and bytes of the first batch; mean nodes and edges of a sample where the model gives them."""
        batch = next(self.batches())
        facts: dict[str, float | None] = {"batch_size": len(batch), "bytes_per_batch": batch.nbytes}
        sample_size: Callable[[Any], tuple[float, float]] | None = getattr(self.model, "sample_size", None)
        with torch.no_grad():
            nodes, edges = (None, None) if sample_size is None else sample_size(batch)
        return {**facts, "nodes_per_sample": nodes, "edges_per_sample": edges}


@dataclass(frozen=True)
class Plan:
    """How long a phase runs: ``steps`` after ``warmup`` steps, or as many as fit into ``max_seconds``."""

    steps: int = 100
    warmup: int = 10
    max_seconds: float = 20.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 1 or self.max_seconds <= 0:
            raise InputError(
                f"profile.steps={self.steps}, warmup={self.warmup}, max_seconds={self.max_seconds}: "
                "at least 1 step, 1 warm-up step and more than 0 seconds"
            )


def measure(subject: Subject, phase: str, plan: Plan, process: DistributedContext) -> dict[str, float]:
    """Run one phase in all processes.

    Returns:
        ``samples_per_s``, the sum over the processes; ``ms_per_step``, their mean; ``busy_ms``, the processor's part of
        it on a CPU, where others share it, for as many samples as the first batch has; ``peak_mb`` of the process that
        needs most, see ``PeakMemory``; likewise ``tensors_mb`` of a step on the first batch with the batch itself, see
         ``tensor_megabytes``; ``steps`` that were timed.
    """
    batches = subject.batches()

    def step() -> int:
        batch = next(batches)
        subject.work(phase, batch)
        return len(batch)

    with PeakMemory(process.device) as memory:
        steps = _warm_up(step, plan, process)
        start, began = clock(process.device), time.process_time()
        samples = sum(step() for _ in range(steps))
        busy, seconds = time.process_time() - began, clock(process.device) - start
    busy = busy if process.device.type == "cpu" else seconds
    first = next(subject.batches())  # the last of an epoch may be smaller
    tensors = first.nbytes / 1e6 + tensor_megabytes(lambda: subject.work(phase, first), process.device)
    values = process.gather(samples, seconds, memory.megabytes, tensors, busy * len(first) / samples)
    return {
        "samples_per_s": float((values[:, 0] / values[:, 1]).sum()),
        "ms_per_step": 1e3 * float(values[:, 1].mean()) / steps,
        "busy_ms": 1e3 * float(values[:, 4].mean()),
        "peak_mb": float(values[:, 2].max()),
        "tensors_mb": float(values[:, 3].max()),
        "steps": steps,
    }


def _warm_up(step: Callable[[], int], plan: Plan, process: DistributedContext) -> int:
    """Take the untimed steps, for half of ``max_seconds`` at most; the number of timed ones, the same everywhere."""
    taken: list[float] = []
    while len(taken) < plan.warmup and sum(taken) < plan.max_seconds / 2:
        start = clock(process.device)
        step()
        # The slowest counts: a process that stopped earlier would leave the others waiting for its gradients.
        taken.append(float(process.gather(clock(process.device) - start).max()))
    return max(1, min(plan.steps, int(plan.max_seconds / statistics.median(taken))))


def clock(device: torch.device) -> float:
    """Seconds, after all work of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class PeakMemory:
    """Peak memory of a block, ``megabytes`` after its end (1e6 bytes).

    On a GPU the most that tensors took at once, with model and graph. On a CPU the rise of this process's resident set
    above its level at the start, measured every 5 ms: a lower bound, without shorter peaks and without memory that the
    process had before.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.megabytes = device, 0.0
        self._process, self._done = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._level = self._peak = 0

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _return_freed_memory()
            self._level = self._peak = self._process.memory_info().rss
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            self.megabytes = torch.cuda.max_memory_allocated(self.device) / 1e6
            return
        self._done.set()
        self._thread.join()
        self._look()
        self.megabytes = (self._peak - self._level) / 1e6

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)


def _return_freed_memory() -> None:
    """Make the C library return free memory where it can; else one phase hides the need of the next."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


NAIVE, AS_IS = "naive", "as_is"
"""The row of the naive representation, and the one that changes nothing in the config."""


def rows(cfg: DictConfig, process: DistributedContext) -> list[dict[str, Any]]:
    """Measure the rows of ``cfg.profile``; every process takes part, and the first one shows a bar.

    Returns:
        A row per representation and phase: ``representation``, ``phase``, ``samples_per_s``, ``ms_per_step``,
        ``busy_ms``, ``bytes_per_batch``, ``peak_mb``, ``tensors_mb``, ``nodes_per_sample``, ``edges_per_sample``,
        ``relative_to_naive``, ``time_to_reference``, ``memory_to_reference``, ``reference``, ``steps``,
        ``batch_size``, ``processes``; None where it is not known.
    """
    configs = representations(cfg)
    plan = Plan(cfg.profile.steps, cfg.profile.warmup, cfg.profile.max_seconds)
    build, table, base = _Builder(), [], {}
    tasks = [(name, phase) for name in configs for phase in PHASES]
    if process.rank == 0:
        tasks = [(NAIVE, "")] * (cfg.profile.naive is not None) + tasks
    for name, phase in track(tasks, "profile, phases") if process.rank == 0 else tasks:
        if name == NAIVE:
            table = naive_rows(cfg, build(next(iter(configs.values()))), process)
            base = {row["phase"]: row["samples_per_s"] for row in table}
            continue
        if phase == PHASES[0]:
            subject = None  # give the last one's memory back first
            gc.collect()
            subject = _subject(name, configs[name], build(configs[name]), process)
            facts = subject.batch_facts()
        assert subject is not None
        measured = measure(subject, phase, plan, process)
        ratio = measured["samples_per_s"] / base[phase] if phase in base else None
        head = {"representation": name, "phase": phase}
        table.append({**head, **measured, **facts, "relative_to_naive": ratio, "processes": process.world})
    return _against_reference(table, cfg.profile.reference)


def _subject(name: str, cfg: DictConfig, data: RecordDataModule, process: DistributedContext) -> Subject:
    """The subject of a row; an error names the row."""
    try:
        return Subject(cfg, data, process, cfg.profile.batch_size)
    except InputError as error:
        raise InputError(f"row {name}: {error}; or leave the row out: profile.representations.{name}=null") from error


def _against_reference(table: list[dict[str, Any]], reference: str | None) -> list[dict[str, Any]]:
    """The rows with time and tensors' memory of the same phase over those of ``reference``, if that was measured."""
    base = {row["phase"]: row for row in table if row["representation"] == reference}
    for row in table:
        row["reference"] = reference if base else None
        for name, column in (("time_to_reference", "busy_ms"), ("memory_to_reference", "tensors_mb")):
            value = base.get(row["phase"], {}).get(column)
            row[name] = row[column] / value if value else None
    return table


def representations(cfg: DictConfig) -> dict[str, DictConfig]:
    """The config of each representation of ``cfg.profile``.

    Raises:
        InputError: ``only`` or ``reference`` names an unknown one, one sets a key that the config does not have, two
            are the same.
    """
    table = {str(name): changes for name, changes in cfg.profile.representations.items() if changes is not None}
    chosen = list((table or [AS_IS]) if cfg.profile.only is None else cfg.profile.only)
    reference = [] if cfg.profile.reference is None else [cfg.profile.reference]
    table[AS_IS] = table.get(AS_IS, {})
    for key, names in (("only", chosen), ("reference", reference)):
        unknown = [name for name in names if name not in table]
        if unknown or not chosen:
            hint = near(unknown[0], list(table)) if unknown else []
            raise InputError(f"profile.{key} names {some(unknown) or 'nothing'}; the nearest are {hint or list(table)}")
    configs = {name: _changed(cfg, name, table[name]) for name in chosen}
    for name, other in itertools.combinations(configs, 2):
        if configs[name] == configs[other]:
            raise InputError(
                f"{name} and {other} come out as the same config: start from an experiment that neither of them is, "
                "or choose one with profile.only"
            )
    return configs


def _changed(cfg: DictConfig, name: str, changes: Mapping[str, Any]) -> DictConfig:
    """A copy of the config with dotted keys set; all must exist, and a list must stay a list."""
    cfg = copy.deepcopy(cfg)
    for key, value in changes.items():
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        advice = f"leave the row out (profile.representations.{name}=null), or choose rows with profile.only=[{AS_IS}]"
        if not isinstance(node, DictConfig) or leaf not in node:
            siblings = [f"{parent}.{other!s}" for other in node] if isinstance(node, DictConfig) else list(cfg)
            raise InputError(
                f"profile.representations.{name} sets {key!r}, which this config does not have; the nearest are "
                f"{near(key, siblings) or siblings}; {advice}"
            )
        before = node[leaf]
        if None not in (before, value) and OmegaConf.is_list(before) != OmegaConf.is_list(value):
            raise InputError(
                f"profile.representations.{name} sets {key}={value}, but here it is {before}: the row is meant for "
                f"another model than {str(cfg.model._target_).rpartition('.')[2]}; {advice}"
            )
        OmegaConf.update(cfg, key, value, merge=False)
    return cfg


class _Builder:
    """Datamodules whose record and graph are loaded once, as long as their configs are equal."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def __call__(self, cfg: DictConfig) -> RecordDataModule:
        if cfg.data.get("record") is None:
            return build.datamodule(cfg)
        plain = OmegaConf.to_container(cfg.data, resolve=True)
        assert isinstance(plain, dict)
        split = OmegaConf.to_container(cfg.split, resolve=True)
        graph, record = self._once(cfg.graph) or None, self._once(cfg.data.record)
        if graph is not None:
            graph.cpu()  # the last model may have taken it to its device
        for key in ("record", *build.NOT_DATA):
            plain.pop(key, None)
        return instantiate(plain, _partial_=True)(record=record, graph=graph, split=split, seed=cfg.seed)

    def _once(self, node: Any) -> Any:
        text = OmegaConf.to_yaml(node, resolve=True) if OmegaConf.is_config(node) else ""
        if text not in self._known:
            self._known[text] = instantiate(node)
        return self._known[text]


def sizes_of(node: Any, names: Sequence[str], prefix: str = "model") -> dict[str, int]:
    """Dotted key -> whole number of the keys of these names, in a node of the config and in those below it."""
    if not isinstance(node, DictConfig):
        return {}
    found: dict[str, int] = {}
    for name in map(str, node):
        value = OmegaConf.select(node, name)
        if name in names and isinstance(value, int):
            found[f"{prefix}.{name}"] = value
        found |= sizes_of(value, names, f"{prefix}.{name}")
    return found


def naive_rows(cfg: DictConfig, data: RecordDataModule, process: DistributedContext) -> list[dict[str, Any]]:
    """The naive representation of the same graph and perturbations, measured in one process by ``cfg.profile.naive``.

    Where it cannot be measured a line says why, and there are no rows.
    """
    path = conf_dir().parent / cfg.profile.naive
    sizes = {key.rpartition(".")[2]: size for key, size in sizes_of(cfg.model, ("layers", "dim")).items()}
    dim, layers = sizes.get("dim"), sizes.get("layers")
    missing = [
        (not path.is_file(), f"there is no file {path}"),
        (data.graph is None, "the data has no graph"),
        (dim is None or layers is None, "the model has no keys dim and layers"),
    ]
    why = next((reason for is_missing, reason in missing if is_missing), None)
    if why is not None:
        Console().print(f"the naive representation is left out: {why}", soft_wrap=True, highlight=False)
        return []
    graph = data.graph
    assert graph is not None
    batch = data.packed[torch.from_numpy(data.split.index("train")[:256])]
    sets = [batch.gene[first:last] for first, last in zip(batch.ptr[:-1], batch.ptr[1:], strict=True)]
    values = _measure_of(path)(graph, sets, dim, layers, float(cfg.profile.max_seconds), process.device)
    edges = sum(len(graph.csr(relation).indices) for relation in graph.relations)
    return [
        {
            "representation": NAIVE,
            "phase": phase,
            "samples_per_s": values[phase],
            "ms_per_step": 1e3 * values["batch_size"] / values[phase],
            "bytes_per_batch": values["bytes_per_batch"],
            "peak_mb": values[f"{phase}: peak_mb"],
            "busy_ms": None,
            "tensors_mb": None,
            "nodes_per_sample": graph.n_nodes,
            "edges_per_sample": edges,
            "relative_to_naive": 1.0,
            "steps": int(values[f"{phase}: steps"]),
            "batch_size": int(values["batch_size"]),
            "processes": 1,
        }
        for phase in PHASES
    ]


def _measure_of(path: Path) -> Callable[..., dict[str, float]]:
    """The function ``measure`` of a file outside the package, which may import its neighbors."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module.measure

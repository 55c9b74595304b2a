"""What the phases of a training step cost: samples a second, milliseconds, bytes and memory.

Each phase contains the one before: ``loader`` slices a batch and puts it on the device, ``forward`` adds the
prediction, ``forward + backward`` the loss terms and the gradients (averaged over the processes), ``full step``
clipping and the optimiser.
"""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import psutil
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from torchcell.data.errors import InputError
from torchcell.datamodules.base import RecordDataModule
from torchcell.models.base import Model
from torchcell.run.assemble import PRECISIONS
from torchcell.run.processes import Process
from torchcell.run.tensor_memory import tensor_megabytes

PHASES = ("loader", "forward", "forward + backward", "full step")


class Objective(nn.Module):
    """The weighted sum of a model's loss terms, as its training step takes it but without a log.

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
        terms = self.model.losses(batch, self.model(batch))
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
        self, cfg: DictConfig, data: RecordDataModule, process: Process, batch_size: int | None = None
    ) -> None:
        torch.manual_seed(cfg.seed)
        self.model: Model = instantiate(cfg.model, _partial_=True)(spec=data.spec).to(process.device)
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
        """What ``phase`` does with a batch that has been loaded."""
        if phase == "loader":
            return
        autocast = self.dtype is not None
        with torch.autocast(self.device.type, self.dtype) if autocast else contextlib.nullcontext():
            if phase == "forward":
                self.model(batch)
                return
            loss = self.objective(batch)
        loss.backward()
        if phase == "full step":
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
        self.optimizer.zero_grad()

    def batch_facts(self) -> dict[str, float | None]:
        """Samples and bytes of the first batch; mean nodes and edges a sample where the model can tell them."""
        batch = next(self.batches())
        facts: dict[str, float | None] = {"batch_size": len(batch), "bytes_per_batch": batch.nbytes}
        tell: Callable[[Any], tuple[float, float]] | None = getattr(self.model, "sample_size", None)
        with torch.no_grad():
            nodes, edges = (None, None) if tell is None else tell(batch)
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


def measure(subject: Subject, phase: str, plan: Plan, process: Process) -> dict[str, float]:
    """Run one phase in all processes.

    Returns:
        ``samples_per_s``, the sum over the processes; ``ms_per_step``, their mean; ``busy_ms``, the processor's part of
        it on a CPU, where others share it, for as many samples as the first batch has; ``peak_mb`` of the process that
        needs most, see ``PeakMemory``; likewise ``tensors_mb`` of a step on the first batch, itself and what is held
        beside it, see ``tensor_megabytes``; ``steps`` that were timed.
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
    each = process.gather(samples, seconds, memory.megabytes, tensors, busy * len(first) / samples)
    return {
        "samples_per_s": float((each[:, 0] / each[:, 1]).sum()),
        "ms_per_step": 1e3 * float(each[:, 1].mean()) / steps,
        "busy_ms": 1e3 * float(each[:, 4].mean()),
        "peak_mb": float(each[:, 2].max()),
        "tensors_mb": float(each[:, 3].max()),
        "steps": steps,
    }


def _warm_up(step: Callable[[], int], plan: Plan, process: Process) -> int:
    """Take the untimed steps, for half of ``max_seconds`` at most; the number of timed ones, the same everywhere."""
    taken: list[float] = []
    while len(taken) < plan.warmup and sum(taken) < plan.max_seconds / 2:
        start = clock(process.device)
        step()
        # The slowest counts: a process that stopped earlier would leave the others waiting for its gradients.
        taken.append(float(process.gather(clock(process.device) - start).max()))
    return max(1, min(plan.steps, int(plan.max_seconds / statistics.median(taken))))


def clock(device: torch.device) -> float:
    """Seconds, after all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class PeakMemory:
    """Peak memory of a block, ``megabytes`` after its end (1e6 bytes).

    On a GPU the most that tensors held at once, the model and the graph too. On a CPU how far this process's resident
    set rose above its level at the start, looked at every 5 ms: a lower bound, blind to shorter peaks and to memory
    that the process had been given before and not returned.
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
    """Ask the C library to hand back what is free, where it can: else one phase hides the need of the next."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

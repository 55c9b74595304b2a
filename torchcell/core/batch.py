"""Batches, the order in which they are drawn, and rows that several samples share."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_BATCH = 1024
"""Most samples of a training batch where the data choose its size."""
CHUNK = 16_384
"""Samples that are gathered at once; their batches are views. More would leave the processor's cache."""


EVALUATION_ONLY = {"evaluation_only": True}
"""Metadata of a batch's field that losses and scores read and no ``forward`` may: ``Batch.blind`` drops it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples; a subclass adds its inputs, and nothing that all samples share.

    Inputs are tensors, or of a class with ``to`` and ``nbytes`` like theirs. A field that depends on measured values of
    the samples is declared as ``EVALUATION_ONLY``; it is a tensor of floats, or of a class with ``blank``.

    Attributes:
        target: Measured values in their own units, float32 [B, T]; NaN is missing.
        sample: Positions in the datamodule's sample ids, int64 [B].
        prior: Prediction of a prior in the target's units, NaN where it has none, then its columns where a network
            reads them, float32 [B, T + F]; none: the model has no prior.
        lists: Predictions that are compared with each other, as positions in the flattened ones [B, T]: the true one
            first, then others, then -1 where a list is shorter, int64 [L, 1 + K]; none: there are no lists.
    """

    target: Tensor = field(metadata=EVALUATION_ONLY)
    sample: Tensor
    prior: Tensor | None = field(default=None, kw_only=True)
    lists: Tensor | None = field(default=None, kw_only=True)

    def _present(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def __len__(self) -> int:
        return len(self.sample)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return type(self)(
            **{name: value.to(device, non_blocking=non_blocking) for name, value in self._present().items()}
        )

    def narrow(self, start: int, stop: int) -> Self:
        """Samples ``start`` to ``stop`` as views; a batch whose tensors are not a row a sample overrides it."""
        return type(self)(**{name: value[start:stop] for name, value in self._present().items()})

    def blind(self) -> Self:
        """The same inputs, with NaN in the fields that are for losses and scores only. ``forward`` never gets more."""
        hidden = [f.name for f in fields(self) if f.metadata.get("evaluation_only")]
        return replace(self, **{name: _blank(getattr(self, name)) for name in hidden})

    @property
    def input_controls(self) -> Mapping[str, Tensor]:
        """Controls that predicted changes are taken from in training, name -> [B, T]; empty for scalar phenotypes."""
        return {}

    @property
    def eval_controls(self) -> Mapping[str, Tensor]:
        """Controls that measured changes are taken from, name -> [B, T]; by default the same."""
        return self.input_controls

    @property
    def nbytes(self) -> int:
        """Bytes that the batch carries."""
        return sum(value.nbytes for value in self._present().values())


def _blank(value: Any) -> Any:
    """A value of the same shape, all NaN."""
    if not isinstance(value, Tensor):
        return value.blank()
    return torch.full((), torch.nan, dtype=value.dtype, device=value.device).expand(value.shape)


class Packed(Protocol):
    """All samples of a record as tensors: indexing with an int64 tensor gathers a batch.

    Where samples are large, ``gathered_at_once`` says how many may be gathered beyond a batch; else ``CHUNK``. Where
    they are on disk, ``read_ahead`` is true, and the next ones are gathered in a thread.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Any: ...


class BatchOrder:
    """The samples of this process in the order they are drawn; a pure function of seed and epoch.

    The order is cut into stretches, and each of ``world`` processes gets every ``world``-th of them. With ``pad`` all
    processes get equally many: the first stretches come again to fill the last round, and a test pass drops the copies.

    Args:
        index: Samples to draw from, int64 [n].
        shuffle: Whether to permute the samples anew each epoch.
        seed: Of the permutation.
        rank: Number of this process.
        world: Number of processes.
        pad: Whether all processes take equally many steps. They must where gradients or tables are gathered. Streaming
            metrics are exact only without.
        stretch: Samples that stay together. With the size of a batch every batch is the same as on one process, and
            predictions differ only by rounding. With 1 the samples are spread most evenly.
    """

    def __init__(
        self,
        index: Tensor,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        pad: bool = True,
        stretch: int = 1,
    ) -> None:
        self.index, self.shuffle, self.seed, self.rank, self.world = index, shuffle, seed, rank, world
        self.stretch, self.n_stretches = stretch, -(-len(index) // stretch)
        self.pad = pad or self.n_stretches < world  # a process without samples would not join the collective calls
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        stretches = self._stretches()
        n_missing = self.n_stretches * self.stretch - len(self.index)  # in the last stretch
        return len(stretches) * self.stretch - n_missing * int((stretches == self.n_stretches - 1).sum())

    def _stretches(self) -> Tensor:
        """Numbers of this process's stretches; the last round may wrap around to the first ones."""
        n_slots = -(-self.n_stretches // self.world) * self.world if self.pad else self.n_stretches
        return torch.arange(self.rank, n_slots, self.world) % max(self.n_stretches, 1)

    def permuted(self, generator: torch.Generator) -> Tensor:
        """Positions in ``index`` in a random order."""
        return torch.randperm(len(self.index), generator=generator)

    def draw(self) -> Tensor:
        """This process's samples of the epoch, int64 [len(self)]."""
        index = self.index
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            index = index.index_select(0, self.permuted(generator))
        if self.world > 1:
            position = (self._stretches()[:, None] * self.stretch + torch.arange(self.stretch)).flatten()
            index = index.index_select(0, position[position < len(index)])
        return index


class PackedLoader:
    """Batches of packed samples. Many samples are gathered at once, and the batches are views of them.

    Args:
        packed: All samples.
        order: Which samples to draw, and in what order.
        batch_size: Samples a batch; the last batch may be smaller.
    """

    def __init__(self, packed: Packed, order: BatchOrder, batch_size: int) -> None:
        self.packed, self.batch_size = packed, batch_size
        # The trainer calls ``sampler.set_epoch``, and expects an attribute ``batch_sampler`` too.
        self.sampler, self.batch_sampler = order, None
        self._given, self._skipped = 0, 0

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were given; the trainer calls it when it saves a checkpoint."""
        return {"batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip this many batches of the next epoch: the run saw them before it was stopped."""
        self._skipped = state["batches"]

    def __iter__(self) -> Iterator[Any]:
        self._given, self._skipped = self._skipped, 0
        remaining = self.sampler.draw()[self._given * self.batch_size :]
        at_once = getattr(self.packed, "gathered_at_once", CHUNK)
        chunks = remaining.split(self.batch_size * max(1, at_once // self.batch_size))
        several = (self.packed[chunk] for chunk in chunks)
        for gathered in made_ahead(several) if getattr(self.packed, "read_ahead", False) else several:
            for start in range(0, len(gathered), self.batch_size):
                self._given += 1
                yield gathered.narrow(start, min(start + self.batch_size, len(gathered)))


T = TypeVar("T")


def made_ahead(items: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, made in a thread, so that the next one is ready when one was used.

    What making one raises, is raised here. The thread ends with the iteration, also with one that is left early.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(1)
    over = threading.Event()

    def give(is_last: bool, item: Any) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                ready.put((is_last, item), timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                give(False, item)
                if over.is_set():
                    return
            give(True, None)
        except BaseException as error:
            give(True, error)

    thread = threading.Thread(target=work, name="torchcell-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_last, item = ready.get()
            if is_last and item is not None:
                raise item
            if is_last:
                return
            yield item
    finally:
        over.set()
        thread.join()


@dataclass(frozen=True, eq=False)
class SharedRows:
    """For each of B samples a row of a table. Rows are copied only when they are used.

    Attributes:
        table: R rows over G genes [R, G].
        row: Row of each sample, int64 [B].
    """

    table: Float[Tensor, "R G"]
    row: Int[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def nbytes(self) -> int:
        """Bytes that go to another device: positions, and each row once."""
        return self.row.nbytes + len(self.row.unique()) * self.table[0].nbytes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The rows on another device, each of them once."""
        target, current = torch.device(device), self.table.device
        if target.type == current.type and target.index in (None, current.index):
            return self
        distinct, row = self.row.unique(return_inverse=True)
        table = self.table.index_select(0, distinct)
        return type(self)(table.to(device, non_blocking=non_blocking), row.to(device, non_blocking=non_blocking))

    def narrow(self, start: int, stop: int) -> Self:
        """Samples ``start`` to ``stop``, a view."""
        return replace(self, row=self.row[start:stop])

    def rows(self) -> Float[Tensor, "B G"]:
        """Each sample's row."""
        return self.table.index_select(0, self.row)

    def blank(self) -> Self:
        """The same with rows of NaN."""
        nan = torch.full((), torch.nan, dtype=self.table.dtype, device=self.table.device)
        return replace(self, table=nan.expand(1, self.table.shape[1]), row=torch.zeros_like(self.row))

"""Batches, the order they are drawn in, and rows that several samples share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

LARGEST_BATCH = 1024
"""Samples of a training batch that data choose where nobody says how large, at most."""
CHUNK = 16_384
"""Samples that are gathered at once, their batches then being views; more would leave the processor's cache."""


EVALUATION_ONLY = {"evaluation_only": True}
"""Metadata of a batch's field that losses and scores read and no ``forward`` may: ``Batch.blind`` drops it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples; a subclass adds its inputs, and nothing that all samples share.

    Inputs are tensors, or of a class that has ``to`` and ``nbytes`` as they have. What tells of the truth is declared
    as ``EVALUATION_ONLY``; it is a tensor of floats, or of a class that has ``blank``.

    Attributes:
        target: Measured values in their own units, float32 [B, T]; NaN is missing.
        sample: Positions in the datamodule's sample ids, int64 [B].
        prior: What a prior predicts of them, in the target's units, float32 [B, T], NaN where it has nothing to say;
            none: the model has no prior.
    """

    target: Tensor = field(metadata=EVALUATION_ONLY)
    sample: Tensor
    prior: Tensor | None = field(default=None, kw_only=True)

    def _held(self) -> dict[str, Any]:
        """The fields that hold something."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in held.items() if value is not None}

    def __len__(self) -> int:
        return len(self.sample)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on another device."""
        return type(self)(**{name: one.to(device, non_blocking=non_blocking) for name, one in self._held().items()})

    def narrow(self, start: int, stop: int) -> Self:
        """Samples ``start`` to ``stop`` as views; a batch whose tensors are not a row a sample overrides it."""
        return type(self)(**{name: one[start:stop] for name, one in self._held().items()})

    def blind(self) -> Self:
        """The same inputs without what is for losses and scores alone: all that ``forward`` is ever given."""
        hidden = [one.name for one in fields(self) if one.metadata.get("evaluation_only")]
        return replace(self, **{name: _blank(getattr(self, name)) for name in hidden})

    @property
    def input_controls(self) -> Mapping[str, Tensor]:
        """What predicted changes are taken from in training, name -> [B, T]; nothing for scalar phenotypes."""
        return {}

    @property
    def eval_controls(self) -> Mapping[str, Tensor]:
        """What measured changes are taken from, where that is not what predicted ones are taken from."""
        return self.input_controls

    @property
    def nbytes(self) -> int:
        """Bytes that the batch carries."""
        return sum(one.nbytes for one in self._held().values())


def _blank(value: Any) -> Any:
    """A value of the same shape that says nothing: NaN throughout."""
    if not isinstance(value, Tensor):
        return value.blank()
    return torch.full((), torch.nan, dtype=value.dtype, device=value.device).expand(value.shape)


class Packed(Protocol):
    """All samples of a record as tensors: indexing with an int64 tensor gathers a batch.

    Where samples are large, ``gathered_at_once`` says how many may be gathered beyond a batch; else ``CHUNK``.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Any: ...


class BatchOrder:
    """Which samples come in which order on this process; a pure function of seed and epoch.

    The order is cut into stretches, and each of ``world`` processes gets every ``world``-th of them. With ``pad`` each
    gets as many as any other; those that fill up the last round come twice, and a test pass drops them by number.

    Args:
        index: Samples to draw from, int64 [n].
        shuffle: Whether to permute anew each epoch.
        seed: Of the permutation.
        rank: This process.
        world: Number of processes.
        pad: Whether all processes must take equally many steps, as they must where gradients or tables are
            gathered. Streaming metrics are exact only without.
        stretch: Samples that stay together. A batch's size deals whole batches: those of one process, whose predictions
            differ by nothing but what other numbers of threads round otherwise. One shares most evenly.
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
        self.pad = pad or self.n_stretches < world  # a process without any sample would never meet the others
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        mine = self._mine()
        n_missing = self.n_stretches * self.stretch - len(self.index)  # in the last stretch
        return len(mine) * self.stretch - n_missing * int((mine == self.n_stretches - 1).sum())

    def _mine(self) -> Tensor:
        """Numbers of this process's stretches; only the last round can wrap around to the first ones."""
        n_slots = -(-self.n_stretches // self.world) * self.world if self.pad else self.n_stretches
        return torch.arange(self.rank, n_slots, self.world) % max(self.n_stretches, 1)

    def draw(self) -> Tensor:
        """This process's samples of the epoch, int64 [len(self)]."""
        index = self.index
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            index = index.index_select(0, torch.randperm(len(index), generator=generator))
        if self.world > 1:
            place = (self._mine()[:, None] * self.stretch + torch.arange(self.stretch)).flatten()
            index = index.index_select(0, place[place < len(index)])
        return index


class PackedLoader:
    """Batches of packed samples: a stretch of the order is gathered at once, its batches are views of it.

    Args:
        packed: All samples.
        order: Which of them, in what order.
        batch_size: Samples a batch; the last may be smaller.
    """

    def __init__(self, packed: Packed, order: BatchOrder, batch_size: int) -> None:
        self.packed, self.batch_size = packed, batch_size
        # The trainer looks for ``set_epoch`` under the first name and expects to find the second beside it.
        self.sampler, self.batch_sampler = order, None
        self._given, self._skipped = 0, 0

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def state_dict(self) -> dict[str, int]:
        """How many batches of this epoch were given; the trainer asks for it when it saves."""
        return {"batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch after as many batches, which a run saw before it was stopped."""
        self._skipped = state["batches"]

    def __iter__(self) -> Iterator[Any]:
        self._given, self._skipped = self._skipped, 0
        left = self.sampler.draw()[self._given * self.batch_size :]
        at_once = getattr(self.packed, "gathered_at_once", CHUNK)
        for chunk in left.split(self.batch_size * max(1, at_once // self.batch_size)):
            gathered = self.packed[chunk]
            for start in range(0, len(chunk), self.batch_size):
                self._given += 1
                yield gathered.narrow(start, min(start + self.batch_size, len(chunk)))


@dataclass(frozen=True, eq=False)
class SharedRows:
    """For each of B samples a row of a table; nothing is copied before it is read.

    Attributes:
        table: R rows over G genes [R, G].
        row: Of each sample, int64 [B].
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
        asked, here = torch.device(device), self.table.device
        if asked.type == here.type and asked.index in (None, here.index):
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
        """Rows of NaN in their place."""
        nothing = torch.full((), torch.nan, dtype=self.table.dtype, device=self.table.device)
        return replace(self, table=nothing.expand(1, self.table.shape[1]), row=torch.zeros_like(self.row))

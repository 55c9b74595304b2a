"""A trained model's predictions for a part of its split, and for the same samples with their inputs shuffled."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import lightning
import numpy as np
import torch

from torchcell.core.batch import BatchOrder, PackedLoader
from torchcell.core.datamodule import RecordDataModule
from torchcell.core.model import Model
from torchcell.core.predictor import Predictor
from torchcell.core.prior import Prior
from torchcell.core.spec import Spec
from torchcell.io.errors import InputError, some
from torchcell.io.progress import track

SHUFFLES, ENOUGH = 5, 20_000
"""Times that the input which the split holds out is shuffled, and predictions from which on fewer do: its use is the
mean over them, and a pass over many samples tells as much as several over few."""


def predict_part(
    trainer: lightning.Trainer, model: Model, datamodule: RecordDataModule, part: str, packed: Any = None
) -> np.ndarray:
    """Predictions for exactly the samples of ``part`` [n, T], in the split's order, from all processes."""
    trainer.test(model, dataloaders=datamodule.loader(part, packed=packed, whole=True), verbose=False)
    sample, prediction = model.take_tested()
    expected = torch.from_numpy(datamodule.split.index(part))
    if not torch.equal(sample, expected):
        lacking = set(expected.tolist()) - set(sample.tolist())
        names = datamodule.sample_id[sorted(lacking)]
        raise InputError(f"the pass over {part!r} missed {len(lacking)} of {len(expected)} samples: {some(names)}")
    return prediction.numpy()


def predict_inputs(
    model: Model, datamodule: RecordDataModule, part: str, prediction: np.ndarray, device: torch.device | str
) -> dict[str, np.ndarray]:
    """What is kept of the model's answers to all that is asked of ``part``, by record; to the part itself it has given
    ``prediction`` [n, T].
    """
    kept = {}
    with answering(model, device):  # once for all records: the wild type is encoded once
        for what, make in track(datamodule.evaluation_inputs(part).items(), f"{type(model).__name__}, predict"):
            raw = predict_record(model, datamodule, make(), device) if what else prediction
            kept[what] = datamodule.summarize_prediction(part, what, raw)
    return kept


@contextmanager
def answering(model: Model, device: torch.device | str) -> Iterator[None]:
    """Within the block the model evaluates on ``device``, without gradients; it is as before when this returns."""
    trained, place = model.training, model.device
    model.eval().to(device)
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(trained).to(place)


def predict_record(model: Model, datamodule: RecordDataModule, record: Any, device: torch.device | str) -> np.ndarray:
    """What the model says of ``record``'s samples [n, T], as ``forward`` gives it: log-odds, not probabilities, which
    would tie the surest ones. One process computes it; the model is as before when this returns.
    """
    packed = datamodule.packed_record(record)
    loader = PackedLoader(packed, BatchOrder(torch.arange(len(record)), shuffle=False), datamodule.eval_batch_size)
    found = np.empty((len(record), len(datamodule.spec.outputs)), dtype=np.float32)
    with answering(model, device):
        start = 0
        for batch in loader:
            found[start : start + len(batch)] = model(batch.blind().to(device)).float().cpu().numpy()
            start += len(batch)
    return found


def predict_without_inputs(
    trainer: lightning.Trainer, model: Model, datamodule: RecordDataModule, part: str, seed: int
) -> dict[str, list[np.ndarray]]:
    """Predictions [n, T] with each input shuffled among the part's samples, and with each at one value, by what was
    done. What the split holds out is shuffled several times. An empty list: all samples share the input.

    Beside a prior, ``network_NAME_shuffled`` is what the split holds out, shuffled for the network alone: the prior
    predicts each sample as it is. So it is seen whether the network reads it too.
    """
    generator = torch.Generator().manual_seed(seed)
    index = torch.from_numpy(datamodule.split.index(part))
    found: dict[str, list[np.ndarray]] = {}
    for number, name in enumerate(datamodule.inputs()):
        n_draws = 1 if number else max(1, min(SHUFFLES, ENOUGH // len(index)))
        draws = [datamodule.shuffled(name, index, generator) for _ in range(n_draws)]
        every = {f"{name}_shuffled": draws, f"{name}_constant": [datamodule.constant(name, index)]}
        if model.has_prior and not model.is_prior_alone and not number:
            n_outputs = len(datamodule.spec.outputs)
            every[f"network_{name}_shuffled"] = [_prior_stays(one, datamodule.packed, n_outputs) for one in draws]
        for key, packed in every.items():
            given = [one for one in packed if one is not None]
            predicted = [predict_part(trainer, model, datamodule, part, one) for one in given]
            moved = [getattr(one, "moved", None) for one in given]
            found[key] = [
                value if away is None else value - away[index].numpy()
                for value, away in zip(predicted, moved, strict=True)
            ]
    return found


def _prior_stays(shuffled: Any, packed: Any, n_outputs: int) -> Any:
    """Shuffled samples with the unshuffled ones' prior, but not its columns, which the network reads; where the shuffle
    moves a sample's level, the prior moves along.
    """
    if shuffled is None:
        return None
    moved = getattr(shuffled, "moved", None)
    stays = copy.copy(shuffled)
    said = packed.prior[:, :n_outputs]
    stays.prior = torch.cat([said if moved is None else said + moved, shuffled.prior[:, n_outputs:]], dim=1)
    return stays


class TrainedModel(Predictor):
    """A trained model as a predictor of records: packed as its datamodule packs them, beside its prior.

    Args:
        model: With its weights; it goes to the GPU where there is one.
        spec: Its inputs and outputs; its genes may have been added to.
        representation: The datamodule's class, which knows how to pack a record.
        prior: The model's, if it has one.
        batch_size: Samples at once; none: the representation's.
        look: Called with each batch that was predicted, e.g. for the genes that the model looked at.
    """

    name = "model"

    def __init__(
        self,
        model: Model,
        spec: Spec,
        representation: type[RecordDataModule],
        prior: Prior | None = None,
        batch_size: int | None = None,
        look: Callable[[Any], None] | None = None,
    ) -> None:
        self.model, self.spec, self.representation, self.prior = model, spec, representation, prior
        self.batch_size, self.look = batch_size or representation.request_batch, look

    def fit(self, train: Any, val: Any, graph: Any) -> Self:
        """Not here: a model is fitted by ``torchcell.train``, with its loaders, callbacks and run folder."""
        raise InputError("a trained model is not fitted again; train one by python -m torchcell.train")

    def predict(self, record: Any) -> np.ndarray:
        """Predictions [n, T] as tables show them, probabilities for a binary target."""
        packed: Any = self.representation.pack(record, self.spec)
        if self.prior is not None:
            packed.prior = self.prior.predict(record)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loader = PackedLoader(packed, BatchOrder(torch.arange(len(record)), shuffle=False), self.batch_size)
        parts = []
        with answering(self.model, device), torch.inference_mode():
            for batch in track(loader, "predict"):
                here = batch.to(device)
                parts.append(self.model.predict_step(here)[1].cpu())
                if self.look is not None:
                    self.look(here)
        return np.asarray(torch.cat(parts).numpy())

    def state_dict(self) -> dict[str, Any]:
        """The weights, as arrays."""
        return {name: value.cpu().numpy() for name, value in self.model.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Any], graph: Any = None) -> Self:
        """See ``Predictor``."""
        self.model.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()})
        return self

"""``Model``: the base of all models. It trains on loss terms, scores validation, and keeps test predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import lightning
import torch
from torch import Tensor, distributed, nn

from torchcell.core.spec import Spec
from torchcell.evaluation.registry import metric_set, streaming_metrics
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.nn.losses import log_cosh
from torchcell.nn.mixing import StackingWeights

if TYPE_CHECKING:
    import pandas as pd


def means(sums: Mapping[str, Tensor], counts: Mapping[str, int], device: torch.device, world: int) -> dict[str, Tensor]:
    """Sum over count by name, in one exchange.

    Args:
        sums: By name; a process may lack a name that others have, e.g. of a measure that its batches could not give.
        counts: What each was summed over.
        device: Of the exchange.
        world: Number of processes; all call this.

    Returns:
        The same values in all processes.
    """
    if world == 1:
        return {name: value / counts[name] for name, value in sums.items()}
    every: list[list[str]] = [[] for _ in range(world)]
    distributed.all_gather_object(every, list(sums))
    names = sorted({name for one in every for name in one})
    if not names:
        return {}
    both = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    for at, name in enumerate(names):
        if name in sums:
            both[0, at], both[1, at] = sums[name].double(), counts[name]
    distributed.all_reduce(both)
    return {name: value.float() for name, value in zip(names, both[0] / both[1], strict=True)}


BARE = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)
"""Modules none of whose parameters decay."""


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups for an optimizer: weights that decay, and embeddings, norms and biases that never do."""
    decayed: list[Tensor] = []
    kept: list[Tensor] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            keep = isinstance(module, BARE) or parameter.ndim < 2 or "embedding" in name or "bias" in name
            (kept if keep else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


LossWeights = Mapping[str, float] | Callable[[int, int], Mapping[str, float]]
"""Fixed weights by term, or a pure function of (epoch, max_epochs) that gives them."""


@configurable(subclasses=True)
class Model(lightning.LightningModule):
    """Base of all models. A subclass gives ``forward`` and, if it has more than one term, ``losses``.

    Args:
        spec: Inputs and outputs, from the datamodule or a checkpoint.
        optimizer: Partial of a torch optimizer: parameter groups -> optimizer.
        scheduler: Partial of a torch scheduler, stepped once an epoch; none keeps the rate.
        loss_weights: Weight of each term that ``losses`` names; a term not named weighs 1.
    """

    reads: ClassVar[type[Spec]] = Spec
    """The spec that the model takes: its task's, e.g. ``ScreenSpec``. It says which data a class of models is for."""

    reads_hops: bool = False
    """Whether the model sees a part of the graph where the data asks for it; see ``ScreenSpec.hops``."""

    adds_genes: bool = False
    """Whether genes can be added to a trained model by their features; see ``Spec.with_added``."""

    reads_names: bool = True
    """Whether weights belong to genes by name; without, they may go on with another cell that has the same features."""

    reads_levels: bool = False  # of perturbed genes: doses and expression levels

    refitted: tuple[str, ...] = ()
    """Beginnings of the state's names that ``on_fit_start`` makes anew, of sizes that go with the training part."""

    headline: tuple[str, ...] = ()
    """Metrics whose mean is ``val/score``, see ``ScoreName``; by default AUROC of a binary task, else Pearson."""

    memory_options: Mapping[str, Any] = {}
    """Keys of the model's config whose value may save memory in training, and the plain value that saves none."""

    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly; set from the trainer's config."""

    def __init__(
        self,
        spec: Spec,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        loss_weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        spec.check_model(type(self))
        self.spec, self.graph = spec, spec.graph
        self.center: Tensor
        self.scale: Tensor
        self.register_buffer("center", spec.center, persistent=False)
        self.register_buffer("scale", spec.scale, persistent=False)
        self.optimizer, self.scheduler, self.loss_weights = optimizer, scheduler, loss_weights
        self.train_metrics, self.val_metrics = (streaming_metrics(spec.task, spec.outputs) for _ in range(2))
        self.stacking: StackingWeights | None = None
        self.prior_is_off = False
        self.checkpoint_extra: dict[str, Any] = {}
        self._base_seed: int | None = None
        self._sums: dict[str, Tensor] = {}
        self._count: dict[str, int] = {}
        self._tested: list[tuple[Tensor, Tensor]] = []
        self.step_terms: dict[str, Tensor] = {}
        self.step_facts: dict[str, Any] = {}

    # What a model decides --------------------------------------------------------------------------

    def forward(self, batch: Any) -> Tensor:
        """The prediction [B, T] in the target's units; log-odds for a binary target.

        The batch is always blind, see ``Batch.blind``: what is for losses and scores alone is not in it.
        """
        raise NotImplementedError("a model must define forward")

    def losses(self, batch: Any, prediction: Tensor) -> dict[str, Tensor]:
        """Named scalar terms of the objective, unweighted."""
        return {"phenotype": self.phenotype_loss(prediction, batch.target)}

    def diagnostics(self, batch: Any) -> dict[str, Tensor]:
        """Measures of the model's insides on one batch, logged after each epoch as ``val_sample/<name>``."""
        return {}

    def held_out_scores(self) -> dict[str, Tensor]:
        """Further values of the validation part once all of it is seen; ``ScoreName``s may count for ``val/score``."""
        return {}

    def set_embeddings(self, batch: Any) -> dict[str, Tensor]:
        """What the model makes of each sample before it is read out, name -> [B, D]; the first is drawn in maps."""
        return {}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """What the model makes of each gene of ``spec.genes`` in the wild type, name -> [N, D]."""
        return {}

    def cell_embeddings(self) -> dict[str, Tensor]:
        """What the model makes of the wild type as a whole, name -> [D]."""
        return {}

    def node_embeddings(self) -> Tensor | None:
        """What the model makes of each node of its knowledge graph [N, D], in the order of the spec's; or nothing."""
        return None

    def attended(self, batch: Any) -> Tensor | None:
        """How much each sample looks at each gene [B, N], rows adding up to 1; None from a model that cannot tell."""
        return None

    def active_outputs(self) -> Tensor | None:
        """Outputs that the weights were trained on, a mask [T], the others being held constant; none: all of them."""
        return None

    def collapses(self) -> list[str]:
        """What within the model has collapsed, in words, e.g. a mixture whose one expert does all."""
        return []

    def report_sections(self, history: pd.DataFrame | None) -> list[Any]:
        """What the model adds to the report, ``torchcell.report.sections.Section``s; the history has a row an epoch."""
        return []

    # A prior beside the network --------------------------------------------------------------------

    def take_prior(self, mean: Tensor | None = None) -> None:
        """From now on ``forward`` is what the prior leaves; a call adds both, see ``StackingWeights``.

        Args:
            mean: Mean of the training targets [T], from which the prior's predictions are taken; none: as loaded.
        """
        self.stacking = StackingWeights()
        self.register_buffer("prior_mean", torch.zeros_like(self.center) if mean is None else mean.to(self.center))

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """``forward``, and with it what the prior of the batch predicts. While training both count in full."""
        network_BT = super().__call__(batch, *args, **kwargs)
        if self.stacking is None:
            return network_BT
        if batch.prior is None:
            raise InputError(f"{type(self).__name__} was trained beside a prior, whose predictions the batch lacks")
        prior_BT = torch.zeros_like(batch.prior) if self.prior_is_off else batch.prior
        both_BT = network_BT + prior_BT if self.training else self.stacking(network_BT, prior_BT)
        self._parts = network_BT, prior_BT
        return self.get_buffer("prior_mean") + both_BT

    @contextmanager
    def without_prior(self) -> Iterator[None]:
        """Within the block a call gives the network's part alone."""
        self.prior_is_off = True
        try:
            yield
        finally:
            self.prior_is_off = False

    # What is the same for all ----------------------------------------------------------------------

    def phenotype_loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean over the measured values: log-cosh of the standardized residual, or BCE on log-odds.

        Args:
            prediction: [B, T], the target's units or log-odds.
            target: [B, T], NaN where missing.
        """
        measured = ~torch.isnan(target)
        safe = torch.where(measured, target, torch.zeros_like(target))
        if metric_set(self.spec.task).labels:
            loss = nn.functional.binary_cross_entropy_with_logits(prediction, safe, reduction="none")
        else:
            loss = log_cosh((prediction - safe) / self.scale)
        return (loss * measured).sum() / measured.sum().clamp(min=1)

    def tabulate(self, prediction: Tensor) -> Tensor:
        """The prediction as tables show it: probabilities for a binary target."""
        return prediction.sigmoid() if metric_set(self.spec.task).labels else prediction

    def term_weights(self) -> Mapping[str, float]:
        """The weights of this epoch."""
        if callable(self.loss_weights):
            return self.loss_weights(self.current_epoch, self.trainer.max_epochs or 1)
        return self.loss_weights or {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Weighted sum of the terms; sums for the epoch's log stay on the device."""
        prediction = self(batch.blind())
        weighted = self._weigh(self.losses(batch, prediction))
        total = torch.stack(list(weighted.values())).sum()
        self.step_terms = {name: term.detach() for name, term in weighted.items()}
        self._add("train/loss", total)
        for name, term in weighted.items():
            self._add(f"train/loss/{name}", term)
        self._observe("train", batch, prediction)
        return total

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The phenotype's loss and the streaming metrics."""
        prediction = self(batch.blind())
        if self.stacking is not None:
            left_BT = batch.target - self.get_buffer("prior_mean")
            self.stacking.observe(*(one / self.scale for one in (*self._parts, left_BT)))
        self._add("val/loss", self.phenotype_loss(prediction, batch.target), int((~torch.isnan(batch.target)).sum()))
        self._observe("val", batch, prediction)
        if batch_idx == 0:
            for name, value in self.diagnostics(batch).items():
                self._add(f"val_sample/{name}", value)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Keep predictions, to be scored once, on the whole set; in full precision, as ``predict`` answers."""
        with torch.autocast(self.device.type, enabled=False):
            self._tested.append((batch.sample, self.tabulate(self(batch.blind()))))

    def predict_step(self, batch: Any, batch_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Sample numbers [B] and predictions as tables show them [B, T]."""
        return batch.sample, self.tabulate(self(batch.blind()))

    def take_tested(self) -> tuple[Tensor, Tensor]:
        """Samples [n] and predictions [n, T] of the last test pass, from all processes, each sample once."""
        sample, prediction = (torch.cat(parts) for parts in zip(*self._tested, strict=True))
        self._tested = []
        if self.trainer.world_size > 1:
            every = [(sample, prediction)] * self.trainer.world_size
            distributed.all_gather_object(every, (sample.cpu(), prediction.cpu()))  # not of one length
            sample, prediction = (torch.cat(parts) for parts in zip(*every, strict=True))
        order = sample.argsort(stable=True)
        sample, prediction = sample[order].cpu(), prediction[order].cpu().float()
        first = torch.ones_like(sample, dtype=torch.bool)
        first[1:] = sample[1:] != sample[:-1]
        return sample[first], prediction[first]

    def on_train_epoch_start(self) -> None:
        """Make the epoch's random draws a function of seed, epoch and process: a resumed run is equal."""
        if self._base_seed is None:
            self._base_seed = torch.initial_seed()
        torch.manual_seed((self._base_seed + 7_919 * (self.current_epoch + 1) + 104_729 * self.global_rank) % 2**63)

    def on_train_epoch_end(self) -> None:
        """Log the epoch: losses, shares of the objective, streaming metrics."""
        mean = self._drain("train/")
        terms = {name: value.abs() for name, value in mean.items() if name.startswith("train/loss/")}
        whole = torch.stack(list(terms.values())).sum().clamp(min=1e-12)
        shares = {name.replace("/loss/", "/share/"): value / whole for name, value in terms.items()}
        named = {f"train/{name}": value for name, value in self._scores("train").items()}
        self.log_dict(mean | shares | named | {"train/lr": self.step_facts["lr"]})
        for one in self.trainer.lr_scheduler_configs:  # here, for the trainer would do it after it has saved the epoch
            if one.reduce_on_plateau:
                one.scheduler.step(self.trainer.callback_metrics[str(one.monitor)])  # type: ignore[arg-type]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step what needs no metric; the others had their step at the epoch's end."""
        if metric is None:
            scheduler.step()

    @property
    def watched(self) -> tuple[str, ...]:
        """Metrics whose mean over outputs is ``val/score``."""
        return self.headline or (("AUROC",) if metric_set(self.spec.task).labels else ("Pearson",))

    def on_validation_epoch_end(self) -> None:
        """Log loss, metrics and their headline ``val/score``, which early stopping watches; weigh network and prior."""
        if self.stacking is not None and self.trainer.sanity_checking:
            self.stacking.product_M.zero_()
        elif self.stacking is not None:
            chosen = self.stacking.choose(lambda sums: self.trainer.strategy.reduce(sums, reduce_op="sum"))
            self.log_dict({f"val/weight/{name}": value for name, value in chosen.items()})
        scores = self._scores("val") | self.held_out_scores()
        headline = [value for name, value in scores.items() if getattr(name, "metric", None) in self.watched]
        # The mean over the outputs where it is defined; where it is nowhere, the worst.
        score = torch.nan_to_num(torch.stack(headline).nanmean(), nan=-1.0)
        named = {f"val/{name}": value for name, value in scores.items()}
        self.log_dict(self._drain("val/") | self._drain("val_sample/") | named)
        self.log("val/score", score, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint describe itself, see ``torchcell.training.checkpoint``."""
        checkpoint.update(self.checkpoint_extra)

    def configure_optimizers(self) -> Any:
        """The configured optimizer, without weight decay on embeddings, norms and biases; with warm-up."""
        if self.optimizer is None:
            raise InputError("the model has no optimizer; set model.optimizer in its config")
        optimizer = self.optimizer(self.parameter_groups())
        schedulers: list[dict[str, Any]] = []
        if self.warmup_steps:
            rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (self.warmup_steps + 1), 1.0, self.warmup_steps)
            schedulers.append({"scheduler": rise, "interval": "step", "name": "warm-up"})
        if self.scheduler is not None:
            schedulers.append({"scheduler": self.scheduler(optimizer), "interval": "epoch", "monitor": "val/score"})
        return [optimizer], schedulers

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: weights that decay, and embeddings, norms and biases that never do."""
        return parameter_groups(self)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm of all gradients; keep that norm and the step's learning rate for the log."""
        largest = gradient_clip_val or float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters(), largest)
        self.step_facts = {"grad_norm": norm.detach(), "lr": float(optimizer.param_groups[0]["lr"])}
        self._add("train/grad_norm", norm)

    def epoch_state(self) -> dict[str, Any]:
        """What this process has summed up for the epoch's log, for a checkpoint within the epoch."""
        return {"sums": self._sums, "count": self._count, "metrics": self.train_metrics.metric_state}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Go on from the sums of ``epoch_state``."""
        self._sums, self._count = dict(state["sums"]), dict(state["count"])
        for name, value in state["metrics"].items():
            setattr(self.train_metrics, name, value)

    def running_terms(self) -> dict[str, float]:
        """Means so far in this epoch, for the progress bar."""
        sums = {name: value for name, value in self._sums.items() if name.startswith("train/loss")}
        return {name.removeprefix("train/"): float(value) / self._count[name] for name, value in sums.items()}

    def _weigh(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = self.term_weights()
        unknown = sorted(set(weights) - set(terms))
        if unknown:
            raise InputError(f"loss_weights names {unknown}, but the model's terms are {sorted(terms)}")
        return {name: weights.get(name, 1.0) * term for name, term in terms.items()}

    def _add(self, name: str, value: Tensor, count: int = 1) -> None:
        value = value.detach() * count
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._count[name] = self._count.get(name, 0) + count

    def _drain(self, prefix: str) -> dict[str, Tensor]:
        sums = {name: self._sums.pop(name) for name in list(self._sums) if name.startswith(prefix)}
        return means(sums, {name: self._count.pop(name) for name in sums}, self.device, self.trainer.world_size)

    def _observe(self, stage: str, batch: Any, prediction: Tensor) -> None:
        metrics = self.train_metrics if stage == "train" else self.val_metrics
        metrics.update(self.tabulate(prediction.detach()), batch.target, batch.input_controls, batch.eval_controls)

    def _scores(self, stage: str) -> dict[str, Tensor]:
        metrics = self.train_metrics if stage == "train" else self.val_metrics
        scores: dict[str, Tensor] = metrics.compute()
        metrics.reset()
        return scores

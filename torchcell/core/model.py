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
from torchcell.evaluation.streaming import ScoreName
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError
from torchcell.nn.losses import list_loss, listed, log_cosh, reciprocal_ranks
from torchcell.nn.mixing import StackingWeights
from torchcell.nn.residual import Residual, ResidualOptions

if TYPE_CHECKING:
    import pandas as pd


def means(sums: Mapping[str, Tensor], counts: Mapping[str, int], device: torch.device, world: int) -> dict[str, Tensor]:
    """Sum over count by name over all processes, in one collective call.

    Args:
        sums: Sums by name; a process may lack a name that others have, e.g. where its batches could not give a value.
        counts: Number of values in each sum.
        device: Device of the collective call.
        world: Number of processes; all must call this.

    Returns:
        The same values in all processes.
    """
    if world == 1:
        return {name: value / counts[name] for name, value in sums.items()}
    gathered: list[list[str]] = [[] for _ in range(world)]
    distributed.all_gather_object(gathered, list(sums))
    names = sorted({name for names in gathered for name in names})
    if not names:
        return {}
    totals = torch.zeros(2, len(names), dtype=torch.float64, device=device)
    for i, name in enumerate(names):
        if name in sums:
            totals[0, i], totals[1, i] = sums[name].double(), counts[name]
    distributed.all_reduce(totals)
    return {name: value.float() for name, value in zip(names, totals[0] / totals[1], strict=True)}


NOT_DECAYED = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)
"""Modules without weight decay."""


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups for an optimizer: weights that decay, and embeddings, norms and biases that never do."""
    decayed: list[Tensor] = []
    not_decayed: list[Tensor] = []
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            exempt = isinstance(module, NOT_DECAYED) or parameter.ndim < 2 or "embedding" in name or "bias" in name
            (not_decayed if exempt else decayed).append(parameter)
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": not_decayed, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


LISTS = ScoreName("lists", "MRR")
"""Mean of 1 / rank over the lists of the validation batches, see ``Batch.lists``."""

LossWeights = Mapping[str, float] | Callable[[int, int], Mapping[str, float]]
"""Fixed weights by term, or a pure function of (epoch, max_epochs) that gives them."""


@configurable(subclasses=True)
class Model(lightning.LightningModule):
    """Base of all models. A subclass gives ``forward`` and, if it has more than one term, ``losses``.

    Args:
        spec: Inputs and outputs, from the datamodule or a checkpoint.
        optimizer: Partial of a torch optimizer: parameter groups -> optimizer.
        scheduler: Partial of a torch scheduler, stepped once an epoch; none: the learning rate stays.
        loss_weights: Weight of each term of ``losses``; a term without one has weight 1.
    """

    reads: ClassVar[type[Spec]] = Spec
    """Class of the spec that the model takes, e.g. ``ScreenSpec``: it says which task the model is for."""

    reads_hops: bool = False
    """Whether the model can use a k-hop neighborhood instead of the whole graph; see ``ScreenSpec.hops``."""

    adds_genes: bool = False
    """Whether genes can be added to a trained model by their features; see ``Spec.with_added``."""

    reads_names: bool = True
    """Whether weights belong to genes by name. If not, they fit another cell with the same features too."""

    reads_levels: bool = False
    """Whether the model uses doses and expression levels of perturbed genes."""

    refitted: tuple[str, ...] = ()
    """Prefixes of state names that ``on_fit_start`` fits anew; their sizes depend on the training part."""

    score_metrics: tuple[str, ...] = ()
    """Metrics whose mean is ``val/score``, see ``ScoreName``; by default AUROC for labels, else Pearson."""

    memory_options: Mapping[str, Any] = {}
    """Keys of the model's config that may save memory in training, with the value that saves none."""

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
        self.column_network: Residual | None = None
        self.has_prior = self.learns_residual = self.prior_is_off = False
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

        The batch is always blind, see ``Batch.blind``: fields that are for losses and scores only are NaN.
        """
        raise NotImplementedError("a model must define forward")

    def losses(self, batch: Any, prediction: Tensor) -> dict[str, Tensor]:
        """Named scalar terms of the objective, unweighted; ``lists`` where the batch has some, see ``Batch.lists``."""
        terms = {"phenotype": self.phenotype_loss(prediction, batch.target)}
        if self.learns_residual and batch.lists is not None:
            terms["lists"] = list_loss(prediction, batch.lists)
        return terms

    def diagnostics(self, batch: Any) -> dict[str, Tensor]:
        """Diagnostic values on one batch, logged after each epoch as ``val_sample/<name>``."""
        return {}

    def held_out_scores(self) -> dict[str, Tensor]:
        """Further scores of the whole validation part; a ``ScoreName`` may count for ``val/score``."""
        return {}

    def set_embeddings(self, batch: Any) -> dict[str, Tensor]:
        """Embedding of each sample before the output layer, name -> [B, D]; the first is drawn in maps."""
        return {}

    def gene_embeddings(self) -> dict[str, Tensor]:
        """Embedding of each gene of ``spec.genes`` in the wild type, name -> [N, D]."""
        return {}

    def cell_embeddings(self) -> dict[str, Tensor]:
        """Embedding of the wild type as a whole, name -> [D]."""
        return {}

    def node_embeddings(self) -> Tensor | None:
        """Embedding of each node of the knowledge graph [N, D], in the order of the spec; or none."""
        return None

    def attended(self, batch: Any) -> Tensor | None:
        """Attention of each sample to each gene [B, N], rows adding up to 1; or none."""
        return None

    def active_outputs(self) -> Tensor | None:
        """Outputs that the weights were trained on, a mask [T]; the others are constant. None: all outputs."""
        return None

    def collapses(self) -> list[str]:
        """A sentence for each part of the model that has collapsed, e.g. a mixture that uses one expert only."""
        return []

    def report_sections(self, history: pd.DataFrame | None) -> list[Any]:
        """Sections that the model adds to the report, see ``torchcell.report.sections``; ``history`` is by epoch."""
        return []

    # A prior beside the network --------------------------------------------------------------------

    def take_prior(self, averaged: bool = False, residual: ResidualOptions | None = None) -> None:
        """From now on a prediction is p + a (f - p + r) + b (q - p): f of ``forward``, r of the ``Residual`` on the
        prior's columns, q of the prior, p the ``starting_point``, a and b the ``StackingWeights``. Outputs that are not
        active stay with ``forward``.

        Args:
            averaged: Whether training goes on without the prior, which then need not be out of fold; else the network
                learns what the prior leaves, both counting in full.
            residual: A network on the prior's columns beside that of ``forward``; none: r is 0.

        A subclass that sets ``stacking`` by itself has its network weighed also without a prior: q - p is then 0.
        """
        self.stacking = self.stacking or StackingWeights(metric_set(self.spec.task).labels)
        self.has_prior, self.learns_residual = True, not averaged
        if residual is not None:
            n_outputs = 1 if self.spec.LISTED else len(self.spec.outputs)  # lists compare one number a sample
            self.column_network = Residual(self.spec.n_columns, n_outputs, residual)

    @property
    def is_prior_alone(self) -> bool:
        """Whether the model is a baseline as it was fitted, with nothing to train; it is then not scored twice."""
        return False

    def starting_point(self, batch: Any) -> Tensor:
        """The prediction without any input, broadcast to [B, T]: the mean of the training targets; for a profile its
        control plus the mean change.
        """
        return self.center

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """``forward``, combined with the prediction of the batch's prior.

        Under DDP Lightning puts a step in the place of ``forward`` for one call; its result is left as it is, since the
        step itself calls the model.
        """
        is_step = getattr(self.forward, "__func__", None) is not type(self).forward
        network_BT = super().__call__(batch, *args, **kwargs)
        if is_step or self.stacking is None or (self.training and not self.learns_residual):
            return network_BT
        if self.has_prior and batch.prior is None:
            raise InputError(f"{type(self).__name__} was trained beside a prior, whose predictions the batch lacks")
        start_BT = self.starting_point(batch)
        network_BT = network_BT - start_BT
        prior_BT = torch.zeros_like(network_BT)
        n_outputs = network_BT.shape[1]
        if self.column_network is not None:
            network_BT = network_BT + self.scale * self.column_network(batch.prior[:, n_outputs:])
        if self.has_prior and not self.prior_is_off:
            said_BT = batch.prior[:, :n_outputs]
            silent_BT = torch.isnan(said_BT)
            if (active_T := self.active_outputs()) is not None:
                silent_BT = silent_BT | ~active_T
            prior_BT = torch.where(silent_BT, 0.0, said_BT - start_BT)
        self._parts = start_BT, network_BT, prior_BT
        return start_BT + (network_BT + prior_BT if self.training else self.stacking(network_BT, prior_BT))

    @contextmanager
    def without_prior(self) -> Iterator[None]:
        """Within the block a call gives the prediction of the network alone."""
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
        """The prediction as tables show it: a probability for a binary target."""
        return prediction.sigmoid() if metric_set(self.spec.task).labels else prediction

    def term_weights(self) -> Mapping[str, float]:
        """Weights of the loss terms in this epoch."""
        if callable(self.loss_weights):
            return self.loss_weights(self.current_epoch, self.trainer.max_epochs or 1)
        return self.loss_weights or {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Weighted sum of the loss terms; sums for the epoch's log stay on the device."""
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
        """Add the loss and the streaming metrics of a batch."""
        prediction = self(batch.blind())
        if self.stacking is not None:
            start_BT, *parts = self._parts
            self.stacking.observe(*(part / self.scale for part in (*parts, batch.target - start_BT)))
            if batch.lists is not None:
                network_LK, prior_LK = (listed(part, batch.lists, 0.0) for part in parts)
                self.stacking.observe_lists(network_LK, prior_LK, batch.lists >= 0)
        self._add("val/loss", self.phenotype_loss(prediction, batch.target), int((~torch.isnan(batch.target)).sum()))
        self._observe("val", batch, prediction)
        if batch.lists is not None and len(batch.lists):
            self._add(f"val/{LISTS}", reciprocal_ranks(prediction, batch.lists).mean(), len(batch.lists))
        if batch_idx == 0:
            for name, value in self.diagnostics(batch).items():
                self._add(f"val_sample/{name}", value)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Keep predictions, to be scored once over the whole part; in full precision, as in ``predict``."""
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
            gathered = [(sample, prediction)] * self.trainer.world_size
            distributed.all_gather_object(gathered, (sample.cpu(), prediction.cpu()))  # lengths may differ
            sample, prediction = (torch.cat(parts) for parts in zip(*gathered, strict=True))
        order = sample.argsort(stable=True)
        sample, prediction = sample[order].cpu(), prediction[order].cpu().float()
        first = torch.ones_like(sample, dtype=torch.bool)
        first[1:] = sample[1:] != sample[:-1]
        return sample[first], prediction[first]

    def on_train_epoch_start(self) -> None:
        """Make random draws a function of seed, epoch and process, so that a resumed run gives equal results."""
        if self._base_seed is None:
            self._base_seed = torch.initial_seed()
        torch.manual_seed((self._base_seed + 7_919 * (self.current_epoch + 1) + 104_729 * self.global_rank) % 2**63)

    def on_train_epoch_end(self) -> None:
        """Log the epoch: losses, their shares of the total, streaming metrics."""
        mean = self._drain("train/")
        terms = {name: value.abs() for name, value in mean.items() if name.startswith("train/loss/")}
        total = torch.stack(list(terms.values())).sum().clamp(min=1e-12)
        shares = {name.replace("/loss/", "/share/"): value / total for name, value in terms.items()}
        scores = {f"train/{name}": value for name, value in self._scores("train").items()}
        self.log_dict(mean | shares | scores | {"train/lr": self.step_facts["lr"]})
        for config in self.trainer.lr_scheduler_configs:  # here: the trainer does it only after it has saved the epoch
            if config.reduce_on_plateau:
                config.scheduler.step(self.trainer.callback_metrics[str(config.monitor)])  # type: ignore[arg-type]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step schedulers without a metric; ``on_train_epoch_end`` steps the others."""
        if metric is None:
            scheduler.step()

    @property
    def watched(self) -> tuple[str, ...]:
        """Metrics whose mean over outputs is ``val/score``."""
        if self.score_metrics:
            return self.score_metrics
        if not metric_set(self.spec.task).labels:
            return ("Pearson",)
        return ("AUROC", LISTS.metric) if self.spec.LISTED and self.has_prior else ("AUROC",)

    def on_validation_epoch_end(self) -> None:
        """Log loss, metrics and ``val/score``, which early stopping watches; fit the stacking weights of a prior."""
        if self.stacking is not None and self.trainer.sanity_checking:
            self.stacking.forget()
        elif self.stacking is not None:
            chosen = self.stacking.choose(lambda sums: self.trainer.strategy.reduce(sums, reduce_op="sum"))
            self.log_dict({f"val/weight/{name}": value for name, value in chosen.items()})
        drained = self._drain("val/")
        listed = {LISTS: drained.pop(f"val/{LISTS}")} if f"val/{LISTS}" in drained else {}
        scores = self._scores("val") | self.held_out_scores() | listed
        watched = [value for name, value in scores.items() if getattr(name, "metric", None) in self.watched]
        # The mean over the outputs with a defined value; the worst score where there is none.
        score = torch.nan_to_num(torch.stack(watched).nanmean(), nan=-1.0)
        named = {f"val/{name}": value for name, value in scores.items()}
        self.log_dict(drained | self._drain("val_sample/") | named)
        self.log("val/score", score, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the entries that describe the checkpoint, see ``torchcell.training.checkpoint``."""
        checkpoint.update(self.checkpoint_extra)

    def configure_optimizers(self) -> Any:
        """The configured optimizer, without weight decay on embeddings, norms and biases; with warm-up."""
        if self.optimizer is None:
            raise InputError("the model has no optimizer; set model.optimizer in its config")
        optimizer = self.optimizer(self.parameter_groups())
        schedulers: list[dict[str, Any]] = []
        if self.warmup_steps:
            warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (self.warmup_steps + 1), 1.0, self.warmup_steps)
            schedulers.append({"scheduler": warmup, "interval": "step", "name": "warm-up"})
        if self.scheduler is not None:
            schedulers.append({"scheduler": self.scheduler(optimizer), "interval": "epoch", "monitor": "val/score"})
        return [optimizer], schedulers

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Two groups: weights that decay, and embeddings, norms and biases that never do."""
        return parameter_groups(self)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip by the norm of all gradients; keep norm and learning rate of the step for the log."""
        largest = gradient_clip_val or float("inf")
        norm = nn.utils.clip_grad_norm_(self.parameters(), largest)
        self.step_facts = {"grad_norm": norm.detach(), "lr": float(optimizer.param_groups[0]["lr"])}
        self._add("train/grad_norm", norm)

    def epoch_state(self) -> dict[str, Any]:
        """Sums of this process for the epoch's log, for a checkpoint within the epoch."""
        return {"sums": self._sums, "count": self._count, "metrics": self.train_metrics.metric_state}

    def load_epoch_state(self, state: Mapping[str, Any]) -> None:
        """Restore the sums of ``epoch_state``."""
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

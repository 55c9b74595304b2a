"""What the base promises every model: decay groups, masked losses, named terms, the first bad batch."""

from __future__ import annotations

import functools
import math

import lightning
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchcell.core.model import Model
from torchcell.evaluation.streaming import ScoreName
from torchcell.io.errors import InputError
from torchcell.screen.datamodule import PerturbationBatch, PerturbationDataModule
from torchcell.training.callbacks import FiniteLoss

RANDOM = {"method": "random", "n_folds": 5, "fold": 0, "seed": 0}


class Additive(Model):
    """Sum over the genes of a learned effect."""

    def __init__(self, spec, lr: float = 0.05, **changes):
        super().__init__(spec, optimizer=functools.partial(torch.optim.AdamW, lr=lr, weight_decay=0.1), **changes)
        self.effect = nn.Embedding(len(spec.genes), 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, len(spec.outputs))

    def forward(self, batch: PerturbationBatch) -> Tensor:
        pooled = torch.zeros(len(batch), 4).index_add(0, batch.owner, self.effect(batch.gene))
        return self.center + self.scale * self.head(self.norm(pooled))


def fit(model: Model, module: PerturbationDataModule, epochs: int = 1, **changes) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **changes,
    )
    trainer.fit(model, module)
    return trainer


@pytest.fixture
def module(pairs) -> PerturbationDataModule:
    return PerturbationDataModule(pairs, RANDOM, batch_size=64)


def test_embeddings_norms_and_biases_never_decay(module):
    model = Additive(module.spec)
    groups = {group.get("weight_decay"): group["params"] for group in model.parameter_groups()}
    assert [id(p) for p in groups[None]] == [id(model.head.weight)]
    kept = {id(p) for p in groups[0.0]}
    assert kept == {id(p) for p in (model.effect.weight, model.norm.weight, model.norm.bias, model.head.bias)}


def test_training_learns_an_additive_phenotype(module):
    trainer = fit(Additive(module.spec), module, epochs=30)
    assert float(trainer.callback_metrics["val/score"]) > 0.9


def test_a_model_says_what_its_score_is_and_may_add_to_it(module):
    """The best epoch is the one of the best score: it must see what the model is for."""

    class Watched(Additive):
        score_metrics = ("Pearson", "Skill")

        def held_out_scores(self):
            skill = {ScoreName("a/Hits", "Skill"): torch.tensor(0.25), ScoreName("b/Skill", "Hits"): torch.tensor(9.0)}
            return skill | {"first_genes/Pearson": torch.tensor(9.0)}  # for the log alone, whatever it ends in

    seen = fit(Watched(module.spec), module, epochs=1).callback_metrics
    pearson = [float(seen[f"val/{output}/Pearson"]) for output in module.spec.outputs]
    assert float(seen["val/score"]) == pytest.approx(sum([*pearson, 0.25]) / (len(pearson) + 1), rel=1e-5)
    assert float(seen["val/b/Skill/Hits"]) == float(seen["val/first_genes/Pearson"]) == 9


def test_a_missing_value_adds_nothing_to_the_loss(module):
    model = Additive(module.spec)
    prediction, target = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [math.nan]])
    assert torch.equal(model.phenotype_loss(prediction, target), model.phenotype_loss(prediction[:1], target[:1]))


def test_a_missing_value_sends_back_no_gradient(module):
    model = Additive(module.spec)
    prediction = torch.tensor([[1.0], [2.0]], requires_grad=True)
    model.phenotype_loss(prediction, torch.tensor([[0.5], [math.nan]])).backward()
    assert prediction.grad is not None
    assert prediction.grad[1] == 0 != prediction.grad[0]


def test_a_weight_for_a_term_that_does_not_exist_is_named(module):
    with pytest.raises(InputError, match=r"loss_weights names \['phenotpye'\].*\['phenotype'\]"):
        fit(Additive(module.spec, loss_weights={"phenotpye": 1.0}), module)


def test_shares_of_the_objective_add_up_and_follow_the_weights(module):
    class TwoTerms(Additive):
        def losses(self, batch, prediction):
            size = self.effect.weight.square().mean()
            return {"phenotype": self.phenotype_loss(prediction, batch.target), "size": size / size.detach()}

    trainer = fit(TwoTerms(module.spec, loss_weights={"size": 1000.0}), module)
    share = {name: float(trainer.callback_metrics[f"train/share/{name}"]) for name in ("phenotype", "size")}
    assert share["size"] > 0.99
    assert sum(share.values()) == pytest.approx(1)


def test_a_loss_that_is_no_number_names_the_samples_of_its_batch(module):
    chosen = module.split.index("train")[7]

    class Spoilt(Additive):
        def losses(self, batch, prediction):
            loss = self.phenotype_loss(prediction, batch.target)
            return {"phenotype": loss * (math.nan if chosen in batch.sample else 1)}

    small = PerturbationDataModule(module.record_whole, RANDOM, batch_size=1)
    with pytest.raises(InputError, match=rf"became nan in epoch 0.*1 samples '{module.sample_id[chosen]}'"):
        fit(Spoilt(module.spec), small, callbacks=[FiniteLoss(every_n_steps=10)])


def test_warm_up_raises_the_rate_and_then_leaves_it(module):
    seen = []

    class Watch(lightning.Callback):
        def on_train_batch_start(self, trainer, *_):
            seen.append(trainer.optimizers[0].param_groups[0]["lr"])

    model = Additive(module.spec, lr=0.1)
    model.warmup_steps = 4
    fit(model, module, epochs=2, callbacks=[Watch()])
    assert seen[:5] == pytest.approx([0.02, 0.036, 0.052, 0.068, 0.084], rel=0.3)
    assert np.diff(seen[:5]).min() > 0
    assert seen[5:] == pytest.approx([0.1] * len(seen[5:]))


def test_the_test_pass_gives_each_sample_once_in_order(module):
    model = Additive(module.spec)
    trainer = fit(model, module)
    trainer.test(model, module, verbose=False)
    sample, prediction = model.take_tested()
    assert sample.tolist() == module.split.index("test").tolist()
    assert prediction.shape == (len(sample), 1)


class Peeking(Additive):
    """Answers with what was measured."""

    def forward(self, batch: PerturbationBatch) -> Tensor:
        return batch.target + 0 * super().forward(batch)


def test_a_model_that_answers_with_the_measured_value_has_nothing_to_answer_with_when_it_is_tested(module):
    """The target stood in the batch of the test pass: to return it was a perfect score. It stands in none any more."""
    model = Peeking(module.spec)
    trainer = fit(model, module)
    trainer.test(model, dataloaders=module.loader("test", whole=True), verbose=False)
    sample, prediction = model.take_tested()
    assert len(sample) == len(module.split.index("test"))
    assert prediction.isnan().all()
    assert model.predict_step(next(iter(module.loader("test"))))[1].isnan().all()

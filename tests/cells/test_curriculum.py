"""Phases by epoch: what is refused, what is pure, and that a run that goes on equals one that never stopped."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from small_cell_sets import cell_batch, cell_spec

from torchcell.cells.batch import CellSetBatch, DenseRows, ragged
from torchcell.cells.curriculum import Curriculum, curriculum_sections
from torchcell.cells.models.gene_set_transformer.attention import EncoderOptions
from torchcell.cells.models.gene_set_transformer.model import GeneSetTransformer
from torchcell.cells.spec import PhaseSources
from torchcell.core.batch import BatchOrder, PackedLoader, SharedRows
from torchcell.io.errors import InputError
from torchcell.training.loggers import History

OUTPUTS = tuple(f"g{i}" for i in range(20))
PHASES = [{"epoch": 0, "genes": 0.2}, {"epoch": 2, "genes": 10}, {"epoch": 5, "genes": None}]


def resolved(phases, order=None, **changes) -> Curriculum:
    curriculum = Curriculum(phases, **changes)
    curriculum.resolve(OUTPUTS, order)
    return curriculum


# Phases ---------------------------------------------------------------------------------------------


def test_genes_are_shares_numbers_names_or_all_in_the_order_of_selection():
    phases = [{"epoch": 0, "genes": ["g3", "g1"]}, {"epoch": 1, "genes": 0.2}, {"epoch": 2, "genes": None}]
    assert [phase.genes for phase in resolved(phases).phases] == [(1, 3), (0, 1, 2, 3), tuple(range(20))]
    order = torch.arange(19, -1, -1)
    assert resolved([{"epoch": 0, "genes": 3}, phases[2]], order).phases[0].genes == (17, 18, 19)
    assert resolved([{"epoch": 0, "genes": 1.0}]).phases[0].genes == tuple(range(20))


@pytest.mark.parametrize(
    ("phases", "said"),
    [
        ([{"epoch": 0, "genes": 10}, {"epoch": 1, "genes": 4}], "phase 1 .* no superset of phase 0: it lacks 6 .*'g4'"),
        ([{"epoch": 0, "genes": ["g9"]}, {"epoch": 1, "genes": 4}], "no superset.*g9"),
        ([{"epoch": 0, "genes": 3}, {"epoch": 1, "genes": 4}], "last phase has 4 of the 20 genes"),
        ([{"epoch": 0, "genes": 21}], "asks for 21 genes of 20"),
        ([{"epoch": 0, "genes": 1.5}], "share above 0"),
        ([{"epoch": 0, "genes": 0}], "asks for 0 genes"),
        ([{"epoch": 0, "genes": ["g1", "g33"]}], "no outputs: 'g33'"),
        ([{"epoch": 0, "genes": []}], "no outputs"),
        ([{"epoch": 1, "genes": 3}], "the first is 0"),
        ([{"epoch": 0, "genes": 3}, {"epoch": 0, "genes": 4}], "each comes later"),
        ([{"epoch": 0}], "needs epoch and genes"),
        ([{"epoch": 0, "genes": 3, "gens": 4}], "needs epoch and genes"),
        ([], "at least one phase"),
    ],
)
def test_phases_that_make_no_sense_are_refused(phases, said):
    with pytest.raises(InputError, match=said):
        resolved(phases)


def test_what_was_spent_counts_genes_and_a_budget_says_when_to_stop():
    curriculum = resolved(PHASES)
    assert [round(curriculum.spent(epochs), 3) for epochs in (0, 1, 2, 3, 5, 6)] == [0, 0.2, 0.4, 0.9, 1.9, 2.9]
    assert curriculum.epochs_within(1.9) == 5
    assert curriculum.epochs_within(2) == 6
    assert resolved([{"epoch": 0, "genes": None}]).epochs_within(6) == 6


def test_a_step_sees_as_many_tokens_in_every_phase():
    curriculum = resolved(PHASES)
    assert [curriculum.accumulated(epoch, 100) for epoch in (0, 1, 2, 5)] == [5, 5, 2, 1]
    assert [curriculum.step_tokens(epoch, 100) for epoch in (0, 2, 5)] == [1, 1, 1]
    assert resolved(PHASES, keep_tokens=False).accumulated(0, 100) == 1


def test_what_is_left_of_an_epoch_makes_no_step_of_a_few_tokens():
    curriculum = resolved(PHASES)
    assert [curriculum.accumulated(0, n) for n in (5, 6, 7, 8, 11)] == [5, 6, 4, 4, 6]
    assert curriculum.step_tokens(0, 6) == pytest.approx(1.2)  # not a step of 5 batches, and one of the last
    assert [curriculum.accumulated(epoch, 29) for epoch in (2, 5)] == [2, 1]


def test_a_step_that_an_epoch_is_too_short_for_has_fewer_tokens_and_is_counted_as_it_is():
    curriculum = resolved(PHASES)
    assert (curriculum.wanted(0), curriculum.accumulated(0, 3)) == (5, 3)
    assert curriculum.step_tokens(0, 3) == pytest.approx(0.6)


def test_a_phase_that_can_not_keep_its_tokens_a_step_says_so_once(tmp_path):
    phases = [{"epoch": 0, "genes": 0.1}, {"epoch": 2, "genes": None}]
    with pytest.warns(
        UserWarning, match="a step takes 10 batches.* an epoch has 7: its steps have 70% of them"
    ) as told:
        history = run(tmp_path, 3, phases=phases)[2]
    assert sum("phase 0 of the curriculum" in str(one.message) for one in told) == 1
    assert not any("phase 1 of the curriculum" in str(one.message) for one in told)
    assert history["curriculum/step_tokens"].tolist() == pytest.approx([0.7, 0.7, 1])


def test_a_model_that_cannot_train_on_a_part_is_refused():
    with pytest.raises(InputError, match="cannot train on a part"):
        Curriculum(PHASES).setup(SimpleNamespace(), SimpleNamespace(), "fit")


def test_the_config_adds_it_to_the_guards():
    from torchcell.training.entry import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        default, ours = (compose("config", [f"callbacks={name}"]).callbacks for name in ("default", "curriculum"))
    assert set(ours) == {*default, "curriculum"}
    curriculum = instantiate(ours.curriculum)
    curriculum.resolve([f"g{i}" for i in range(5000)])
    assert [len(phase.genes) for phase in curriculum.phases] == [100, 1200, 2500, 5000]


# Runs -----------------------------------------------------------------------------------------------


class Sets:
    """A few sets of cells, sliced out of one batch."""

    def __init__(self, spec, n: int) -> None:
        self.batch = cell_batch(spec, n, targets=[[i % 20] for i in range(n)])

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, index: torch.Tensor) -> CellSetBatch:
        b = self.batch
        gene, ptr = ragged([b.gene[i : i + 1] for i in index.tolist()])
        cells = [DenseRows(each.dense()[index]) for each in (b.input_cells, b.perturbed)]
        halves = (SharedRows(each.table, index) for each in (b.input_control, b.eval_control))
        return CellSetBatch(b.target[index], index, *cells, gene, ptr, b.group[index], *halves)


class Data(lightning.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.spec = cell_spec(genes=20, unmeasured=0, features=3)
        self.sets = Sets(self.spec, 20)

    def _loader(self, first: int, last: int, shuffle: bool) -> PackedLoader:
        return PackedLoader(self.sets, BatchOrder(torch.arange(first, last), shuffle), 2)

    def train_dataloader(self) -> PackedLoader:
        return self._loader(0, 14, True)

    def val_dataloader(self) -> PackedLoader:
        return self._loader(14, 20, False)


def run(folder: Path, epochs: int, ckpt: Path | None = None, phases=PHASES, **changes):
    """Fit for ``epochs``; the model, the trainer and the history."""
    torch.manual_seed(0)
    data = Data()
    optimizer = partial(torch.optim.AdamW, lr=3e-3)
    model = GeneSetTransformer(
        data.spec,
        encoder=EncoderOptions(32, 1, 2, dropout=0.1),
        free_drop=0.3,
        distribution=True,
        optimizer=optimizer,
    )
    model._base_seed, model.warmup_steps = 5, 3
    folder.mkdir(exist_ok=True)
    log = History(folder / "history.csv")
    patience = changes.pop("patience", 50)
    callbacks = [
        EarlyStopping("val/score", mode="max", patience=patience, min_delta=changes.pop("min_delta", 0.0)),
        Curriculum(phases, **changes),
        ModelCheckpoint(folder, "{epoch}", save_top_k=-1, save_on_train_epoch_end=True),
    ]
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=epochs, logger=log, callbacks=callbacks, num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, gradient_clip_val=1.0,
    )  # fmt: skip
    trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    return model, trainer, log.frame()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, 7)


@pytest.mark.parametrize("stopped", [1, 3, 4], ids=["at a phase's end", "mid-phase", "before a phase"])
def test_a_resumed_run_equals_one_that_never_stopped_bit_for_bit(whole, stopped, tmp_path):
    folder, model, trainer, history = whole
    again, resumed, rows = run(tmp_path, 7, ckpt=folder / f"epoch={stopped}.ckpt")
    for (name, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(trainer.optimizers[0].state.values(), resumed.optimizers[0].state.values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    wanted = history[history.epoch > stopped].reset_index(drop=True)
    assert rows["val/score"].tolist() == wanted["val/score"].tolist()
    assert rows["curriculum/full_epochs"].tolist() == wanted["curriculum/full_epochs"].tolist()


def test_epochs_have_the_genes_and_steps_of_their_phase(whole):
    folder, model, trainer, history = whole
    assert history["curriculum/genes"].tolist() == [4, 4, 10, 10, 10, 20, 20]
    assert history["curriculum/accumulated"].tolist() == [4, 4, 2, 2, 2, 1, 1]
    assert trainer.global_step == 2 * 2 + 3 * 4 + 2 * 7
    assert history["curriculum/steps"].tolist() == [2, 4, 8, 12, 16, 23, 30]
    assert history["val/first_genes/Pearson"].notna().all()
    assert model.active_G.all()
    early = torch.load(folder / "epoch=1.ckpt", weights_only=True)["state_dict"]
    assert early["active_G"].sum() == 4


def test_early_stopping_waits_for_the_last_phase_and_counts_anew(tmp_path):
    _, trainer, history = run(tmp_path, 30, patience=2, min_delta=10.0)  # nothing ever improves by so much
    assert history["epoch"].tolist() == list(range(7))
    assert trainer.should_stop


def test_runs_of_one_budget_spend_as_much_in_their_own_number_of_epochs(tmp_path):
    _, _, grown = run(tmp_path, 100, budget=2.9)
    _, _, flat = run(tmp_path / "flat", 100, phases=[{"epoch": 0, "genes": None}], budget=2.9)
    assert (len(grown), len(flat)) == (6, 3)
    assert grown["curriculum/full_epochs"].iloc[-1] == pytest.approx(2.9)


def test_a_run_that_ends_before_its_last_phase_says_so(tmp_path):
    with pytest.warns(UserWarning, match="ends after 2 epochs, before the curriculum's last phase begins at epoch 5"):
        run(tmp_path, 2)


def test_without_a_curriculum_all_genes_are_active(tmp_path):
    data = Data()
    model = GeneSetTransformer(data.spec, encoder=EncoderOptions(32, 1, 2), optimizer=torch.optim.AdamW)
    model.activate(torch.tensor([1]))
    lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, num_sanity_val_steps=0,
                      enable_progress_bar=False, enable_model_summary=False).fit(model, data)  # fmt: skip
    assert model.active_G.all()


def test_the_report_has_a_section_for_each_phase_and_says_which_one_is_scored(whole):
    history, model = whole[3], whole[1]
    known = [PhaseSources("core", {"core": 3, "rare": 1}), PhaseSources("variable", {"variable": 6})]
    sections = curriculum_sections(history, known, 10, 20)
    assert [section.title for section in sections] == [
        "Curriculum", "Curriculum, phase 0: 4 genes, core", "Curriculum, phase 1: 10 genes, variable",
        "Curriculum, phase 2: 20 genes",
    ]  # fmt: skip
    assert sections[0].text.startswith("The scored weights are of phase 1, with 10 of 20 genes active.")
    assert sections[1].text.startswith("It adds core 3, rare 1. Epochs 0 to 1")
    assert sections[0].table["epochs"].tolist() == ["0 to 1", "2 to 4", "5 to 6"]
    assert sections[0].table["steps"].tolist() == ["4", "16", "30"]
    assert sections[0].figure is not None
    assert "of phase 2, with 20 of 20 genes active" in model.report_sections(history)[0].text
    assert model.report_sections(history.drop(columns="curriculum/phase")) == []
    assert model.report_sections(None) == []

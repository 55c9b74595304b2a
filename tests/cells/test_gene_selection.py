"""Genes by sources and quotas: priority, fills, aliases, phases, and nothing learned from test conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from scipy import sparse

from torchcell.cells.curriculum import describe_phases, entry_phase, find_phases
from torchcell.cells.gene_selection import GeneList, GeneSelection, HighlyVariable, Perturbed, Responsive
from torchcell.cells.pseudobulk import Pseudobulk
from torchcell.cells.simulate import simulated_perturbseq
from torchcell.cells.sources import kang2018
from torchcell.cells.spec import PhaseSources
from torchcell.cells.splits import SPLITS
from torchcell.io.errors import InputError
from torchcell.training.entry import conf_dir

MakeList = Callable[..., GeneList]


@pytest.fixture(scope="module")
def record() -> Pseudobulk:
    return simulated_perturbseq(n_genes=80, n_regulators=16, n_doubles=6, n_lines=2, cells_per_condition=12)


@pytest.fixture
def make_list(tmp_path: Path) -> MakeList:
    def make(name: str, genes: list[str], quota: int | None = None, order: str = "listed") -> GeneList:
        (tmp_path / f"{name}.txt").write_text("\n".join(genes))
        return GeneList(name, quota, tmp_path / f"{name}.txt", order=order)  # type: ignore[arg-type]

    return make


def test_a_gene_goes_to_the_first_source_and_the_later_takes_its_next(record: Pseudobulk, make_list: MakeList) -> None:
    first = make_list("first", ["G0005", "G0007", "XIST", "G0006"], 2)
    second = make_list("second", ["G0007", "G0006", "G0001"], 2)
    chosen = GeneSelection([first, second, HighlyVariable(3)])(record)
    assert chosen.genes[:4].tolist() == ["G0005", "G0007", "G0006", "G0001"]
    assert chosen.counts() == {"first": 2, "second": 2, "highly_variable": 3}
    assert chosen.rank[:4].tolist() == [1, 2, 2, 3]
    assert not chosen.notes
    assert len(set(chosen.genes.tolist())) == len(chosen) == 7


def test_an_open_quota_is_noted_and_filled_in_its_place_without_robbing_later_lists(
    record: Pseudobulk, make_list: MakeList
) -> None:
    variable = HighlyVariable().symbols(record)
    short = make_list("short", ["G0005", "XIST"], 3)
    later = make_list("later", variable[:2], 2)
    chosen = GeneSelection([short, later], n_genes=8)(record)
    assert chosen.source.tolist() == [
        "short", *["highly_variable for short"] * 2, "later", "later", *["highly_variable"] * 3,
    ]  # fmt: skip
    assert chosen.genes[3:5].tolist() == variable[:2]
    assert chosen.notes == ["short: 1 of 3 genes; 2 highly variable genes fill its quota"]


def test_more_than_is_measured_takes_all_and_says_so(record: Pseudobulk) -> None:
    chosen = GeneSelection(n_genes=200)(record)
    assert sorted(chosen.genes.tolist()) == record.genes.tolist()
    assert "200 genes were asked for, and only 80 are measured" in chosen.notes


def test_a_list_of_more_genes_gives_the_most_variable(record: Pseudobulk, make_list: MakeList) -> None:
    names = record.genes[::2].tolist()
    variable = [gene for gene in HighlyVariable().symbols(record) if gene in names]
    chosen = GeneSelection([make_list("even", names, 5, "variable")])(record)
    assert chosen.genes.tolist() == variable[:5]


def test_case_and_aliases_meet_but_an_ambiguous_name_is_not_guessed(
    record: Pseudobulk, make_list: MakeList, tmp_path: Path
) -> None:
    (tmp_path / "names.csv").write_text("alias,gene\nOLD5;LAST5,G0005\nTWIN,G0006\nTWIN,G0007\nHERE,NEW8\nG0008,NEW8\n")
    source = make_list("mixed", ["g0001", "last5", "TWIN", "HERE", "G0005"])
    found = GeneSelection([source], aliases=tmp_path / "names.csv")(record)
    assert found.genes.tolist() == ["G0001", "G0005", "G0008"]
    assert found.symbol.tolist() == ["g0001", "last5", "HERE"]
    assert GeneSelection([source])(record).genes.tolist() == ["G0001", "G0005"]


def test_a_curriculums_phases_take_the_first_genes_and_stand_in_the_table(record: Pseudobulk, tmp_path: Path) -> None:
    chosen = GeneSelection([Perturbed(10)], 20)(record)
    given = [{"epoch": 0, "genes": 5}, {"epoch": 2, "genes": 0.6}, {"epoch": 4, "genes": None}]
    chosen.save(tmp_path / "genes.csv", find_phases(given, chosen.genes.tolist()))
    table = pd.read_csv(tmp_path / "genes.csv")
    assert table.columns.tolist() == ["gene", "source", "rank", "symbol", "phase"]
    assert table["phase"].tolist() == [0] * 5 + [1] * 7 + [2] * 8
    assert (chosen.to_table()["phase"] == 0).all()
    again = GeneSelection([GeneList("own", path=tmp_path / "genes.csv", order="listed")])(record)
    np.testing.assert_array_equal(again.genes, chosen.genes)


def test_a_phase_is_named_by_where_most_of_the_genes_it_adds_come_from() -> None:
    source = np.array(["b"] * 5 + ["a"] * 4 + ["rare"] + ["highly_variable for b"] * 3)
    first, second = describe_phases(np.repeat([0, 1], [10, 3]), source)
    assert first == PhaseSources("b, a", {"b": 5, "a": 4, "rare": 1})
    assert second == PhaseSources("highly_variable", {"highly_variable": 3})
    assert describe_phases(np.array([0, 1]), None) == (PhaseSources("", {}),) * 2


def test_perturbed_and_responsive_genes_lead(record: Pseudobulk) -> None:
    singles = record.subset(np.array(["+" not in label for label in record.perturbation]))
    assert Perturbed().symbols(singles) == [f"G{i + 1:04d}" for i in range(16)]
    assert GeneSelection([Perturbed()])(singles).counts() == {"perturbed": 16}
    change = np.abs(record.target - record.eval_control).mean(0)
    ranked = Responsive().symbols(record)
    place = {gene: i for i, gene in enumerate(record.genes.tolist())}
    assert change[[place[g] for g in ranked[:20]]].mean() > 1.5 * change[[place[g] for g in ranked[-20:]]].mean()


def test_nothing_of_the_test_conditions_is_read(record: Pseudobulk) -> None:
    split = SPLITS.make(record, "unseen_perturbation")
    X = record.cells.X.tolil()
    for i in np.flatnonzero(split.part != "train").tolist():
        X[record.members(i)] = 3.5
    spoilt = replace(record, cells=replace(record.cells, X=sparse.csr_matrix(X)))
    choose = GeneSelection([Perturbed(8), Responsive(12), HighlyVariable(10)])
    clean, other = (choose(one.subset(split.index("train"))) for one in (record, spoilt))
    pd.testing.assert_frame_equal(clean.to_table(), other.to_table())
    assert not np.array_equal(choose(spoilt).genes, clean.genes)


def test_a_selection_comes_from_a_config(record: Pseudobulk) -> None:
    room = "torchcell.cells.gene_selection"
    sources = [{"_target_": f"{room}.Perturbed", "quota": 4}]
    config = {"_target_": f"{room}.GeneSelection", "sources": sources, "n_genes": 6}
    assert instantiate(config)(record).counts() == {"perturbed": 4, "highly_variable": 2}


def test_flavors_without_counts_or_packages_fail_loudly(record: Pseudobulk, monkeypatch: pytest.MonkeyPatch) -> None:
    lone = replace(record, cells=replace(record.cells, counts=None))
    for flavor in ("seurat_v3", "seurat_v3_paper", "pearson_residuals"):
        with pytest.raises(InputError, match=f"flavor={flavor} needs raw counts, and simulated_perturbseq holds log"):
            HighlyVariable(flavor=flavor).symbols(lone)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package scikit-misc, which is not installed"):
        HighlyVariable(flavor="seurat_v3").symbols(record)
    with pytest.raises(InputError, match="no flavor 'seurat_v4'"):
        HighlyVariable(flavor="seurat_v4").symbols(record)


@pytest.mark.parametrize("flavor", ["seurat", "cell_ranger", "pearson_residuals"])
def test_each_flavor_ranks_every_gene_once(record: Pseudobulk, flavor: str) -> None:
    assert sorted(HighlyVariable(flavor=flavor).symbols(record)) == record.genes.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs sources, or n_genes"),
        ({"sources": [HighlyVariable(9)], "n_genes": 5}, "quotas of the gene sources sum to 9, more than n_genes=5"),
        ({"sources": [HighlyVariable(0)]}, "the quota of 'highly_variable' is 0"),
        ({"n_genes": 20, "aliases": "none.csv"}, "no table of gene names none.csv"),
    ],
)
def test_what_can_not_be_selected_is_answered(record: Pseudobulk, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        GeneSelection(**options)(record)


def test_a_list_whose_genes_are_all_absent_is_named(record: Pseudobulk, make_list: MakeList) -> None:
    with pytest.raises(InputError, match="none of the 2 genes of 'mouse' is measured in .*the list has 'Xist', 'Actb'"):
        GeneSelection([make_list("mouse", ["Xist", "Actb"], 2)])(record)


def test_what_may_be_absent_is_told_by_the_source_and_not_by_its_name(record: Pseudobulk, make_list: MakeList) -> None:
    unmeasured = record.on_genes(record.genes[16:])
    chosen = GeneSelection([Perturbed(4, name="targets")])(unmeasured)
    assert chosen.notes == ["targets: 0 of 4 genes; 4 highly variable genes fill its quota"]
    with pytest.raises(InputError, match="none of the 1 genes of 'perturbed' is measured"):
        GeneSelection([make_list("perturbed", ["Xist"], 2)])(record)


@pytest.mark.mirror
def test_the_500_gene_panel_of_the_real_data(mirror: Path) -> None:
    record = kang2018()
    quotas = {"transcription_factor": 46, "metabolic": 32, "cell_cycle": 40, "pluripotency": 22}
    sources = [*(GeneList(name, quota) for name, quota in quotas.items()), HighlyVariable(360)]
    train = record.subset(SPLITS.make(record, "cold_cell").index("train"))
    panel = GeneSelection(sources)(train)
    assert panel.counts() == {**quotas, "highly_variable": 360}
    assert not panel.notes


@pytest.mark.mirror
def test_the_phases_of_the_real_curriculum_are_about_regulators_then_response(mirror: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["+experiment=kang2018_curriculum"])
    record = kang2018()
    whole = instantiate(cfg.data.genes.selection)(record.subset(SPLITS.make(record, "cold_cell").index("train")))
    phases = find_phases(cfg.data.genes.phases, whole.genes.tolist())
    assert [len(phase.genes) for phase in phases] == [100, 1200, 2500, 5000]
    assert not whole.notes
    core, regulatory, responsive, rest = describe_phases(entry_phase(phases, 5000), whole.source)
    assert core == PhaseSources("transcription_factor, pluripotency", {"transcription_factor": 60, "pluripotency": 40})
    assert set(regulatory.sources) == {"cell_cycle", "transcription_factor", "pluripotency", "metabolic"}
    assert responsive.sources == {"responsive": 1300}
    assert rest.sources == {"highly_variable": 2500}

"""The page: the verdict first, every figure inside, nothing from outside, every value escaped."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from torchcell.evaluation.checks import Check, loss_share_warnings
from torchcell.evaluation.evaluate import evaluate
from torchcell.evaluation.metrics import ProfileContext
from torchcell.evaluation.results import Design, Results
from torchcell.report.page import write_report
from torchcell.report.plots import NAMED_OUTLIERS
from torchcell.report.sections import Section, check_rows

Make = Callable[..., Results]
INFO = {
    "name": "costanzo",
    "split": "query_disjoint, fold 0",
    "split_hash": "a3f9" * 16,
    "git_commit": "0123abc",
    "seconds": 1820.4,
    "epochs": 10,
    "dropped": {"genes in no network": 1234},
    "units": {"epsilon": "fitness units"},
    "group": "query gene",
}


def _write(folder: Path, results: Results, history: pd.DataFrame | None = None, **more) -> tuple[str, list[Path]]:
    evaluation = evaluate(results, n_boot=60, converged=more.pop("converged", None))
    checks = more.pop("checks", {"spread": evaluation.spread})
    info = more.pop("info", INFO)
    files = write_report(
        folder, evaluation=evaluation, results=results, history=history, info=info, checks=checks, **more
    )
    return files[0].read_text(encoding="utf-8"), files


def _text(page: str) -> str:
    body = re.sub(r"<(svg|script).*?</\1>", " ", page[page.index("<body") :], flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))).strip()


def test_the_first_line_is_the_verdict(tmp_path: Path, make_results: Make) -> None:
    page, _ = _write(tmp_path, make_results())
    assert _text(page).startswith("Net : better than ridge by .")


def test_comparators_have_a_section_with_their_paired_differences(tmp_path: Path, make_results: Make) -> None:
    results = replace(make_results(), comparators=("ridge",))
    text = _text(_write(tmp_path, results)[0])
    assert "Against comparators Net against ridge: better than ridge by ." in text
    assert re.search(
        r"metric comparator difference .* pearson \(primary\) ridge 0\.\d+ \[0\.\d+, 0\.\d+\] 120 better", text
    )
    assert "Against comparators" not in _text(_write(tmp_path, make_results())[0])


def test_every_figure_is_saved_and_drawn_in_the_page(tmp_path: Path, make_results: Make, history: pd.DataFrame) -> None:
    page, files = _write(tmp_path, make_results(), history)
    names = {path.name for path in files[1:]}
    assert names == {
        "primary.png",
        "forest.png",
        "predicted_against_measured.png",
        "residuals.png",
        "learning_curves.png",
        "loss_shares.png",
    }
    for path in files[1:]:
        assert path.parent == tmp_path / "figures"
        assert path.read_bytes().startswith(b"\x89PNG")
    assert page.count("<svg") == len(names)
    identities = re.findall(r' id="([^"]*)"', page)
    assert len(identities) == len(set(identities)), "one page, one name a place"
    assert {link[1:] for link in re.findall(r' href="(#[^"]*)"', page)} <= set(identities)
    assert set(re.findall(r"url\(#([^)]*)\)", page)) <= set(identities)


def test_the_page_asks_for_nothing_from_outside(tmp_path: Path, make_results: Make, history: pd.DataFrame) -> None:
    page, _ = _write(tmp_path, make_results(), history)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    rest = re.sub(r"base64,[^\"]*", "", page.replace(script, ""))
    assert not re.search(r"https?:|//[a-z]|<link|<script [a-z]|@import|url\((?!#)", rest)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert not re.search(r" on[a-z]+=", page)


def test_points_carry_the_names_of_samples_and_epochs(
    tmp_path: Path, make_results: Make, history: pd.DataFrame
) -> None:
    page, _ = _write(tmp_path, make_results(), history)
    names = re.findall(r'data-name="([^"]*)"', page)
    predicted = [name for name in names if re.match(r"s\d+: measured -?[\d.]+, predicted", name)]
    assert len(predicted) > 2 * 110, "two panels; a few points lie outside"
    assert "epoch 3: val/loss 0.300" in names
    assert sum(name.startswith("ridge: 0.") for name in names) >= 2


def test_of_a_density_the_worst_predicted_are_named(tmp_path: Path, make_results: Make) -> None:
    results = make_results(n=2000)
    results.systems["Net"][7] = -5
    names = re.findall(r'data-name="(s\d+): measured', _write(tmp_path, results)[0])
    assert 0 < len(names) <= 2 * NAMED_OUTLIERS
    gaps = np.abs(results.systems["Net"] - results.measured)[:, 0]
    assert f"s{np.argsort(gaps)[-2]}" in names


def test_the_first_screen_says_what_the_data_were_and_what_to_do_next(tmp_path: Path, make_results: Make) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    info = INFO | {"contents": {"query gene": 30, "cell": 1}, "notes": ["look here"], "git_dirty": True}
    results = replace(make_results(), design=Design("query gene", 150, "query_disjoint", 5))
    text = _text(_write(tmp_path, results, info=info)[0])
    first = text.split(" Scores ")[0]
    assert "Scored on the part “test”: 120 samples in 30 query genes." in first
    assert "The data hold 30 query genes, 1 cell." in first
    assert "Left out: genes in no network 1,234." in first
    assert "commit 0123abc with uncommitted changes" in first
    assert "Look at this first look here" in first
    assert "-m split.fold=0,1,2,3,4" in first
    assert f"torchcell.predict ckpt={tmp_path / 'checkpoints' / 'best.ckpt'} perturbations=FILE" in first


def test_a_model_that_does_not_win_is_sent_to_the_baseline(tmp_path: Path, make_results: Make) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    results = make_results()
    swapped = {**results.systems, "Net": results.systems["ridge"], "stack": results.systems["Net"]}
    text = _text(_write(tmp_path, replace(results, systems=swapped))[0])
    assert "Predict with stack, which predicts better: python -m torchcell.predict" in text
    assert "system=stack perturbations=FILE" in text
    assert "model.prior=stack" in text


def test_the_run_and_what_was_left_out_are_told(tmp_path: Path, make_results: Make) -> None:
    page, _ = _write(tmp_path, make_results())
    text = _text(page)
    for expected in ("a3f9" * 16, "0123abc", "1,820.4", "genes in no network 1,234", "epsilon: fitness units"):
        assert expected in text
    assert "120 samples in 30 clusters" in text
    assert "undefined (120)" in text
    assert "twin (ceiling)" in text


def test_a_collapsed_model_is_called_so_at_the_top(tmp_path: Path, make_results: Make) -> None:
    results = make_results()
    page, _ = _write(tmp_path, replace(results, systems={**results.systems, "Net": np.full((120, 1), 0.2)}))
    assert _text(page).startswith("COLLAPSED Net")
    assert re.search(r'class="flag">COLLAPSED', page)


def test_an_unconverged_run_is_said_to_have_no_verdict(tmp_path: Path, make_results: Make) -> None:
    page, _ = _write(tmp_path, make_results(), converged=False)
    assert "no verdict: not converged" in _text(page)[:60]


def test_what_cannot_be_drawn_says_why(tmp_path: Path, make_results: Make) -> None:
    page, files = _write(tmp_path, make_results(set_size=None))
    text = _text(page)
    assert "Not drawn: nothing was trained in this run." in text
    assert "Not drawn: the samples are not perturbations of genes." in text
    assert {path.name for path in files[1:]} == {"primary.png", "forest.png", "predicted_against_measured.png"}


def test_a_binary_task_shows_rankings_and_prevalence(tmp_path: Path, make_results: Make) -> None:
    results = make_results("binary")
    page, files = _write(tmp_path, results)
    assert {path.name for path in files[1:]} == {"primary.png", "forest.png", "ranking.png"}
    assert f"Prevalence {results.measured.mean():.3f}" in _text(page)


def test_several_outputs_get_a_table_and_figures_each(tmp_path: Path, make_results: Make) -> None:
    page, files = _write(tmp_path, make_results(outputs=("fitness", "epsilon")))
    names = {path.name for path in files}
    assert {"predicted_against_measured_fitness.png", "predicted_against_measured_epsilon.png"} <= names
    assert page.count('<table class="scores">') == 3, "their mean, which decides, and each"


def test_expression_is_drawn_over_all_genes(tmp_path: Path, make_results: Make) -> None:
    results = make_results("expression", n=20, outputs=tuple(f"g{i}" for i in range(40)), set_size=None)
    page, files = _write(tmp_path, replace(results, context=ProfileContext(np.zeros((20, 40)))))
    assert "predicted_against_measured.png" in {path.name for path in files}
    assert "pearson_delta" in page


def test_a_model_adds_its_own_section_and_text_is_escaped(tmp_path: Path, make_results: Make) -> None:
    from matplotlib.figure import Figure

    own = Section(
        "Channel <weights>", "a & b", Figure(figsize=(1, 1)), pd.DataFrame({"relation": ["<b>x</b>"], "w": [0.25]})
    )
    page, files = _write(
        tmp_path, make_results(), sections={"own": lambda: [own]}, info=INFO | {"name": "<script>alert(1)</script>"}
    )
    assert files[-1].name == "channel_weights.png"
    assert "Channel &lt;weights&gt;" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert "<script>alert" not in page


def test_a_section_that_fails_is_a_line_of_the_page_and_loses_nothing(tmp_path: Path, make_results: Make) -> None:
    """A model's own knob broke an optional measurement at the end of a training, and the run was lost."""

    def broken() -> list[Section]:
        raise TypeError("attention must be mine, got 'full'")

    page, _ = _write(tmp_path, make_results(), sections={"What memory options cost": broken})
    assert "Not made: TypeError: attention must be mine" in unescape(page)
    assert _text(page).startswith("Net : better than ridge by .")


def test_checks_are_shown_in_words(history: pd.DataFrame) -> None:
    check = Check("perturbation_shuffled", "failed", "shuffled, pearson falls by 0", "input ignored (perturbation)")
    (row,) = check_rows("perturbation_shuffled", check.summary())
    assert (row["finding"], row["status"]) == ("shuffled, pearson falls by 0", "failed")
    warned = check_rows("loss_share_warnings", loss_share_warnings(history))
    assert [row["status"] for row in warned] == ["WARNING"]
    assert "'graph'" in warned[0]["finding"]
    assert check_rows("loss_share_warnings", [])[0]["status"] == "ok"
    assert check_rows("usage", {"dead_experts": 2})[0]["finding"] == "2"


def test_a_failure_while_writing_leaves_the_old_page(
    tmp_path: Path, make_results: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, make_results())
    before = (tmp_path / "report.html").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path, make_results(n=60))
    assert (tmp_path / "report.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []

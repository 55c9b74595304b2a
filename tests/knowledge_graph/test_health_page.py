"""The collapse table, its sentence and its figures say what was found, type by type."""

from __future__ import annotations

import numpy as np
import pytest

from torchcell.knowledge_graph.embedding_health import LinkSkill, embedding_health, health_guard
from torchcell.knowledge_graph.report import (
    PAIRS,
    cosine_histograms,
    health_line,
    health_sections,
    health_table,
    pair_cosines,
    print_health,
    write_health_page,
)
from torchcell.report.sections import check_rows

KIND = np.array([*"a" * 40, *"b" * 40, "c"])


def test_a_collapse_is_a_pile_at_1_and_does_not_fall_off_the_histogram(x):
    assert pair_cosines(x[KIND == "b"]).min() > 1 - 1e-6
    figure = cosine_histograms({"b": x[KIND == "b"].astype(np.float64)})
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights[-1] == max(heights) > 0


@pytest.fixture
def x() -> np.ndarray:
    """A healthy node type, a collapsed one and a single node."""
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(40, 6)), np.ones((40, 6)), rng.normal(size=(1, 6))]).astype(np.float32)


def test_the_table_has_a_row_a_type_and_shouts_a_collapse(x):
    table = health_table(embedding_health(x, KIND))
    assert table["status"].tolist() == ["healthy", "COLLAPSED", "undefined"]
    assert table["nodes"].tolist() == ["40", "40", "1"]
    assert table["components for 90 %"].tolist() == ["5 of 6", "0 of 6", "undefined"]
    assert "all vectors are one among 40 nodes" in table["why"][1]
    assert "AUROC (degree product)" not in table


def test_skill_on_links_has_a_column_where_it_is_known(x):
    found = embedding_health(x, KIND, [LinkSkill("AtC", ("a", "c"), 0.5, 0.61)])
    assert health_table(found)["AUROC (degree product)"].tolist() == ["AtC 0.500 (0.610)", "", "AtC 0.500 (0.610)"]


def test_the_sentence_names_the_types_and_why(x):
    found = embedding_health(x, KIND)
    assert health_line(found) == "collapsed: 1 of 2 node types. b: all vectors are one among 40 nodes"
    assert health_line(found[:1]) == "healthy: a: mean cosine 0.02 is below 0.5"
    assert health_line(found[2:]) == "undefined: no node type has 3 nodes"


def test_the_screen_shows_every_type(x, capsys):
    print_health(embedding_health(x, KIND))
    shown = capsys.readouterr().out
    assert "COLLAPSED" in shown
    assert "collapsed: 1 of 2 node types" in shown


def test_cosines_of_pairs_are_all_of_them_or_a_draw_with_their_mean():
    rng = np.random.default_rng(1)
    few, many = rng.normal(size=(30, 5)), rng.normal(size=(1_000, 5)) + 0.5
    unit = few / np.linalg.norm(few, axis=1, keepdims=True)
    assert len(pair_cosines(few)) == 30 * 29 // 2
    assert pair_cosines(few).mean() == pytest.approx(((unit @ unit.T).sum() - 30) / (30 * 29))
    drawn, unit = pair_cosines(many), many / np.linalg.norm(many, axis=1, keepdims=True)
    assert len(drawn) == PAIRS
    assert drawn.max() < 1 - 1e-9, "no node is compared with itself"
    assert drawn.mean() == pytest.approx(((unit @ unit.T).sum() - 1_000) / (1_000 * 999), abs=0.02)
    assert len(pair_cosines(np.zeros((4, 3)))) == 0


def test_the_page_is_whole_and_its_figures_lie_beside_it(x, tmp_path):
    found = embedding_health(x, KIND)
    sections = health_sections(x, KIND, found, {"AtC": 0.25, "empty": float("nan")})
    assert [section.slug for section in sections] == [
        "health_of_the_embeddings", "cosines", "pca", "how_alike_the_ends_of_an_edge_are",
    ]  # fmt: skip
    assert sections[3].table["Dirichlet energy"].tolist() == ["0.250", "undefined"]
    titles = [axis.get_title(loc="left") for axis in sections[1].figure.axes]
    assert titles == ["a   n = 40", "b   n = 40", "c   n = 1"]
    files = write_health_page(tmp_path / "e.html", found, sections, {"file": "3 < 4", "nodes": 81})
    assert [path.name for path in files] == ["e.html", "e_cosines.png", "e_pca.png"]
    page = files[0].read_text()
    assert page.index('<body class="bad">') < page.index('verdict">collapsed: 1 of 2') < page.index("<svg")
    assert "<dt>file</dt><dd>3 &lt; 4</dd>" in page
    assert '<td class="flag">COLLAPSED</td>' in page
    assert "<dt>nodes</dt><dd>81</dd>" in page


def test_the_guard_is_a_row_of_the_report_that_says_why(x):
    (row,) = check_rows("embeddings", health_guard(embedding_health(x, KIND)))
    assert row["status"] == "COLLAPSED b"
    assert row["finding"].startswith("b: all vectors are one among 40 nodes; mean cosine 1.00")
    (row,) = check_rows("embeddings", health_guard(embedding_health(x[:40], KIND[:40])))
    assert (row["status"], row["finding"]) == ("ok", "no node type has collapsed")

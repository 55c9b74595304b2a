"""What all tests share: shape checks at run time, small screens, and where the real data is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TORCHCELL_MIRROR", str(ROOT.parent / "shared" / "data"))

TASKS = ("screen", "drug_response", "cells", "knowledge_graph")
install_import_hook(["torchcell.nn", *(f"torchcell.{task}.models" for task in TASKS)], "beartype.beartype")

import numpy as np  # noqa: E402

from torchcell.graph.network import Network  # noqa: E402
from torchcell.screen.record import KINDS, Screen  # noqa: E402


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for the whole session and all its workers, never the user's own."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHCELL_DATA", str(base / "torchcell-data"))
        yield


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TORCHCELL_DATA and no mirror."""
    monkeypatch.setenv("TORCHCELL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TORCHCELL_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The local mirror of the real data."""
    folder = Path(os.environ["TORCHCELL_MIRROR"])
    if not (folder / "SOURCES.tsv").is_file():
        pytest.skip(f"the real data is not there: set TORCHCELL_MIRROR (looked in {folder})")
    return folder


MakeScreen = Callable[..., Screen]


@pytest.fixture
def make_screen() -> MakeScreen:
    """Build a screen from gene sets by name and their phenotypes."""

    def make(sets: list[str], values: list[float] | None = None, **changes: object) -> Screen:
        members = [entry.split("|") if entry else [] for entry in sets]
        genes = np.array(sorted({gene for entry in members for gene in entry}) or ["A"])
        position = {gene: i for i, gene in enumerate(genes.tolist())}
        gene = np.array([position[g] for entry in members for g in entry], dtype=np.int64)
        given: dict[str, object] = {
            "name": "toy",
            "genes": genes,
            "gene": gene,
            "ptr": np.cumsum([0, *map(len, members)]).astype(np.int64),
            "kind": np.full(len(gene), KINDS.index("absent"), dtype=np.int8),
            "phenotype": np.array(values if values is not None else range(len(sets)), dtype=np.float32)[:, None],
            "phenotype_names": ("y",),
            "sample_id": np.array([f"s{i}" for i in range(len(sets))]),
        }
        return Screen(**(given | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def pairs(make_screen: MakeScreen) -> Screen:
    """600 pairs of 20 query and 60 array genes with an additive phenotype and a column of queries."""
    rng = np.random.default_rng(0)
    queries, arrays = [f"Q{i:02d}" for i in range(20)], [f"A{i:02d}" for i in range(60)]
    chosen = rng.permutation(len(queries) * len(arrays))[:600]
    sets = [f"{queries[i // 60]}|{arrays[i % 60]}" for i in chosen]
    effect = {gene: rng.normal() for gene in queries + arrays}
    values = [sum(effect[g] for g in entry.split("|")) + 0.1 * rng.normal() for entry in sets]
    columns = {"query": np.array([s.split("|")[0] for s in sets]), "array": np.array([s.split("|")[1] for s in sets])}
    return make_screen(sets, values, columns=columns)


@pytest.fixture
def ring() -> list[Network]:
    """An undirected ring and a directed star over the genes of ``pairs``."""
    genes = np.array([f"Q{i:02d}" for i in range(20)] + [f"A{i:02d}" for i in range(60)])
    ones = np.ones(len(genes), dtype=np.float32)
    star = Network("star", genes[:1].repeat(len(genes) - 1), genes[1:], ones[1:], directed=True)
    return [Network("ring", genes, np.roll(genes, 1), ones, directed=False), star]

"""Each task has its own typed spec: it goes through a file and back whole, what is damaged or hostile is named, and a
model of another task says so in one line.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drug_response.small_responses import response_spec
from small_cell_sets import cell_spec
from small_specs import screen_spec
from typed_toy import toy_spec

import torchcell
from torchcell.cells.models.gene_set_transformer.model import GeneSetTransformer
from torchcell.cells.spec import CellsSpec, NetworkGenes, PhaseSources
from torchcell.core.model import Model
from torchcell.core.spec import Spec
from torchcell.drug_response.models.base import ResponseModel
from torchcell.drug_response.models.chemoe.model import CheMoE
from torchcell.drug_response.models.mlp import ResponseMLP
from torchcell.drug_response.spec import PackedGraphs
from torchcell.graph.cell_graph import CellGraph
from torchcell.io.errors import InputError
from torchcell.io.gene_features import GeneFeatures
from torchcell.knowledge_graph.models.hgt_embedder.model import HGTEmbedder
from torchcell.knowledge_graph.spec import KnowledgeGraphSpec
from torchcell.screen.models.cell_graph_transformer.model import CellGraphTransformer
from torchcell.screen.models.dango import Dango
from torchcell.screen.models.perturbed_cell_gnn.model import PerturbedCellGNN
from torchcell.training.data_changes import other_indices, other_names


def of_screens() -> Spec:
    genes = ("A", "B", "C")
    features = GeneFeatures(np.array(genes), ("x",), np.arange(3, dtype=np.float32)[:, None])
    graph = CellGraph(genes, {"physical": np.eye(3, dtype=np.float32)[[1, 0, 2]]})
    more = {"gene_features": features, "trained_levels": (0.5, 2.0), "hops": 1, "fingerprints": {"samples": "f"}}
    return screen_spec("regression", ("y",), genes, ("absent",), torch.zeros(1), torch.ones(1), graph, **more)


def of_drug_response() -> Spec:
    spec = response_spec()
    sizes = {"atom": (4, 9), "atom_ptr": (13,), "bond": (6, 3), "bond_index": (2, 6), "bond_ptr": (13,)}
    graphs = PackedGraphs(**{name: torch.ones(size, dtype=torch.int64) for name, size in sizes.items()})
    features = {"_target_": "torchcell.drug_response.molecules.Morgan", "bits": 16, "none": None, "list": [1, "a"]}
    return replace(spec, molecules=replace(spec.molecules, graphs=graphs, features=features))


def of_cells() -> Spec:
    return cell_spec(
        neighbors=3,
        network_genes=NetworkGenes(("n1", "n2"), torch.ones(2, 5)),
        gene_order=torch.arange(24),
        phases=(PhaseSources("perturbed", {"perturbed": 5}), PhaseSources("", {})),
        library=1e4,
    )


SPECS = {
    "screen": of_screens,
    "drug_response": of_drug_response,
    "cells": of_cells,
    "knowledge_graph": partial(toy_spec, ("CtD", "DrD")),
}
MODELS = (Dango, CellGraphTransformer, PerturbedCellGNN, CheMoE, ResponseMLP, GeneSetTransformer, HGTEmbedder)


def same(one: Any, other: Any) -> bool:
    """Whether two values are of one type and hold the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, CellGraph):
        return one.hash == other.hash
    if is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.mark.parametrize("task", SPECS)
def test_a_spec_comes_back_from_a_file_as_it_was(task, tmp_path):
    spec = SPECS[task]()
    torch.save(spec.to_plain(), tmp_path / "spec.pt")
    again = Spec.from_plain(torch.load(tmp_path / "spec.pt", weights_only=True))
    assert type(again) is type(spec)
    for one in fields(spec):
        assert same(getattr(spec, one.name), getattr(again, one.name)), one.name
    assert not other_names(spec, again)
    assert not other_indices(spec, again)


@pytest.mark.parametrize("task", SPECS)
def test_a_spec_is_read_where_nothing_of_its_task_was_imported_before(task, tmp_path):
    """``predict`` began with the checkpoint: "no metrics for the task 'cells'", and none of cells or drugs was read."""
    spec = SPECS[task]()
    torch.save(spec.to_plain(), tmp_path / "spec.pt")
    script = "import sys, torch; from torchcell.core.spec import Spec; "
    script += "print(Spec.from_plain(torch.load(sys.argv[1], weights_only=True)).task)"
    command = [sys.executable, "-c", script, str(tmp_path / "spec.pt")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == spec.task, answer.stderr


@pytest.mark.parametrize("task", SPECS)
def test_a_field_that_is_missing_unknown_or_of_another_type_is_named(task):
    plain = SPECS[task]().to_plain()
    needed = [one.name for one in fields(SPECS[task]()) if one.name not in ("fingerprints", "gene_features", "n_added")]
    for name in needed[:8]:
        with pytest.raises(InputError, match=f"spec is no .*Spec: missing '{name}', unknown none"):
            Spec.from_plain({key: value for key, value in plain.items() if key != name})
    with pytest.raises(InputError, match="missing none, unknown 'extras'"):
        Spec.from_plain(plain | {"extras": {}})
    for name in plain:
        if name != "class":
            with pytest.raises(InputError, match=rf"spec\.{name} must be "):
                Spec.from_plain(plain | {name: b"bytes"})
    with pytest.raises(InputError, match=r"spec\.center must be .*, not a tensor of torch.int64 \[2, 2\]"):
        Spec.from_plain(plain | {"center": torch.ones(2, 2, dtype=torch.int64)})


def test_what_is_nested_is_named_by_its_path():
    plain = of_drug_response().to_plain()
    molecules = plain["molecules"]
    for name, value, said in (
        ("id", ["a", 1], r"spec\.molecules\.id\[1\] must be str, not int"),
        ("known", torch.ones(12), r"spec\.molecules\.known must be .*, not a tensor of torch.float32 \[12\]"),
        ("vectors", torch.ones(12), r"spec\.molecules\.vectors must be .*, not a tensor of torch.float32 \[12\]"),
        ("graphs", {}, r"spec\.molecules\.graphs is no PackedGraphs: missing 'atom'"),
        ("id", molecules["id"][1:], "a list of 11 molecules with 12 smiles, 12 vectors, 12 known, 12 trained"),
    ):
        with pytest.raises(InputError, match=said):
            Spec.from_plain(plain | {"molecules": molecules | {name: value}})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("os.system", "not on the list of what a config of others may call"),
        ("torchcell.io.sources.os.system", "not on the list of what a config of others may call"),
        ("torchcell.graph.cell_graph.CellGraph", "not on the list of what a config of others may call"),
        ("torchcell.screen.models.dango.Dango", "is no spec; nothing of it was run"),
        ("torchcell.gone.spec.GoneSpec", "which this torchcell does not have"),
        (["torchcell"], "must be a name, not list"),
    ],
)
def test_a_class_that_is_no_spec_is_refused(name, said):
    with pytest.raises(InputError, match=said):
        Spec.from_plain(of_screens().to_plain() | {"class": name})


def test_a_spec_of_another_task_is_refused_where_one_task_is_needed():
    with pytest.raises(InputError, match="the spec is a ScreenSpec, and a CellsSpec is needed"):
        CellsSpec.from_plain(of_screens().to_plain())


@dataclass(frozen=True, eq=False)
class NumbersSpec(Spec):
    """Of a task that a user defines: the base and one field."""

    most: int = 0


def test_a_users_own_spec_needs_no_word_to_any_shared_room():
    spec = NumbersSpec("regression", ("y",), (), (), torch.zeros(1), torch.ones(1), None, "hash", most=3)
    again = Spec.from_plain(spec.to_plain())
    assert isinstance(again, NumbersSpec)
    assert again.most == 3


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", SPECS)
def test_a_model_of_another_task_says_in_one_line_which_it_reads(model, task):
    """It was 'this model reads drug response' from one model, and a KeyError from others."""
    spec = SPECS[task]()
    if isinstance(spec, model.reads):
        spec = replace(spec, hops=None) if task == "screen" else spec
        spec.check_model(model)
        return
    with pytest.raises(InputError) as told:
        spec.check_model(model)
    assert str(told.value) == (
        f"{model.__name__} reads a {model.reads.__name__}, and the data's spec is a {type(spec).__name__}: choose a "
        f"model of {spec.WORDS}"
    )


ALL_PAIRS = """
from core.test_spec_classes import MODELS, SPECS, InputError
for model in MODELS:
    for make in SPECS.values():
        spec = make()
        try:
            isinstance(spec, model.reads) or print(model.__name__, "took a", type(spec).__name__, model(spec))
        except InputError as error:
            assert f"{model.__name__} reads a" in str(error), error
"""


def test_models_refuse_it_before_they_read_anything_of_it():
    """In a process of its own: these tests check types at every call, which a user's process does not."""
    folders = [str(Path(__file__).parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    ended = subprocess.run(
        [sys.executable, "-c", ALL_PAIRS], env=variables, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""


def test_every_model_says_which_spec_it_reads():
    """From the class alone, so that a config can be checked before anything is built."""
    found = set()
    for module in pkgutil.walk_packages(torchcell.__path__, "torchcell."):
        if ".models." in module.name:
            members = vars(importlib.import_module(module.name)).values()
            found |= {each for each in members if inspect.isclass(each) and issubclass(each, Model)}
    named = {each for each in found if each.__module__.split(".")[1] != "core"}
    assert {Dango, CheMoE, GeneSetTransformer, HGTEmbedder, ResponseModel} < named
    for each in named:
        task = each.__module__.split(".")[1]
        assert each.reads.__module__ == f"torchcell.{task}.spec", each


def test_names_are_compared_by_what_each_field_declares():
    spec = of_drug_response()
    molecules = spec.molecules
    assert other_indices(spec, replace(spec, lines=("A375", "HT115", "PC3"))) == ["lines"]
    renamed = replace(molecules, id=("other", *molecules.id[1:]))
    assert other_indices(spec, replace(spec, molecules=renamed, lines=spec.lines[::-1])) == ["lines", "molecules"]
    fitted = replace(molecules, vectors=1 - molecules.vectors, features={}, graphs=None)
    assert not other_indices(spec, replace(spec, molecules=fitted, change_center=spec.change_center + 1))
    cells = of_cells()
    assert not other_indices(cells, replace(cells, phases=()))
    assert other_indices(cells, replace(cells, network_genes=None, set_size=5)) == ["network_genes", "set_size"]
    assert other_names(cells, replace(cells, kinds=("absent",))) == ["kinds of perturbation"]
    links = toy_spec()
    other = replace(links.knowledge_graph, node_name=("x", *links.knowledge_graph.node_name[1:]))
    assert isinstance(links, KnowledgeGraphSpec)
    assert other_indices(links, replace(links, knowledge_graph=other)) == ["knowledge_graph"]
    assert set(other_indices(links, cells)) > {"groups", "knowledge_graph"}

"""The typed graph against the record that it is made of, edge by edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.knowledge_graph.random_typed import ENDS, knowledge_graph
from torchcell.core.plain import fields_from_plain, to_plain
from torchcell.io.errors import InputError
from torchcell.knowledge_graph.record import KnowledgeGraph
from torchcell.knowledge_graph.spec import PlainGraph
from torchcell.knowledge_graph.typed_graph import TypedGraph

SEEDS = st.integers(0, 10_000)


def triples(record: KnowledgeGraph) -> list[tuple[str, str, str]]:
    return list(zip(record.source_id.tolist(), record.edge_type.tolist(), record.target_id.tolist(), strict=True))


def entries(graph: TypedGraph, number: int, weights: list | None = None) -> set[tuple[str, str]]:
    """Source and target ids of a relation's entries of weight 1."""
    relation, (indptr, indices, weight) = graph.relations[number], graph.csrs(weights)[number]
    found = []
    for row in range(len(indptr) - 1):
        for at in range(int(indptr[row]), int(indptr[row + 1])):
            if weight[at]:
                source = graph.node_id[graph.bounds[relation.source] + int(indices[at])]
                found.append((str(source), str(graph.node_id[graph.bounds[relation.target] + row])))
    assert len(found) == len(set(found))
    return set(found)


def wanted(record: KnowledgeGraph, graph: TypedGraph, number: int, gone=()) -> set[tuple[str, str]]:
    relation = graph.relations[number]
    kept = [(s, t) for s, m, t in triples(record) if m == relation.edge_type and (s, m, t) not in gone]
    back = {(t, s) for s, t in kept}
    if relation.edge_type in graph.symmetric:
        return set(kept) | back
    return back if relation.reverse else set(kept)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_each_relation_holds_the_edges_of_its_edge_type_and_direction(seed, density):
    record = knowledge_graph(seed, density=density)
    graph = TypedGraph.from_knowledge_graph(record, ENDS)
    assert graph.edge_types == tuple(sorted(ENDS))
    assert [r.name for r in graph.relations] == ["CrC", "CtD", "CtD<", "DaG", "DaG<", "GiG", "Gr>G", "Gr>G<"]
    for number in range(len(graph.relations)):
        assert entries(graph, number) == wanted(record, graph, number)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_nodes_stand_type_by_type_and_keep_their_ids_and_names(seed):
    record = knowledge_graph(seed)
    graph = TypedGraph.from_knowledge_graph(record)
    assert sorted(graph.node_id) == sorted(record.node_id)
    assert len(graph) == graph.bounds[-1] == len(record.node_id)
    assert (graph.node_id[graph.from_record] == record.node_id).all()
    assert (graph.node_name[graph.from_record] == record.node_name).all()
    assert (graph.position_of(record.node_id) == graph.from_record).all()
    assert graph.position_of(["nobody"]).tolist() == [-1]
    for number, node_type in enumerate(graph.node_types):
        assert all(
            name.startswith(node_type) for name in graph.node_id[graph.bounds[number] : graph.bounds[number + 1]]
        )


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_an_edges_number_is_its_place_and_a_stranger_has_none(seed):
    record = knowledge_graph(seed)
    graph = TypedGraph.from_knowledge_graph(record)
    for name in graph.edge_types:
        source, target = graph.edges(name)
        mine = [(s, t) for s, m, t in triples(record) if m == name]
        found = {(str(graph.node_id[s]), str(graph.node_id[t])) for s, t in zip(source, target, strict=True)}
        if name in graph.symmetric:
            assert (source < target).all()
            found, mine = ({frozenset(pair) for pair in each} for each in (found, mine))
        assert found == set(mine)
        assert len(source) == graph.n_edges(name) == len(mine)
        key = source * len(graph) + target
        assert (key.diff() > 0).all()
        assert graph.edge_number(name, source, target).tolist() == list(range(len(source)))
        back = graph.edge_number(name, target, source)
        assert (
            (back >= 0).all()
            if name in graph.symmetric
            else (graph.ends[name][0] == graph.ends[name][1]) or (back == -1).all()
        )


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(0, 1))
def test_an_edge_that_is_taken_out_is_gone_in_every_direction_and_no_other(seed, share):
    record = knowledge_graph(seed)
    graph = TypedGraph.from_knowledge_graph(record)
    chosen = np.random.default_rng(seed).random(len(record)) < share
    gone = {triple for triple, out in zip(triples(record), chosen, strict=True) if out}
    code = torch.tensor([graph.edge_types.index(m) for _, m, _ in gone], dtype=torch.long)
    ends = [torch.from_numpy(graph.position_of([t[i] for t in gone])) for i in (0, 2)]
    edge = torch.full_like(code, -1)
    for number, name in enumerate(graph.edge_types):
        edge[code == number] = graph.edge_number(name, *(end[code == number] for end in ends))
    weights = graph.weights_without(code, edge)
    for number in range(len(graph.relations)):
        assert entries(graph, number, weights) == wanted(record, graph, number, gone)
        assert entries(graph, number) == wanted(record, graph, number)  # the graph itself is as it was


def test_degrees_count_both_ends_of_a_symmetric_edge_type_together():
    record = knowledge_graph(3)
    graph = TypedGraph.from_knowledge_graph(record)
    for name in graph.edge_types:
        start = [sum(1 for s, m, _ in triples(record) if (s, m) == (node, name)) for node in graph.node_id]
        stop = [sum(1 for _, m, t in triples(record) if (t, m) == (node, name)) for node in graph.node_id]
        both = [a + b for a, b in zip(start, stop, strict=True)]
        source, target = (degree.tolist() for degree in graph.degree(name))
        assert (source, target) == ((both, both) if name in graph.symmetric else (start, stop))


def test_a_checkpoint_brings_the_same_graph_back(tmp_path):
    graph = TypedGraph.from_knowledge_graph(knowledge_graph(1, without=("CtD",)), ENDS)
    torch.save(to_plain(graph.to_plain()), tmp_path / "graph.pt")
    read = fields_from_plain(PlainGraph, torch.load(tmp_path / "graph.pt", weights_only=True), "graph")
    again = TypedGraph.from_plain(read)
    assert again.hash == graph.hash
    assert (again.node_name == graph.node_name).all()
    assert (again.from_record == graph.from_record).all()
    assert again.relations == graph.relations
    for first, second in zip(graph.csrs(), again.csrs(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_changed_file_is_refused():
    plain = TypedGraph.from_knowledge_graph(knowledge_graph(1)).to_plain()
    fewer = plain.edges | {"DaG": tuple(end[1:] for end in plain.edges["DaG"])}
    with pytest.raises(InputError, match="it was changed"):
        TypedGraph.from_plain(replace(plain, edges=fewer))


def test_the_hash_does_not_depend_on_the_order_of_the_edges_but_on_each_of_them():
    record = knowledge_graph(2)
    graph = TypedGraph.from_knowledge_graph(record)
    shuffled = record.subset(np.random.default_rng(0).permutation(len(record)))
    assert TypedGraph.from_knowledge_graph(shuffled).hash == graph.hash
    assert TypedGraph.from_knowledge_graph(record.subset(np.arange(1, len(record)))).hash != graph.hash


def test_no_buffer_is_in_the_state_and_all_move_with_the_module():
    graph = TypedGraph.from_knowledge_graph(knowledge_graph(1))
    assert not graph.state_dict()
    assert all(part.device.type == "meta" for csr in graph.to("meta").csrs() for part in csr)


def test_unknown_names_are_named():
    record = knowledge_graph(1)
    with pytest.raises(InputError, match="no edge type 'CtG'.*CtD"):
        TypedGraph.from_knowledge_graph(record).edges("CtG")
    with pytest.raises(InputError, match="'PdD'.*node types that it lacks"):
        TypedGraph.from_knowledge_graph(record, {"PdD": ("Pathway", "Disease")})


def test_repr_says_what_is_in_it():
    graph = TypedGraph.from_knowledge_graph(knowledge_graph(1))
    assert repr(graph).startswith("TypedGraph(6 Compounds, 4 Diseases, 9 Genes; 5 edge types")

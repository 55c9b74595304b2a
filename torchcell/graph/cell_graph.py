"""``CellGraph``: all networks of the wild-type cell as one multigraph that all samples share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from torchcell.graph.network import GeneRules, Network
from torchcell.io.configurable import configurable
from torchcell.io.errors import InputError, near, some
from torchcell.io.hetero_data import EdgeType, edge_types, hetero_node_names, read_hetero_data
from torchcell.io.paths import located

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData


def owner(ptr: Tensor, n_members: int) -> Tensor:
    """The set of each member.

    Args:
        ptr: Set b has members ``ptr[b]`` to ``ptr[b + 1]``, int64 [B + 1].
        n_members: M; given, since reading it from the device would synchronize.

    Returns:
        int64 [M].
    """
    sets = torch.arange(len(ptr) - 1, device=ptr.device)
    return torch.repeat_interleave(sets, ptr.diff(), output_size=n_members)


def expand(start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """All numbers of the ranges ``start[i]`` to ``start[i] + size[i]``, one range after the other.

    Args:
        start: First numbers, int64 [C].
        size: Lengths, int64 [C]; may be 0.

    Returns:
        The numbers, int64 [E], and the range of each, int64 [E].
    """
    total = int(size.sum())
    range_of = torch.repeat_interleave(torch.arange(len(size), device=size.device), size, output_size=total)
    return torch.arange(total, device=size.device) + (start - (size.cumsum(0) - size))[range_of], range_of


class Conjuncts(nn.Module):
    """Gene rules by number: gene -> conjuncts (sets of genes) with it -> node that needs one complete conjunct.

    Args:
        rules: Rules by name. A gene that the graph does not know is never deleted.
        graph: Graph with the numbers of genes and nodes.

    Raises:
        InputError: A rule for a node that is not in the graph.
    """

    def __init__(self, rules: GeneRules, graph: CellGraph) -> None:
        super().__init__()
        if rules.kind not in graph.node_types:
            raise InputError(
                f"the gene rules are for {rules.kind}s, but no relation of the graph names any: add such a relation, "
                "or set the graph's rules to null"
            )
        position = {name: i for i, name in enumerate(graph.names(rules.kind).tolist())}
        unknown = [name for name in rules.target.tolist() if name not in position]
        if unknown:
            raise InputError(f"gene rules for {rules.kind}s that no relation of the graph names: {some(unknown)}")
        node = graph.span(rules.kind).start + np.array(
            [position[name] for name in rules.target.tolist()], dtype=np.int64
        )
        gene = graph.index(rules.gene.tolist())
        conjunct = np.repeat(np.arange(len(rules.owner)), np.diff(rules.ptr))[gene >= 0]
        order = np.argsort(gene[gene >= 0], kind="stable")
        count = np.bincount(gene[gene >= 0], minlength=len(graph))
        self.node: Tensor
        self.needed: Tensor
        self.conjunct: Tensor
        self.ptr: Tensor
        tensors = {
            "ptr": np.concatenate([[0], count.cumsum()]),  # gene -> its conjuncts
            "conjunct": conjunct[order],
            "node": node[rules.owner],  # of each conjunct
            "needed": np.bincount(node[rules.owner], minlength=graph.n_nodes),  # conjuncts of each node
        }
        for name, values in tensors.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.int64)), persistent=False)

    def deleted(self, owner_K: Tensor, gene_K: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes without a complete conjunct.

        Args:
            owner_K: Perturbation of each deleted gene, int64 [K].
            gene_K: The genes, each once in a perturbation [K].

        Returns:
            Perturbation and node of each deletion, int64.
        """
        start, size = self.ptr[gene_K], self.ptr[gene_K + 1] - self.ptr[gene_K]
        position, member = expand(start, size)
        broken = self.conjunct[position]
        key = (owner_K[member] * len(self.node) + broken).unique()
        owner, node = key // max(len(self.node), 1), self.node[key % max(len(self.node), 1)]
        key, count = (owner * len(self.needed) + node).unique(return_counts=True)
        key = key[count == self.needed[key % len(self.needed)]]
        return key // len(self.needed), key % len(self.needed)


def node_names(networks: Iterable[Network]) -> dict[str, list[str]]:
    """Node type -> all names in the networks, sorted; genes first."""
    by_type: dict[str, set[str]] = {"gene": set()}
    for network in networks:
        by_type["gene"].update(network.genes.tolist())
        by_type.setdefault(network.source_type, set()).update(network.source.tolist())
        by_type.setdefault(network.target_type, set()).update(network.target.tolist())
    return {node_type: sorted(names) for node_type, names in by_type.items()}


def network_matrix(network: Network, names: Mapping[str, Sequence[str]], dropped: dict[str, int]) -> sp.csr_matrix:
    """Edges among the known names as a matrix [targets, sources].

    Args:
        network: The edges.
        names: Node type -> ordered names.
        dropped: Gets counts of what is left out: edges to unknown names, self-loops.

    Raises:
        InputError: No edge is left.
    """
    ends = ((network.source, network.source_type), (network.target, network.target_type))
    source, target = (_positions(listed, names[kind]) for listed, kind in ends)
    unknown = (source < 0) | (target < 0)
    loop = (source == target) & (network.source_type == network.target_type)
    zero = (network.weight == 0) & ~unknown & ~loop
    for reason, mask in (
        ("edges to unknown genes", unknown), ("self-loops", loop & ~unknown), ("edges of weight 0", zero)
    ):  # fmt: skip
        if mask.any():
            dropped[f"{network.name}: {reason}"] = int(mask.sum())
    keep = ~(unknown | loop | zero)
    if not keep.any():
        unknown_names = np.unique(np.concatenate([network.source[source < 0], network.target[target < 0]]))
        raise InputError(
            f"relation {network.name} has no edges among the graph's nodes: {len(unknown_names):,} of its names are "
            f"not there, {some(unknown_names)}; give it the graph's own names, or leave it out of the graph's config"
        )
    row, column, weight = target[keep], source[keep], network.weight[keep]
    if not network.directed:
        row, column = np.concatenate([row, column]), np.concatenate([column, row])
        weight = np.concatenate([weight, weight])
    order = np.lexsort((-weight, column, row))  # of duplicates the one with the largest weight comes first
    row, column, weight = row[order], column[order], weight[order]
    first = np.ones(len(row), dtype=bool)
    first[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    shape = (len(names[network.target_type]), len(names[network.source_type]))
    return sp.csr_matrix((weight[first], (row[first], column[first])), shape=shape)


def _positions(listed: np.ndarray, names: Sequence[str]) -> np.ndarray:
    position = {name: i for i, name in enumerate(names)}
    return np.array([position.get(name, -1) for name in listed.tolist()])


class CSR(NamedTuple):
    """A sparse matrix: row i has ``indices[indptr[i]:indptr[i + 1]]``; int32, float32."""

    indptr: Tensor
    indices: Tensor
    weight: Tensor


class CellGraph(nn.Module):
    """Nodes and typed relations; for each relation a CSR matrix and its transpose as buffers on the device.

    Row i of a relation's matrix A has the sources of the edges into node i, so that ``A @ X`` sums messages at their
    targets. Undirected relations are made symmetric. Every edge is there once (with its largest weight), and no node
    has an edge to itself. The buffers are shared by all samples, never part of a batch, and not part of a
    ``state_dict``: ``to_plain`` saves them.

    All nodes have one numbering: genes 0 to N - 1, then the other types in their order. The indices of a relation
    count within its own types.

    Args:
        genes: Gene names in order, each once.
        matrices: Relation name -> SciPy sparse matrix [targets, sources] of edge weights.
        directed: Names of the directed relations.
        dropped: Counts of what was left out, e.g. ``physical: self-loops`` -> 12.
        nodes: Further node types and their names, e.g. ``reaction``, ``metabolite``, ``term``.
        ends: Relation -> types of source and target; by default both are genes.
        rules: Which nodes are deleted with which genes; all these nodes are of one further type.

    Raises:
        InputError: A name listed twice, a matrix of another size, a relation without edges, an unknown type.
    """

    restrict: Literal["screen"] | None = None
    """What the datamodule of a screen restricts the graph to; see ``from_networks``."""

    def __init__(
        self,
        genes: Sequence[str],
        matrices: Mapping[str, sp.spmatrix],
        directed: Iterable[str] = (),
        dropped: Mapping[str, int] | None = None,
        nodes: Mapping[str, Sequence[str]] | None = None,
        ends: Mapping[str, tuple[str, str]] | None = None,
        rules: GeneRules | None = None,
    ) -> None:
        super().__init__()
        if "gene" in (nodes or {}):
            raise InputError("genes are the graph's first argument; leave them out of its further nodes")
        names = {"gene": genes, **(nodes or {})}
        self._names = {kind: np.asarray(listed, dtype=str) for kind, listed in names.items()}
        self.genes = self._names["gene"]
        for kind, listed in self._names.items():
            unique, counts = np.unique(listed, return_counts=True)
            if (counts > 1).any():
                raise InputError(f"the graph lists {kind}s twice: {some(unique[counts > 1])}")
        self.relations = tuple(matrices)
        self.directed = frozenset(directed)
        self.dropped = dict(dropped or {})
        self._ends = dict.fromkeys(self.relations, ("gene", "gene")) | dict(ends or {})
        stray = [relation for relation in self._ends if relation not in self.relations]
        if stray:
            raise InputError(f"ends are given for relations without a matrix: {some(stray)}")
        for relation, matrix in matrices.items():
            csr = sp.csr_matrix(matrix, dtype=np.float32)
            source, target = self._ends[relation]
            shape = (len(self.names(target)), len(self.names(source)))
            if csr.shape != shape:
                raise InputError(
                    f"relation {relation} has shape {csr.shape} for {shape[0]} {target}s, {shape[1]} {source}s"
                )
            if source != target and relation not in self.directed:
                raise InputError(f"relation {relation} joins {source}s to {target}s: list it among the directed ones")
            if csr.nnz == 0:
                raise InputError(f"relation {relation} has no edges; leave it out of the graph's config")
            self._register(relation, csr)
        self.rules = rules
        self.conjuncts = None if rules is None else Conjuncts(rules, self)
        self.hash = self._hash()

    def _register(self, relation: str, csr: sp.csr_matrix) -> None:
        prefix = self._prefix(relation)
        for suffix, matrix in (("", csr), ("_t", csr.T.tocsr())):
            matrix.sort_indices()
            self.register_buffer(f"{prefix}_indptr{suffix}", _int32(matrix.indptr), persistent=False)
            self.register_buffer(f"{prefix}_indices{suffix}", _int32(matrix.indices), persistent=False)
            weight = torch.from_numpy(matrix.data.astype(np.float32))
            self.register_buffer(f"{prefix}_weight{suffix}", weight, persistent=False)

    def _prefix(self, relation: str) -> str:
        """Prefix of its buffers: a number, since names of relations may have dots and names of buffers may not."""
        return f"relation{self.relations.index(relation)}"

    @classmethod
    @configurable
    def from_networks(
        cls,
        networks: Iterable[Network],
        genes: Sequence[str] | None = None,
        relations: Sequence[str] | None = None,
        rules: GeneRules | None = None,
        restrict: Literal["screen"] | None = None,
    ) -> CellGraph:
        """Build the graph from edge lists by name.

        Args:
            networks: The edge lists; each becomes one relation.
            genes: The ordered gene list; edges to other genes are left out and counted in ``dropped``.
                By default all genes that any network names, sorted.
            relations: Keep only these, in this order; an unknown name is an error.
            rules: Which nodes are deleted with which genes.
            restrict: ``screen`` keeps only the genes of the screen and their neighbors, see ``around``.
        """
        if restrict not in (None, "screen"):
            raise InputError(f"graph.restrict={restrict!r}: it is screen, or null for the whole network")
        by_name = {network.name: network.validate() for network in networks}
        if relations is not None:
            for name in relations:
                if name not in by_name:
                    hint = near(name, list(by_name)) or list(by_name)
                    raise InputError(f"no network named {name!r}; the nearest are {hint}")
            by_name = {name: by_name[name] for name in relations}
        names = node_names(by_name.values())
        if genes is not None:
            names["gene"] = list(genes)
        dropped: dict[str, int] = {}
        matrices = {name: network_matrix(network, names, dropped) for name, network in by_name.items()}
        graph = cls(
            names.pop("gene"),
            matrices,
            [network.name for network in by_name.values() if network.directed],
            dropped,
            names,
            {network.name: (network.source_type, network.target_type) for network in by_name.values()},
            rules,
        )
        graph.restrict = restrict
        return graph

    def __len__(self) -> int:
        return len(self.genes)

    def fingerprint(self) -> str:
        """``hash``: a hash over all names, edges, weights and rules."""
        return self.hash

    @property
    def node_types(self) -> tuple[str, ...]:
        """Node types, genes first."""
        return tuple(self._names)

    @property
    def n_nodes(self) -> int:
        """Number of nodes of all types."""
        return sum(map(len, self._names.values()))

    def names(self, kind: str) -> np.ndarray:
        """Names of the nodes of one type, in order."""
        if kind not in self._names:
            raise InputError(f"the graph has no nodes of type {kind!r}; it has {list(self._names)}")
        return self._names[kind]

    def span(self, kind: str) -> slice:
        """Positions of the nodes of one type among all nodes."""
        size, before = len(self.names(kind)), 0
        for other, listed in self._names.items():
            if other == kind:
                break
            before += len(listed)
        return slice(before, before + size)

    def ends(self, relation: str) -> tuple[str, str]:
        """Types of a relation's sources and targets."""
        self._check(relation)
        return self._ends[relation]

    def csr(self, relation: str, transpose: bool = False) -> CSR:
        """The matrix of one relation [targets, sources], or its transpose, on the module's device."""
        self._check(relation)
        suffix, prefix = "_t" if transpose else "", self._prefix(relation)
        return CSR(*(getattr(self, f"{prefix}_{part}{suffix}") for part in CSR._fields))

    def _check(self, relation: str) -> None:
        if relation not in self.relations:
            hint = near(relation, self.relations) or list(self.relations)
            raise InputError(f"the graph has no relation {relation!r}; the nearest are {hint}")

    def scipy(self, relation: str) -> sp.csr_matrix:
        """The matrix of one relation as SciPy CSR, for baselines and statistics on the CPU."""
        indptr, indices, weight = (part.cpu().numpy() for part in self.csr(relation))
        source, target = self.ends(relation)
        return sp.csr_matrix((weight, indices, indptr), shape=(len(self.names(target)), len(self.names(source))))

    def n_edges(self, relation: str) -> int:
        """Number of edges of a relation; an undirected edge counts once."""
        stored = len(self.csr(relation).indices)
        return stored if relation in self.directed else stored // 2

    def index(self, names: Iterable[str]) -> np.ndarray:
        """Positions of the named genes, int64; -1 for a gene that the graph does not know."""
        position = {name: i for i, name in enumerate(self.genes.tolist())}
        return np.array([position.get(name, -1) for name in names], dtype=np.int64)

    def only(self, relations: Sequence[str]) -> CellGraph:
        """The same nodes and rules with some of the relations; the graph itself where these are all."""
        if tuple(relations) == self.relations:
            return self
        return CellGraph(
            self.genes.tolist(),
            {name: self.scipy(name) for name in relations},
            self.directed & set(relations),
            self.dropped,
            {kind: listed.tolist() for kind, listed in self._names.items() if kind != "gene"},
            {name: self.ends(name) for name in relations},
            self.rules,
        )

    def renamed(self, names: Mapping[str, str]) -> CellGraph:
        """The same cell with other names for some of its genes."""
        if not names:
            return self
        if self.rules is not None:
            raise InputError("a graph with gene rules can't be given other names; rename the genes in its files")
        nodes = {kind: listed.tolist() for kind, listed in self._names.items() if kind != "gene"}
        matrices = {name: self.scipy(name) for name in self.relations}
        genes = [names.get(gene, gene) for gene in self.genes.tolist()]
        graph = CellGraph(genes, matrices, self.directed, self.dropped, nodes, self._ends)
        graph.restrict = self.restrict
        return graph

    def around(self, genes: Sequence[str] | np.ndarray) -> CellGraph:
        """The named genes with the nodes of any type that share an edge with one, and the edges among all of these.

        Raises:
            InputError: The graph has gene rules, which need all of their genes.
        """
        if self.rules is not None:
            raise InputError("graph.restrict can't cut a graph with gene rules; set graph.rules=null")
        near = {kind: np.zeros(len(listed), dtype=bool) for kind, listed in self._names.items()}
        named = np.isin(self.genes, genes)
        near["gene"] |= named
        for relation in self.relations:
            matrix, (source, target) = self.scipy(relation), self.ends(relation)
            if source == "gene":
                near[target] |= np.diff(matrix[:, named].indptr) > 0
            if target == "gene":
                near[source][matrix[named].indices] = True
        matrices = {r: self.scipy(r)[near[t]][:, near[s]] for r, (s, t) in self._ends.items()}
        kept = {relation: matrix for relation, matrix in matrices.items() if matrix.nnz}
        names = {kind: listed[near[kind]].tolist() for kind, listed in self._names.items() if near[kind].any()}
        directed, ends = self.directed & set(kept), {relation: self._ends[relation] for relation in kept}
        return CellGraph(names.pop("gene", []), kept, directed, self.dropped, names, ends)

    def with_genes(self, added: Sequence[str]) -> CellGraph:
        """The same cell with further genes at the end, without edges."""
        if not len(added):
            return self
        nodes = {kind: listed.tolist() for kind, listed in self._names.items() if kind != "gene"}
        sizes = {kind: len(listed) for kind, listed in self._names.items()} | {"gene": len(self) + len(added)}
        matrices = {name: self.scipy(name) for name in self.relations}
        for name, matrix in matrices.items():
            source, target = self.ends(name)
            matrix.resize(sizes[target], sizes[source])
        genes = [*self.genes.tolist(), *added]
        graph = CellGraph(genes, matrices, self.directed, self.dropped, nodes, self._ends, self.rules)
        graph.restrict = self.restrict
        return graph

    def to_plain(self) -> dict[str, Any]:
        """Strings, numbers and tensors only, so that a checkpoint loads with ``weights_only=True``."""
        csr = {name: [part.cpu() for part in self.csr(name)] for name in self.relations}
        return {
            "genes": self.genes.tolist(),
            "directed": sorted(self.directed),
            "csr": csr,
            "hash": self.hash,
            "nodes": {kind: listed.tolist() for kind, listed in self._names.items() if kind != "gene"},
            "ends": {name: list(self._ends[name]) for name in self.relations},
            "rules": None if self.rules is None else self.rules.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CellGraph:
        """The inverse of ``to_plain``; a wrong hash is an error."""
        nodes, ends = plain.get("nodes", {}), {name: tuple(kinds) for name, kinds in plain.get("ends", {}).items()}
        sizes = {kind: len(listed) for kind, listed in {"gene": plain["genes"], **nodes}.items()}
        matrices = {}
        for name, (p, i, w) in plain["csr"].items():
            source, target = ends.get(name, ("gene", "gene"))
            matrices[name] = sp.csr_matrix((w.numpy(), i.numpy(), p.numpy()), shape=(sizes[target], sizes[source]))
        rules = plain.get("rules")
        rules = None if rules is None else GeneRules.from_plain(rules)
        graph = cls(plain["genes"], matrices, plain["directed"], None, nodes, ends, rules)
        if graph.hash != plain["hash"]:
            raise InputError(f"the graph's hash is {graph.hash}, the file says {plain['hash']}: it was changed")
        return graph

    def to_hetero_data(self) -> HeteroData:
        """The graph for torch-geometric: ``data[type].node_id``, and ``data[source type, relation, target type]``.

        An edge type has ``edge_index``, int64 [2, E] of sources and targets, ``edge_weight``, float32 [E], and
        ``directed``; an undirected relation has its edges both ways. ``data.rules`` are the gene rules, if any.

        Example:
            >>> write_hetero_data(graph.to_hetero_data(), "graph.pt")
        """
        from torch_geometric.data import HeteroData

        data = HeteroData()
        for kind, listed in self._names.items():
            data[kind].node_id, data[kind].num_nodes = listed.tolist(), len(listed)
        for name in self.relations:
            source, target = self._ends[name]
            indptr, indices, weight = (part.cpu() for part in self.csr(name))
            row = torch.repeat_interleave(torch.arange(len(indptr) - 1), indptr.diff().long())
            edges = data[source, name, target]
            edges.edge_index, edges.edge_weight = torch.stack([indices.long(), row]), weight.clone()
            edges.directed = name in self.directed
        if self.rules is not None:
            data.rules = self.rules.to_plain()
        return data

    @classmethod
    def from_hetero_data(
        cls, data: HeteroData, genes: str = "gene", directed: Sequence[str] = (), weight: str = "edge_weight"
    ) -> CellGraph:
        """The inverse of ``to_hetero_data``, also of a graph made elsewhere.

        A relation within one type is undirected where all its edges are there in both directions, unless its attribute
        ``directed`` says otherwise. A name that several pairs of types share becomes ``source-relation-target``.
        Features of nodes, and further attributes of edges, are left out.

        Args:
            data: The graph; names of genes are in ``node_id``.
            genes: Node type of the genes.
            directed: Further relations that are directed.
            weight: Attribute with the weights of edges, [E]; without it all are 1.

        Raises:
            InputError: No genes, or genes without names; errors of ``edge_types`` and ``CellGraph``.
        """
        if genes not in data.node_types:
            raise InputError(f"the graph has no node type {genes!r} for its genes; it has {data.node_types}")
        if not all(isinstance(name, str) for name in data[genes].get("node_id") or [None]):
            raise InputError(f"genes have no names: give data[{genes!r}].node_id, a list of texts")
        called = {kind: "gene" if kind == genes else kind for kind in (genes, *data.node_types)}
        names = {called[kind]: hetero_node_names(data, kind).tolist() for kind in called}
        networks = [_network(one, called, names, one.name in directed, weight) for one in edge_types(data)]
        dropped: dict[str, int] = {}
        matrices = {network.name: network_matrix(network, names, dropped) for network in networks}
        return cls(
            names.pop("gene"),
            matrices,
            [network.name for network in networks if network.directed],
            dropped,
            names,
            {network.name: (network.source_type, network.target_type) for network in networks},
            GeneRules.from_plain(data["rules"]) if "rules" in data._global_store else None,
        )

    @classmethod
    @configurable
    def from_file(
        cls,
        path: str | Path,
        genes: str = "gene",
        directed: Sequence[str] = (),
        restrict: Literal["screen"] | None = None,
    ) -> CellGraph:
        """Read a file with a graph of torch-geometric, see ``read_hetero_data`` and ``from_hetero_data``."""
        graph = cls.from_hetero_data(read_hetero_data(located(path)), genes, directed)
        graph.restrict = restrict
        return graph

    def _hash(self) -> str:
        digest = hashlib.sha256("\n".join(self.genes.tolist()).encode())
        for name in self.relations:
            digest.update(f"\n{name} {'directed' if name in self.directed else 'undirected'}\n".encode())
            for part in self.csr(name):
                digest.update(part.cpu().numpy().tobytes())
        if len(self._names) > 1:
            rest = {kind: listed.tolist() for kind, listed in self._names.items() if kind != "gene"}
            rules = None if self.rules is None else self.rules.to_plain()
            digest.update(json.dumps([rest, {name: self._ends[name] for name in self.relations}, rules]).encode())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        """Nodes of each type and edges of each relation."""
        nodes = ", ".join(f"{len(listed):,} {kind}s" for kind, listed in self._names.items())
        edges = ", ".join(f"{name}: {self.n_edges(name):,}" for name in self.relations)
        return f"{nodes}; {edges}"


def _network(
    one: EdgeType, called: Mapping[str, str], names: Mapping[str, Sequence[str]], one_way: bool, weight: str
) -> Network:
    """One relation of a ``HeteroData`` as an edge list by name."""
    source, target = (called[kind] for kind in one.ends)
    ends = zip(one.source.tolist(), one.target.tolist(), strict=True)
    pairs = set(ends) if source == target else set()
    both_ways = source == target and all((b, a) in pairs for a, b in pairs)
    given = one.rest.get(weight)
    values = np.ones(len(one.source)) if given is None else np.asarray(given)
    return Network(
        one.name,
        np.asarray(names[source], dtype=str)[one.source],
        np.asarray(names[target], dtype=str)[one.target],
        values.reshape(-1).astype(np.float32),
        one_way or bool(one.rest.get("directed", not both_ways)),
        source_type=source,
        target_type=target,
    ).validate()


def _int32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int32))


ANNOTATED, ABOVE = "annotated", "is_a"
"""Relations from genes to terms, and from a term to its parent terms; see ``torchcell.screen.yeast_cell``."""


def has_annotations(graph: CellGraph) -> bool:
    """Whether the graph has annotations of its genes."""
    return ANNOTATED in graph.relations


def annotation_table(graph: CellGraph) -> sp.csr_matrix:
    r"""TF-IDF of the terms of each gene: x_gt = log(n / n_t) where g has t or a term below it, rows of length 1.

    Args:
        graph: Graph with the relation ``annotated`` from genes to terms. With ``is_a`` from a term to its parents,
            annotations are propagated to all ancestors.

    Returns:
        [genes, terms], float32; n is the number of genes with any annotation. The row of a gene without is empty.
    """
    source, term = graph.ends(ANNOTATED)
    if source != "gene":
        raise InputError(f"relation {ANNOTATED!r} must run from genes, not from {source}s")
    has = (graph.scipy(ANNOTATED).T != 0).tocsr()
    if ABOVE in graph.relations and graph.ends(ABOVE) == (term, term):
        above = (graph.scipy(ABOVE).T != 0).tocsr()
        n_before = -1
        while has.nnz > n_before:  # one level in each round; a cycle adds nothing the second time
            n_before = has.nnz
            has = (has + has @ above).tocsr()
    count = np.asarray(has.sum(0)).ravel()
    n = int((np.diff(has.indptr) > 0).sum())
    return unit_rows((has.astype(np.float32) @ sp.diags(np.log(n / np.maximum(count, 1)))).tocsr())


def unit_rows(table: sp.csr_matrix) -> sp.csr_matrix:
    """Rows scaled to length 1; empty rows stay empty."""
    length = np.sqrt(np.asarray(table.multiply(table).sum(1)).ravel())
    scale = np.divide(1, length, out=np.zeros_like(length), where=length > 0)
    return (sp.diags(scale) @ table).tocsr().astype(np.float32)


def deleted_nodes(graph: CellGraph, gene: Tensor, ptr: Tensor) -> tuple[Tensor, Tensor]:
    """The nodes that each perturbation deletes: its genes, and nodes that need them.

    Args:
        graph: The wild type.
        gene: Genes of all perturbations, int64 [M]; -1 for a gene that the graph does not know, which is not deleted.
        ptr: Perturbation i is ``gene[ptr[i]:ptr[i + 1]]``, int64 [B + 1].

    Returns:
        Numbers among all nodes, sorted and each once within a perturbation, int64 [K], and pointers [B + 1].
    """
    n_samples, n_nodes = len(ptr) - 1, graph.n_nodes
    key = (owner(ptr, len(gene)) * n_nodes + gene)[gene >= 0].unique()
    if graph.conjuncts is not None:
        sample, node = graph.conjuncts.deleted(key // n_nodes, key % n_nodes)
        key = torch.cat([key, sample * n_nodes + node]).sort().values
    return key % n_nodes, torch.searchsorted(key, torch.arange(n_samples + 1, device=gene.device) * n_nodes)

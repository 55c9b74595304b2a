"""``CellGraph``: the wild-type cell as one multigraph over its genes and further nodes, held once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from torchcell.data.errors import InputError, near, some
from torchcell.data.gene_rule import GeneRules
from torchcell.data.network import Network
from torchcell.graph.conjuncts import Conjuncts
from torchcell.graph.matrices import network_matrix, node_names


class CSR(NamedTuple):
    """A sparse matrix: row i holds ``indices[indptr[i]:indptr[i + 1]]``; int32, float32."""

    indptr: Tensor
    indices: Tensor
    weight: Tensor


class CellGraph(nn.Module):
    """Nodes and typed relations; one CSR matrix and its transpose a relation, as buffers on the device.

    Row i of a relation's matrix A holds the sources of the edges into node i, so ``A @ X`` gathers
    messages at their targets. Undirected relations are symmetrised. No edge stands twice (the larger
    weight stays) and no node has an edge to itself. The buffers are shared by all samples, never part
    of a batch, and not part of a ``state_dict``: ``to_plain`` carries them.

    All nodes are numbered through: genes 0 to N - 1, then the other types in their order. The indices of a
    relation count within its own types.

    Args:
        genes: Gene names in order, each once.
        matrices: Relation name -> SciPy sparse matrix [targets, sources] of edge weights.
        directed: Names of the directed relations.
        lost: What was left out on the way, e.g. ``physical: self-loops`` -> 12.
        nodes: Further node types and their names, e.g. ``reaction``, ``metabolite``, ``term``.
        ends: Relation -> types of source and target; by default both are genes.
        rules: Which nodes are lost with which genes; their targets are all of one further type.

    Raises:
        InputError: A name listed twice, a matrix of another size, a relation without edges, an unknown type.
    """

    restrict: Literal["screen"] | None = None
    """What a screen's datamodule cuts it to; see ``from_networks``."""

    def __init__(
        self,
        genes: Sequence[str],
        matrices: Mapping[str, sp.spmatrix],
        directed: Iterable[str] = (),
        lost: Mapping[str, int] | None = None,
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
        self.lost = dict(lost or {})
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
        place = self._place(relation)
        for suffix, matrix in (("", csr), ("_t", csr.T.tocsr())):
            matrix.sort_indices()
            self.register_buffer(f"{place}_indptr{suffix}", _int32(matrix.indptr), persistent=False)
            self.register_buffer(f"{place}_indices{suffix}", _int32(matrix.indices), persistent=False)
            weight = torch.from_numpy(matrix.data.astype(np.float32))
            self.register_buffer(f"{place}_weight{suffix}", weight, persistent=False)

    def _place(self, relation: str) -> str:
        """What its buffers are called: by number, since a relation may have a dot in its name and a buffer not."""
        return f"relation{self.relations.index(relation)}"

    @classmethod
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
            genes: The ordered gene list; edges to other genes are left out and counted in ``lost``.
                By default all genes that any network names, sorted.
            relations: Keep only these, in this order; an unknown name is an error.
            rules: Which nodes are lost with which genes.
            restrict: ``screen`` leaves a screen's datamodule the screen's genes and their neighbors, see ``around``.
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
        lost: dict[str, int] = {}
        matrices = {name: network_matrix(network, names, lost) for name, network in by_name.items()}
        graph = cls(
            names.pop("gene"),
            matrices,
            [network.name for network in by_name.values() if network.directed],
            lost,
            names,
            {network.name: (network.source_type, network.target_type) for network in by_name.values()},
            rules,
        )
        graph.restrict = restrict
        return graph

    def __len__(self) -> int:
        return len(self.genes)

    def fingerprint(self) -> str:
        """``hash``, which is over all names, edges, weights and rules."""
        return self.hash

    @property
    def node_types(self) -> tuple[str, ...]:
        """Genes first, then the further types."""
        return tuple(self._names)

    @property
    def n_nodes(self) -> int:
        """Nodes of all types."""
        return sum(map(len, self._names.values()))

    def names(self, kind: str) -> np.ndarray:
        """Names of the nodes of one type, in order."""
        if kind not in self._names:
            raise InputError(f"the graph has no nodes of type {kind!r}; it has {list(self._names)}")
        return self._names[kind]

    def span(self, kind: str) -> slice:
        """Where the nodes of one type stand among all nodes."""
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
        suffix, place = "_t" if transpose else "", self._place(relation)
        return CSR(*(getattr(self, f"{place}_{part}{suffix}") for part in CSR._fields))

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
        """Edges of a relation; an undirected one counts each pair once."""
        stored = len(self.csr(relation).indices)
        return stored if relation in self.directed else stored // 2

    def index(self, names: Iterable[str]) -> np.ndarray:
        """Positions of the named genes, int64; -1 for a gene that the graph does not know."""
        position = {name: i for i, name in enumerate(self.genes.tolist())}
        return np.array([position.get(name, -1) for name in names], dtype=np.int64)

    def only(self, relations: Sequence[str]) -> CellGraph:
        """The same nodes and rules with some of the relations; itself where these are all."""
        if tuple(relations) == self.relations:
            return self
        return CellGraph(
            self.genes.tolist(),
            {name: self.scipy(name) for name in relations},
            self.directed & set(relations),
            self.lost,
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
        graph = CellGraph(genes, matrices, self.directed, self.lost, nodes, self._ends)
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
        return CellGraph(names.pop("gene", []), kept, directed, self.lost, names, ends)

    def with_genes(self, added: Sequence[str]) -> CellGraph:
        """The same cell with further genes after its own, of which no relation knows anything yet."""
        if not len(added):
            return self
        nodes = {kind: listed.tolist() for kind, listed in self._names.items() if kind != "gene"}
        sizes = {kind: len(listed) for kind, listed in self._names.items()} | {"gene": len(self) + len(added)}
        matrices = {name: self.scipy(name) for name in self.relations}
        for name, matrix in matrices.items():
            source, target = self.ends(name)
            matrix.resize(sizes[target], sizes[source])
        genes = [*self.genes.tolist(), *added]
        graph = CellGraph(genes, matrices, self.directed, self.lost, nodes, self._ends, self.rules)
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
        """The inverse of ``to_plain``; a hash that does not fit is an error."""
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
        """Nodes a type and edges a relation."""
        nodes = ", ".join(f"{len(listed):,} {kind}s" for kind, listed in self._names.items())
        edges = ", ".join(f"{name}: {self.n_edges(name):,}" for name in self.relations)
        return f"{nodes}; {edges}"


def _int32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int32))

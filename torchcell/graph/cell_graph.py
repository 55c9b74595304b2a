"""``CellGraph``: the wild-type cell as one multigraph over an ordered gene list, held once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from torchcell.data.errors import InputError, near, some
from torchcell.data.network import Network


class CSR(NamedTuple):
    """A sparse N x N matrix: row i holds ``indices[indptr[i]:indptr[i + 1]]``; int32, float32."""

    indptr: Tensor
    indices: Tensor
    weight: Tensor


class CellGraph(nn.Module):
    """Genes and typed relations; one CSR matrix and its transpose a relation, as buffers on the device.

    Row i of a relation's matrix A holds the sources of the edges into gene i, so ``A @ X`` gathers
    messages at their targets. Undirected relations are symmetrised. No edge stands twice (the larger
    weight stays) and no gene has an edge to itself. The buffers are shared by all samples, never part
    of a batch, and not part of a ``state_dict``: ``to_plain`` carries them.

    Args:
        genes: Gene names in order, each once.
        matrices: Relation name -> SciPy sparse matrix [N, N] of edge weights.
        directed: Names of the directed relations.
        lost: What was left out on the way, e.g. ``physical: self-loops`` -> 12.

    Raises:
        InputError: A gene listed twice, a matrix of another size, a relation without edges.
    """

    def __init__(
        self,
        genes: Sequence[str],
        matrices: Mapping[str, sp.spmatrix],
        directed: Iterable[str] = (),
        lost: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.genes = np.asarray(genes, dtype=str)
        unique, counts = np.unique(self.genes, return_counts=True)
        if (counts > 1).any():
            raise InputError(f"the graph lists genes twice: {some(unique[counts > 1])}")
        self.relations = tuple(matrices)
        self.directed = frozenset(directed)
        self.lost = dict(lost or {})
        for relation, matrix in matrices.items():
            csr = sp.csr_matrix(matrix, dtype=np.float32)
            if csr.shape != (len(self.genes), len(self.genes)):
                raise InputError(f"relation {relation} has shape {csr.shape} for {len(self.genes)} genes")
            if csr.nnz == 0:
                raise InputError(f"relation {relation} has no edges; leave it out of the graph's config")
            self._register(relation, csr)
        self.hash = self._hash()

    def _register(self, relation: str, csr: sp.csr_matrix) -> None:
        for suffix, matrix in (("", csr), ("_t", csr.T.tocsr())):
            matrix.sort_indices()
            self.register_buffer(f"{relation}_indptr{suffix}", _int32(matrix.indptr), persistent=False)
            self.register_buffer(f"{relation}_indices{suffix}", _int32(matrix.indices), persistent=False)
            weight = torch.from_numpy(matrix.data.astype(np.float32))
            self.register_buffer(f"{relation}_weight{suffix}", weight, persistent=False)

    @classmethod
    def from_networks(
        cls,
        networks: Iterable[Network],
        genes: Sequence[str] | None = None,
        relations: Sequence[str] | None = None,
    ) -> CellGraph:
        """Build the graph from edge lists by name.

        Args:
            networks: The edge lists; each becomes one relation.
            genes: The ordered gene list; edges to other genes are left out and counted in ``lost``.
                By default all genes that any network names, sorted.
            relations: Keep only these, in this order; an unknown name is an error.
        """
        by_name = {network.name: network.validate() for network in networks}
        if relations is not None:
            for name in relations:
                if name not in by_name:
                    hint = near(name, list(by_name)) or list(by_name)
                    raise InputError(f"no network named {name!r}; the nearest are {hint}")
            by_name = {name: by_name[name] for name in relations}
        if genes is None:
            named = [part for n in by_name.values() for part in (n.source, n.target, n.genes)]
            genes = np.unique(np.concatenate(named)).tolist()
        lost: dict[str, int] = {}
        matrices = {name: _matrix(network, genes, lost) for name, network in by_name.items()}
        return cls(genes, matrices, [n.name for n in by_name.values() if n.directed], lost)

    def __len__(self) -> int:
        return len(self.genes)

    def csr(self, relation: str, transpose: bool = False) -> CSR:
        """The matrix of one relation, or its transpose, on the module's device."""
        if relation not in self.relations:
            hint = near(relation, self.relations) or list(self.relations)
            raise InputError(f"the graph has no relation {relation!r}; the nearest are {hint}")
        suffix = "_t" if transpose else ""
        return CSR(*(getattr(self, f"{relation}_{part}{suffix}") for part in CSR._fields))

    def scipy(self, relation: str) -> sp.csr_matrix:
        """The matrix of one relation as SciPy CSR, for baselines and statistics on the CPU."""
        indptr, indices, weight = (part.cpu().numpy() for part in self.csr(relation))
        return sp.csr_matrix((weight, indices, indptr), shape=(len(self), len(self)))

    def n_edges(self, relation: str) -> int:
        """Edges of a relation; an undirected one counts each pair once."""
        stored = len(self.csr(relation).indices)
        return stored if relation in self.directed else stored // 2

    def index(self, names: Iterable[str]) -> np.ndarray:
        """Positions of the named genes, int64; -1 for a gene that the graph does not know."""
        position = {name: i for i, name in enumerate(self.genes.tolist())}
        return np.array([position.get(name, -1) for name in names], dtype=np.int64)

    def to_plain(self) -> dict[str, Any]:
        """Strings and tensors only, so that a checkpoint loads with ``weights_only=True``."""
        csr = {name: [part.cpu() for part in self.csr(name)] for name in self.relations}
        return {
            "genes": self.genes.tolist(),
            "directed": sorted(self.directed),
            "csr": csr,
            "hash": self.hash,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> CellGraph:
        """The inverse of ``to_plain``; a hash that does not fit is an error."""
        n = len(plain["genes"])
        matrices = {
            name: sp.csr_matrix((w.numpy(), i.numpy(), p.numpy()), shape=(n, n))
            for name, (p, i, w) in plain["csr"].items()
        }
        graph = cls(plain["genes"], matrices, plain["directed"])
        if graph.hash != plain["hash"]:
            raise InputError(f"the graph's hash is {graph.hash}, the file says {plain['hash']}: it was changed")
        return graph

    def _hash(self) -> str:
        digest = hashlib.sha256("\n".join(self.genes.tolist()).encode())
        for name in self.relations:
            digest.update(f"\n{name} {'directed' if name in self.directed else 'undirected'}\n".encode())
            for part in self.csr(name):
                digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()

    def extra_repr(self) -> str:
        """Genes and edges per relation."""
        edges = ", ".join(f"{name}: {self.n_edges(name):,}" for name in self.relations)
        return f"{len(self):,} genes; {edges}"


def _int32(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.int32))


def _matrix(network: Network, genes: Sequence[str], lost: dict[str, int]) -> sp.csr_matrix:
    """Edges among ``genes`` as a matrix [target, source]; counts what is left out in ``lost``."""
    position = {name: i for i, name in enumerate(genes)}
    source = np.array([position.get(name, -1) for name in network.source.tolist()])
    target = np.array([position.get(name, -1) for name in network.target.tolist()])
    unknown, loop = (source < 0) | (target < 0), source == target
    for what, mask in (("edges to unknown genes", unknown), ("self-loops", loop & ~unknown)):
        if mask.any():
            lost[f"{network.name}: {what}"] = int(mask.sum())
    keep = ~(unknown | loop)
    row, column, weight = target[keep], source[keep], network.weight[keep]
    if not network.directed:
        row, column = np.concatenate([row, column]), np.concatenate([column, row])
        weight = np.concatenate([weight, weight])
    order = np.lexsort((-weight, column, row))  # of duplicates the one of largest weight comes first
    row, column, weight = row[order], column[order], weight[order]
    first = np.ones(len(row), dtype=bool)
    first[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1])
    shape = (len(genes), len(genes))
    return sp.csr_matrix((weight[first], (row[first], column[first])), shape=shape)

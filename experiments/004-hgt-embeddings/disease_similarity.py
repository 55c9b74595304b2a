"""Do diseases cluster by the similarity they were given? Cosine of two embeddings against their shared neighbors.

    python -m torchcell.embed ckpt=RUN/checkpoints/best.ckpt out=embeddings.h5ad
    python experiments/004-hgt-embeddings/disease_similarity.py RUN/checkpoints/best.ckpt embeddings.h5ad -o FOLDER

The similarity is the Jaccard index of two nodes' neighbors in the graph that the model saw, over all edge types, as in
the contrastive term; a pair is similar above `--above`. AUROC is the chance that a similar pair has a higher cosine
than one that is not; the same is asked of edges between nodes of the type, such as DrD. As a control the embeddings
are dealt to the wrong nodes of the type. Intervals resample nodes: a pair counts as often as the product of its ends.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from scipy.stats import spearmanr

from torchcell.evaluation.bootstrap import Interval, Weights, interval, resample
from torchcell.evaluation.metrics import auroc
from torchcell.io.embeddings import EmbeddingTable, read_embeddings
from torchcell.io.errors import InputError, near, some
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.report.plots import BLUE, GREY, INK, canvas
from torchcell.training import checkpoint

MOST = 1_000
"""Nodes of a type that are compared; of more, so many are drawn."""
BINS = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 1.0])


def main() -> None:
    """Write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, help="checkpoint whose graph gives the similarity")
    parser.add_argument("embeddings", type=Path, help="embeddings of its nodes")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for <type>_similarity.csv and .png")
    parser.add_argument("--type", dest="node_type", default="Disease")
    parser.add_argument("--above", type=float, default=0.1, help="Jaccard index above which a pair is similar")
    parser.add_argument("--n-boot", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    graph = TypedGraph.from_plain(checkpoint.load(given.ckpt).spec.knowledge_graph)
    if given.node_type not in graph.node_types:
        raise InputError(
            f"--type {given.node_type}: the nearest are {near(given.node_type, graph.node_types) or graph.node_types}"
        )
    code = graph.node_types.index(given.node_type)
    rng = np.random.default_rng(given.seed)
    node = graph.bounds[code] + np.sort(rng.permutation(graph.bounds[code + 1] - graph.bounds[code])[:MOST])
    x_ND = rows(read_embeddings(given.embeddings).validate(given.embeddings), graph.node_id[node])
    first, second = np.triu_indices(len(node), 1)
    cosine = cosines(x_ND)[first, second]
    wrong = cosines(x_ND[rng.permutation(len(x_ND))])[first, second]
    jaccard = shared_neighbors(graph, node)[first, second]

    found = {f"Jaccard > {given.above:g}": jaccard > given.above}
    for edge_type in graph.edge_types:
        if graph.ends[edge_type] == (code, code):
            found[f"{edge_type} edge"] = joined(graph, edge_type, node)[first, second]
    weights = pair_weights(len(node), first, second, given.n_boot, given.seed)
    table = []
    for question, similar in found.items():
        for what, values in (("embeddings", cosine), ("dealt to wrong nodes", wrong)):
            value = (
                interval(auroc(similar.astype(float), values, weights)) if similar.any() else Interval(*[np.nan] * 3, 0)
            )
            about = {
                "type": given.node_type,
                "nodes": len(node),
                "question": question,
                "similar pairs": int(similar.sum()),
            }
            table.append(about | {"cosine of": what, "auroc": value.value, "low": value.low, "high": value.high})
    print(pd.DataFrame(table).round(3).to_string(index=False))
    print(f"Spearman of cosine and Jaccard over {len(cosine):,} pairs: {spearmanr(cosine, jaccard)[0]:.3f}")
    given.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).round(4).to_csv(given.out / f"{given.node_type.lower()}_similarity.csv", index=False)
    draw(jaccard, cosine, wrong, given.above, given.node_type, given.out / f"{given.node_type.lower()}_similarity.png")


def rows(table: EmbeddingTable, ids: np.ndarray) -> np.ndarray:
    """Embeddings of the nodes ``ids``, in their order."""
    row = {name: i for i, name in enumerate(table.node_id.tolist())}
    missing = [name for name in ids.tolist() if name not in row]
    if missing:
        raise InputError(f"{len(missing)} nodes have no embedding: {some(missing)}")
    return table.values[[row[name] for name in ids.tolist()]].astype(np.float64)


def cosines(x_ND: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows [N, N]."""
    unit_ND = x_ND / np.linalg.norm(x_ND, axis=1, keepdims=True)
    return unit_ND @ unit_ND.T


def shared_neighbors(graph: TypedGraph, node: np.ndarray) -> np.ndarray:
    """Jaccard index of the neighbors of each pair of nodes, whatever the edge type [n, n]."""
    ends = [torch.cat(side) for side in zip(*(graph.edges(name) for name in graph.edge_types), strict=True)]
    source, target = (end.numpy() for end in ends)
    whole = sp.csr_matrix((np.ones(len(source)), (source, target)), shape=(len(graph), len(graph)))
    incidence = ((whole + whole.T)[node] > 0).astype(np.float64)
    both = (incidence @ incidence.T).toarray()
    either = both.diagonal()[:, None] + both.diagonal() - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def joined(graph: TypedGraph, edge_type: str, node: np.ndarray) -> np.ndarray:
    """Whether each pair of nodes has an edge, in either direction [n, n]."""
    source, target = (end.numpy() for end in graph.edges(edge_type))
    whole = sp.csr_matrix((np.ones(len(source)), (source, target)), shape=(len(graph), len(graph)))
    part = whole[node][:, node]
    return ((part + part.T) > 0).toarray()


def pair_weights(n: int, first: np.ndarray, second: np.ndarray, n_boot: int, seed: int) -> Weights:
    """Resamples of n nodes as weights of pairs; row 0 counts each pair once."""
    count = resample(np.arange(n), n_boot, seed).count.astype(np.uint16)
    return Weights(count[:, first] * count[:, second], np.arange(len(first)))


def draw(jaccard: np.ndarray, cosine: np.ndarray, wrong: np.ndarray, above: float, node_type: str, path: Path) -> None:
    """Quartiles of the cosine by similarity, beside those of the control."""
    figure, axes = canvas(6.4, 3.4)
    axis, place = axes[0, 0], np.arange(len(BINS) - 1)
    bin_of = np.clip(np.searchsorted(BINS, jaccard, side="right") - 1, 0, len(place) - 1)
    for shift, values, color, label in ((-0.2, cosine, BLUE, "embeddings"), (0.2, wrong, GREY, "wrong nodes")):
        axis.boxplot(
            [values[bin_of == k] for k in place],
            positions=place + shift,
            widths=0.34,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            label=label,
            boxprops={"facecolor": color, "alpha": 0.45, "edgecolor": color},
            medianprops={"color": INK, "lw": 1.4},
            whiskerprops={"color": color},
            capprops={"color": color},
        )
    names = [f"{low:g} to {high:g}\n(n = {(bin_of == k).sum():,})" for k, (low, high) in enumerate(pairwise(BINS))]
    axis.set_xticks(place, names, fontsize=7)
    axis.axvline(np.searchsorted(BINS, above) - 0.5, color=INK, lw=0.9, ls=":")
    axis.set(xlabel="Jaccard index of neighbors in the training graph", ylabel=f"cosine of two {node_type} embeddings")
    axis.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()

"""Embeddings put to use: gradient boosting on pairs of nodes, against the degree product and the model itself.

    python -m torchcell.embed ckpt=RUN/checkpoints/best.ckpt out=embeddings.h5ad
    python experiments/004-hgt-embeddings/downstream.py RUN/checkpoints/best.ckpt embeddings.h5ad -o FOLDER

Any file that `embed validate` takes will do, also one made elsewhere. The classifier reads the two embeddings of a
pair side by side, or their product number by number, or both; it is fitted on the training pairs of the run's split
and the sampled non-links among them, its features and its number of trees are chosen on validation, and it is scored
once on test. Test links are in none of it: they are not in the graph that the embeddings come from. Training links
are, so a training pair looks a little more certain than a test pair; that costs the classifier something, and
validation, which is like test, shows how much. Intervals resample sources; `more` is what a system has above the
degree product, on the same resamples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from torchcell.core.datamodule import RecordDataModule
from torchcell.evaluation.bootstrap import interval, paired, resample
from torchcell.evaluation.registry import metric
from torchcell.io.embeddings import EmbeddingTable, read_embeddings
from torchcell.io.errors import InputError, some
from torchcell.knowledge_graph.embed import link_scores
from torchcell.knowledge_graph.record import Links
from torchcell.knowledge_graph.typed_graph import TypedGraph
from torchcell.training import build, checkpoint

METRICS = ("auroc", "auprc")
FEATURES = ("product", "side by side", "both")
TREES = (50, 100, 200, 400)
SMOOTHING = 0.1
"""Added to each degree: a node without training links is not all alike."""


def main() -> None:
    """Fit, score, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt", type=Path, help="checkpoint whose data and split are used")
    parser.add_argument("embeddings", type=Path, help="embeddings of all nodes at the ends of the links")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for downstream.csv")
    parser.add_argument("--edge-type", help="supervised edge type; may be left out where there is one")
    parser.add_argument("--n-boot", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    saved = checkpoint.load(given.ckpt)
    data = build.datamodule_of(saved)
    table = read_embeddings(given.embeddings).validate(given.embeddings)
    edge_type = given.edge_type or saved.spec.supervised[0]
    pairs = {part: of_edge_type(data.record(part), edge_type) for part in ("train", "val", "test")}
    features = {part: vectors(table, record) for part, record in pairs.items()}
    scores, chosen = boosted(pairs, features, given.seed)
    print(f"gradient boosting: chosen on validation {chosen}")

    model = saved.model().eval()
    graph = TypedGraph.from_plain(saved.spec.knowledge_graph)
    ends = [graph.position_of(pairs["test"].node_id[at].tolist()) for at in ends_of(pairs["test"])]
    with torch.inference_mode():
        own = link_scores(model, edge_type, *ends, prior=saved.prior())
        systems = {"gradient boosting": scores, type(model).__name__: own}
    systems["degree product"] = degree_product(pairs["train"], pairs["test"])
    found = compare(data, pairs["test"], systems, given.n_boot)
    given.out.mkdir(parents=True, exist_ok=True)
    found.round(4).to_csv(given.out / "downstream.csv", index=False)
    print(found.round(3).to_string(index=False))


def of_edge_type(record: Links, edge_type: str) -> Links:
    """The candidates of one edge type."""
    if edge_type not in record.supervised:
        raise InputError(f"--edge-type {edge_type}: the run predicts {some(record.supervised)}")
    return record.subset(record.edge_type == edge_type)


def ends_of(record: Links) -> tuple[np.ndarray, np.ndarray]:
    """Source and target of each pair, positions in ``node_id``."""
    return record.source_index, record.target_index


def vectors(table: EmbeddingTable, record: Links) -> dict[str, np.ndarray]:
    """Features of each pair by name."""
    row = {name: i for i, name in enumerate(table.node_id.tolist())}
    named = np.unique(record.node_id[np.concatenate(ends_of(record))]).tolist()
    missing = [name for name in named if name not in row]
    if missing:
        raise InputError(f"{len(missing)} nodes of the run's links have no embedding: {some(missing)}")
    source, target = (table.values[[row[name] for name in record.node_id[at].tolist()]] for at in ends_of(record))
    product, beside = source * target, np.concatenate([source, target], axis=1)
    return {"product": product, "side by side": beside, "both": np.concatenate([product, beside], axis=1)}


def boosted(
    pairs: dict[str, Links], features: dict[str, dict[str, np.ndarray]], seed: int
) -> tuple[np.ndarray, dict[str, object]]:
    """Scores of the test pairs by the classifier that told validation pairs best, and what it was."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    best, scores, chosen = -np.inf, np.empty(0), {}
    for name in FEATURES:
        for trees in TREES:
            classifier = HistGradientBoostingClassifier(
                max_iter=trees, learning_rate=0.05, max_leaf_nodes=8, early_stopping=False, random_state=seed
            )
            classifier.fit(features["train"][name], pairs["train"].positive)
            told = classifier.decision_function(features["val"][name])
            score = float(roc_auc_score(pairs["val"].positive, told))
            if score > best:
                best, chosen = score, {"features": name, "trees": trees, "val AUROC": round(score, 4)}
                scores = classifier.decision_function(features["test"][name])
    return scores, chosen


def degree_product(train: Links, asked: Links) -> np.ndarray:
    """(d_s + .1) (d_t + .1) with the degrees of the edge type's training links."""
    known, n_nodes = train.subset(train.positive), len(train.node_id)
    degrees = [np.bincount(at, minlength=n_nodes) + SMOOTHING for at in ends_of(known)]
    if train.edge_type[0] in train.graph.symmetric:
        degrees = [degrees[0] + degrees[1]] * 2
    return degrees[0][asked.source_index] * degrees[1][asked.target_index]


def compare(data: RecordDataModule, test: Links, systems: dict[str, np.ndarray], n_boot: int) -> pd.DataFrame:
    """One row a kind of negatives, metric and system."""
    group_of = dict(zip(data.sample_id.tolist(), data.split.group.tolist(), strict=True))
    group = np.array([group_of[name] for name in test.sample_id.tolist()])
    rows = []
    for t, output in enumerate(test.outputs):
        held = ~np.isnan(test.label[:, t])
        if not held.any():
            continue
        label, weights = test.label[held, t].astype(float), resample(group[held], n_boot)
        for name in METRICS:
            function = metric(name, "binary").function
            values = {system: function(label, score[held].astype(float), weights) for system, score in systems.items()}
            for system, drawn in values.items():
                own, more = interval(drawn), paired(drawn, values["degree product"])
                row = {"output": output, "metric": name, "system": system, "value": own.value, "low": own.low}
                row |= {"high": own.high, "more": more.value, "more_low": more.low, "more_high": more.high}
                rows.append(row | {"links": int(label.sum()), "pairs": len(label)})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()

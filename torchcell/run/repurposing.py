"""Drug repurposing: the targets that a model ranks for a source, or the sources for a target, known links marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from torchcell.data.errors import InputError, near, some
from torchcell.datamodules.link_notes import link_notes
from torchcell.datamodules.links import LinkBatch
from torchcell.datamodules.prediction_notes import joined
from torchcell.graph.typed_graph import TypedGraph
from torchcell.models.base import Model

if TYPE_CHECKING:
    from torchcell.data.links import Links

HELD = ("val", "test")
"""Parts whose links the model's graph does not hold; all that it holds were known in training."""


def ranked_links(
    model: Model,
    metaedge: str | None = None,
    source: str | None = None,
    target: str | None = None,
    top: int | None = 20,
    held: pd.DataFrame | None = None,
    batch_size: int = 8192,
) -> pd.DataFrame:
    """All candidates for the other end of a link, best first.

    Args:
        model: One of links, on the device where it computes.
        metaedge: Of the links; may be left out where one metaedge is supervised.
        source: Id or name of the node whose targets are ranked, e.g. a compound's diseases.
        target: Likewise of the node whose sources are ranked; one of the two is given.
        top: How many are told; none for all of them. Ranks are among all.
        held: Links that the model's graph does not hold, from ``held_links``.
        batch_size: Candidates at once.

    Returns:
        ``rank, source, source_name, metaedge, target, target_name, score, known, note``. The score is no probability of
        a link, since training drew its non-links; ``known`` is the part that a known link is of, train where the
        model's graph holds it, and empty for a link that nobody knows of; ``note`` says of a node without an edge in
        that graph, and of a metaedge that was not trained.

    Raises:
        InputError: A model without nodes, an unknown metaedge or node, a node of another kind, a name of several nodes.
    """
    if "knowledge_graph" not in model.spec.extras:
        raise InputError(f"{type(model).__name__} ranks no links; source and target are for a knowledge graph")
    if (source is None) == (target is None):
        raise InputError("give either source, to rank its targets, or target, to rank its sources")
    if top is not None and top < 1:
        raise InputError(f"top={top}: must be 1 or more, or null for all")
    graph = TypedGraph.from_plain(model.spec.extras["knowledge_graph"])
    metaedge = _metaedge(graph, model.spec.extras["supervised"], metaedge)
    side, asked = (0, source) if source is not None else (1, target)
    node = find_node(graph, str(asked), graph.ends[metaedge][side], ("source", "target")[side], metaedge)
    other = graph.ends[metaedge][1 - side]
    candidates = np.arange(graph.bounds[other], graph.bounds[other + 1])
    candidates = candidates[candidates != node]
    fixed = np.full_like(candidates, node)
    ends = (fixed, candidates) if side == 0 else (candidates, fixed)
    score = link_scores(model, metaedge, *ends, batch_size)
    order = np.argsort(-score, kind="stable")[:top]
    first, second = ends[0][order], ends[1][order]
    table: dict[str, Any] = {
        "rank": np.arange(1, len(order) + 1),
        "source": graph.node_id[first],
        "source_name": graph.node_name[first],
        "metaedge": metaedge,
        "target": graph.node_id[second],
        "target_name": graph.node_name[second],
        "score": model.tabulate(torch.from_numpy(score[order])).numpy(),
        "known": _known(graph, metaedge, first, second, held),
    }
    notes = link_notes(np.full(len(order), metaedge), table["source"], table["target"], model.spec)
    return pd.DataFrame(table | {"note": joined(notes, len(order))})


def link_scores(
    model: Model, metaedge: str, source_P: np.ndarray, target_P: np.ndarray, batch_size: int = 8192
) -> np.ndarray:
    """Log-odds of P pairs of nodes, float32 [P]; probabilities would tie the surest ones.

    Args:
        model: One of links; its mode is as before when this returns.
        metaedge: Of the links.
        source_P: Positions among the nodes of the spec's knowledge graph.
        target_P: Likewise.
        batch_size: Pairs at once.
    """
    code = sorted(model.spec.extras["knowledge_graph"]["ends"]).index(metaedge)
    n_outputs = len(model.spec.outputs)
    trained, parts = model.training, []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(source_P), batch_size):
            source, target = (torch.from_numpy(end[start : start + batch_size]) for end in (source_P, target_P))
            batch = LinkBatch(
                target=torch.full((len(source), n_outputs), torch.nan),
                sample=torch.arange(start, start + len(source)),
                source_node=source,
                target_node=target,
                metaedge=torch.full_like(source, code),
            ).to(model.device)
            parts.append(model(batch)[:, 0].float().cpu())
    model.train(trained)
    return torch.cat(parts).numpy() if parts else np.empty(0, dtype=np.float32)


def held_links(record: Links, part: np.ndarray) -> pd.DataFrame:
    """The known links of validation and test, as ``source, metaedge, target, part``.

    Args:
        record: All candidates of the run's data.
        part: Part of each.
    """
    kept = np.flatnonzero(record.positive & np.isin(part, HELD))
    ids = record.node_id
    return pd.DataFrame(
        {
            "source": ids[record.source_index[kept]],
            "metaedge": record.metaedge[kept],
            "target": ids[record.target_index[kept]],
            "part": part[kept],
        }
    )


def find_node(graph: TypedGraph, asked: str, kind: int, end: str, metaedge: str) -> int:
    """Position of the node with this id, or of the one of the kind with this name in whatever case.

    Raises:
        InputError: No such node, with the nearest; one of another kind; a name of several.
    """
    named = f"{end}={asked}"
    if (at := int(graph.position_of([asked])[0])) >= 0:
        own = int(np.searchsorted(np.asarray(graph.bounds), at, side="right")) - 1
        if own != kind:
            raise InputError(
                f"{named} is a {graph.kinds[own]}, but the {end} of {metaedge} is a {graph.kinds[kind]}; "
                f"name one, or the metaedge that is meant"
            )
        return at
    first, last = graph.bounds[kind], graph.bounds[kind + 1]
    names = graph.node_name[first:last].tolist()
    found = [first + i for i, name in enumerate(names) if name.casefold() == asked.casefold()]
    if not found:
        hint = near(asked, [*names, *graph.node_id[first:last].tolist()])
        said = f"; the nearest are {hint}" if hint else f", e.g. {some(graph.node_id[first:last][:3])}"
        raise InputError(f"{named}: no {graph.kinds[kind]} has this id or name{said}")
    if len(found) > 1:
        ids = some(graph.node_id[found])
        raise InputError(f"{named} is the name of {len(found)} nodes: {ids}; give the id of one")
    return found[0]


def _metaedge(graph: TypedGraph, supervised: Sequence[str], asked: str | None) -> str:
    """The metaedge that is asked for, or the only one that is supervised."""
    if asked is None and len(supervised) == 1:
        return supervised[0]
    if asked is None:
        raise InputError(f"{len(supervised)} metaedges are supervised; name one by metaedge=: {some(supervised, 30)}")
    if asked not in graph.metaedges:
        hint = near(asked, graph.metaedges) or list(graph.metaedges)
        raise InputError(f"metaedge={asked}: the model's graph has none such; the nearest are {hint}")
    return asked


def _known(
    graph: TypedGraph, metaedge: str, source: np.ndarray, target: np.ndarray, held: pd.DataFrame | None
) -> np.ndarray:
    """The part of each link, empty where it is not known."""
    number = graph.edge_number(metaedge, torch.from_numpy(source), torch.from_numpy(target))
    known = np.where(number.numpy() >= 0, "train", "").astype("<U5")
    if held is None:
        return known
    part = {}
    for row in held[held["metaedge"] == metaedge].itertuples():
        part[row.source, row.target] = row.part
        if metaedge in graph.symmetric:
            part[row.target, row.source] = row.part
    pairs = zip(graph.node_id[source].tolist(), graph.node_id[target].tolist(), strict=True)
    return np.array([part.get(pair, was) for pair, was in zip(pairs, known.tolist(), strict=True)], dtype=str)

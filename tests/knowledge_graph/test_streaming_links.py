"""Links of an epoch: the same whatever the batches, and forgotten with the epoch."""

from __future__ import annotations

import torch

from torchcell.knowledge_graph.models.hgt_embedder.ranking import StreamingLinks


def test_the_links_do_not_depend_on_their_batches_and_are_forgotten_on_reset() -> None:
    links = torch.tensor([[1, 4, 9], [0, 3, 7], [1, 2, 9], [0, 1, 8]])
    found = []
    for size in (1, 3, 4):
        metric = StreamingLinks()
        for batch in links[torch.randperm(4)].split(size):
            metric.update(*batch.T)
        found.append(metric.compute())
        metric.reset()
        assert metric.links == []
    assert found[0].tolist() == [[0, 1, 8], [0, 3, 7], [1, 2, 9], [1, 4, 9]]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])

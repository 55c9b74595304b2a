"""Degree product: well-known nodes are linked."""

from __future__ import annotations

import numpy as np

from torchcell.baselines.link_baseline import LinkBaseline
from torchcell.baselines.typed_counts import SMOOTHING, Steps
from torchcell.data.links import Links


class DegreeProduct(LinkBaseline):
    """log (d_s + .1)(d_t + .1), with the degrees in the candidate's metaedge in the training graph."""

    name = "degree_product"

    def fit_one(self, metaedge: str, train: Links, val: Links) -> None:
        """Nothing is fitted: the degrees are the graph's."""

    def score(self, metaedge: str, fitted: None, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """See ``LinkBaseline``."""
        return log_degree_product(self.steps, metaedge, source, target)


def log_degree_product(steps: Steps, metaedge: str, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """log (d_s + .1)(d_t + .1) of pairs [P]; the ends are places within the two kinds."""
    first, last = (np.log(steps.degree(step) + SMOOTHING) for step in (metaedge, steps.back(metaedge)))
    return first[source] + last[target]

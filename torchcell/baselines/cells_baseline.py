"""What the baselines of single cells share: the change that they learn, and the record that they know."""

from __future__ import annotations

import numpy as np

from torchcell.baselines.group_means import group_means
from torchcell.data.conditions import Conditions
from torchcell.data.errors import InputError


def require_same_genes(record: Conditions, genes: np.ndarray) -> None:
    """Refuse a record over another gene list than the one fitted on: columns would mean other genes."""
    if not np.array_equal(record.genes, genes):
        raise InputError(
            f"{record.name} has another gene list than the baseline was fitted on; take train and test from one record"
        )


def change(record: Conditions) -> np.ndarray:
    """Mean of the condition's cells minus that of the controls that predictions start from, float64 [n, G].

    Never minus the truth's half of the controls: what is learned would share its noise with what it is scored against,
    and fake perturbations drawn from the controls would look like a success.
    """
    return record.target.astype(np.float64) - record.other_control


def balanced_mean(values: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Mean over the names of the mean of each name's rows, float64 [G]: what is measured often counts once."""
    return group_means(values, names, np.unique(names), np.zeros(values.shape[1])).mean(0)


def mean_change(train: Conditions, asked: Conditions) -> np.ndarray:
    """Mean change of the training perturbations of each asked condition's group, float64 [m, G].

    A group without training conditions gets the mean over the training groups.
    """
    change_nG = change(train)
    return group_means(change_nG, train.group, asked.group, balanced_mean(change_nG, train.group))


def training_centre(train: Conditions, asked: Conditions) -> np.ndarray:
    """The controls plus the mean change of the training perturbations, float32 [m, G].

    Within a group that was trained on this is the mean of its training perturbations, without any noise of the
    controls: what ``pearson_delta_perturbed`` is taken against.
    """
    return (asked.other_control + mean_change(train, asked)).astype(np.float32)

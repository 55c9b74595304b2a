"""Usage of experts over an epoch: sums, shares, what line and dose tell."""

from __future__ import annotations

import pytest
import torch

from torchcell.drug_response.models.chemoe.model import Routing
from torchcell.drug_response.models.chemoe.usage import DOSE_BINS, ExpertUsage, shared_bits


def routed(expert: list[list[int]], n_experts=4) -> Routing:
    chosen = torch.tensor(expert)
    return Routing(chosen, torch.full(chosen.shape, 1 / chosen.shape[1]), None, n_experts)


def test_an_epoch_is_the_sum_of_its_batches_by_line_and_dose():
    usage = ExpertUsage(4, 2)
    usage.add(routed([[0, 1], [0, 2]]).weight_BE(), torch.tensor([0, 1]), torch.tensor([1.0, -3.0]))
    usage.add(routed([[3, 0]]).weight_BE(), torch.tensor([-1]), torch.tensor([1.7]))
    assert usage.line_EL.sum() == 0
    assert usage.close()
    assert usage.line_EL.tolist() == [[0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]
    by_dose = dict(zip(DOSE_BINS, usage.dose_EQ.sum(0).tolist(), strict=True))
    assert {name: n for name, n in by_dose.items() if n} == {"0.03 or less": 1.0, "10": 1.0, "30 or more": 1.0}
    assert not usage.close()


def test_processes_are_added_up():
    usage = ExpertUsage(4, 2)
    usage.add(routed([[0, 1]]).weight_BE(), torch.tensor([0]), torch.tensor([1.0]))
    usage.close(lambda counts: 3 * counts)
    assert usage.line_EL.sum() == 3


def test_measures_name_dead_experts_and_uneven_shares():
    usage = ExpertUsage(4, 1)
    usage.add(routed([[0, 1]] * 10).weight_BE(), torch.zeros(10, dtype=torch.long), torch.zeros(10))
    usage.close()
    measures = usage.measures()
    assert measures["dead"] == 2
    assert measures["entropy"] == pytest.approx(0.5)
    assert [float(measures[f"expert_{e}"]) for e in range(4)] == [0.5, 0.5, 0, 0]


def test_bits_are_zero_without_and_one_with_full_dependence_on_two_lines():
    assert shared_bits(torch.tensor([[1.0, 3.0], [1.0, 3.0]])) == pytest.approx(0.0, abs=1e-6)
    assert shared_bits(torch.eye(2)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("counts", "collapsed"),
    [
        ([998.0, 1, 0, 1], True),
        ([500.0, 500, 0, 0], False),  # two dead ones, and still a mixture
        ([250.0, 250, 250, 250], False),
        ([1000.0], False),  # one expert was asked for
        ([0.0, 0, 0, 0], False),  # nothing counted yet
    ],
)
def test_a_mixture_of_which_one_expert_does_all_has_collapsed(counts, collapsed):
    usage = ExpertUsage(len(counts), 1)
    usage.line_EL[:, 0] = torch.tensor(counts)
    said = usage.collapse()
    assert bool(said) == collapsed
    if collapsed:
        assert said == "its mixture is one network, of 4 experts one does all (shares 99.8, 0.1, 0.0, 0.1 %)"

"""Cases of ``make drill`` that train nothing, at small size; what is wrong is in the outcome."""

from __future__ import annotations

import caches
import checkpoints
import pytest
from small import checkpoint_of


def test_a_damaged_cache_never_gives_other_numbers_and_mends_itself(tmp_path):
    assert caches.damaged(tmp_path, tries=60).wrong == ()


def test_two_jobs_build_a_cache_once_and_a_killed_one_leaves_no_lock(tmp_path):
    assert caches.shared(tmp_path, tries=1).wrong == ()


def test_a_full_disk_costs_no_checkpoint(tmp_path):
    assert checkpoints.full_disk(tmp_path, tries=2).wrong == ()


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return checkpoint_of(tmp_path_factory.mktemp("good"))


def test_a_checkpoint_of_another_version_loads_or_says_why_not(good, tmp_path):
    assert checkpoints.other_version(good, tmp_path).wrong == ()


def test_a_checkpoint_that_carries_code_is_refused_before_anything_runs(good, tmp_path):
    assert checkpoints.carries_code(good, tmp_path).wrong == ()

"""Cases of ``make drill`` that train nothing, at small size; what is wrong is in the outcome."""

from __future__ import annotations

import caches
import checkpoints
import places
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


def test_a_lock_server_that_hangs_costs_what_a_cache_would_have_kept(tmp_path):
    assert places.lock_server(tmp_path).wrong == ()


def test_a_clock_that_is_set_back_gives_no_folder_away(tmp_path):
    """A living run was taken for dead: what is known of a process's start follows the clock."""
    assert places.clock_back(tmp_path).wrong == ()


def test_half_files_in_a_cache_go_away(tmp_path):
    assert places.leftovers(tmp_path).wrong == ()


def test_a_target_of_one_class_is_a_note_in_the_log_and_in_the_report(tmp_path):
    assert places.constant(tmp_path, ["test"]).wrong == ()

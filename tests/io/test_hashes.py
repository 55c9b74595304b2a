"""Hashes that tell at once that nothing stands twice."""

from __future__ import annotations

import numpy as np

from torchcell.io.fingerprint import may_repeat, sums_of_hashes, text_hashes


def test_equal_texts_have_equal_hashes_and_others_do_not():
    texts = np.array(["a", "ab", "ba", "", "a", "äß", "aaaaaaaaaaaaaaaaaaaaaaab"])
    hashes = text_hashes(texts)
    assert hashes[0] == hashes[4]
    assert len(set(hashes.tolist())) == len(set(texts.tolist()))
    assert may_repeat(hashes)
    assert not may_repeat(np.delete(hashes, 4))
    assert len(text_hashes(np.array([], dtype=str))) == 0


def test_many_texts_do_not_collide():
    texts = np.array([f"{i:x}" for i in range(200_000)])
    assert not may_repeat(text_hashes(texts))


def test_a_set_has_one_hash_whatever_the_order_of_its_members():
    members, ptr = np.array([1, 2, 2, 1, 1, 1, 2, 3]), np.array([0, 2, 4, 6, 6, 8])
    hashes = sums_of_hashes(members, ptr)
    assert hashes[0] == hashes[1]
    assert len(set(hashes.tolist())) == 4, "{1, 1}, {} and {2, 3} are others"
    first, second = np.triu_indices(700, 1)
    pairs = sums_of_hashes(np.column_stack([first, second]).ravel(), np.arange(0, 2 * len(first) + 1, 2))
    assert not may_repeat(pairs)

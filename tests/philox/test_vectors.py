"""Philox4x32-10: the published test vectors, and that splitting changes no draw."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.philox import Stream, below, normal, permutation, philox4x32, purpose, uniform, words

# Random123, examples/kat_vectors (Salmon et al. 2011): counter, key, result
VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def parse(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_published_vectors(counter: str, key: str, expected: str) -> None:
    k0, k1 = (int(word) for word in parse(key))
    np.testing.assert_array_equal(philox4x32(parse(counter), (k0, k1)), parse(expected))


STREAM = Stream(seed=(7 << 32) + 5, purpose=purpose("dropout/x"), step=9)


def test_layout_of_the_counter() -> None:
    drawn = words(STREAM, 3, 10)
    for sample, element in ((0, 0), (2, 7), (1, 9)):
        counter = np.array([element // 4, sample, 9, purpose("dropout/x")], np.uint32)
        assert drawn[sample, element] == philox4x32(counter, (5, 7))[element % 4]


@pytest.mark.parametrize("first", [0, 1, 3, 4, 6])
def test_splitting_a_batch_or_a_layer_changes_no_draw(first: int) -> None:
    whole = words(STREAM, 6, 22)
    sample = Stream(STREAM.seed, STREAM.purpose, STREAM.step, first_sample=first)
    element = Stream(STREAM.seed, STREAM.purpose, STREAM.step, first_element=first)
    np.testing.assert_array_equal(words(sample, 6 - first, 22), whole[first:])
    np.testing.assert_array_equal(words(element, 6, 11), whole[:, first : first + 11])
    np.testing.assert_array_equal(words(STREAM, np.array([4, 1]), 22), whole[[4, 1]])


def test_blocks_change_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = words(STREAM, 5, 70)
    monkeypatch.setattr("minialex.philox._BLOCK", 7)
    np.testing.assert_array_equal(words(STREAM, 5, 70), whole)


def test_distributions() -> None:
    u, z = uniform(STREAM, 200, 500), normal(STREAM, 200, 501)
    assert 0 < u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    assert z.shape == (200, 501)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.1
    drawn = below(STREAM, 5000, (3, 33))
    assert [np.bincount(drawn[:, i]).size for i in (0, 1)] == [3, 33]
    assert np.bincount(drawn[:, 0]).min() > 1500


def test_permutation() -> None:
    order = permutation(STREAM, 1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert (order != np.arange(1000)).mean() > 0.9
    assert (permutation(STREAM.at(10), 1000) != order).any()


def test_pairs_of_normals_are_not_torn() -> None:
    with pytest.raises(ValueError, match="must be even"):
        normal(Stream(0, 0, first_element=1), 1, 4)

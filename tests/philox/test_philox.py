"""Philox4x32-10: the published vectors, and that a draw depends on nothing but its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minialex import philox
from minialex.philox import (
    Stream,
    below,
    normal,
    permutation,
    philox4x32,
    purpose,
    to_below,
    to_normal,
    together,
    uniform,
    words,
)

# counter, key and result of the lines "philox4x32 10" in the file kat_vectors of Random123
VECTORS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
streams = st.builds(
    Stream,
    seed=st.integers(0, 2**64 - 1),
    purpose=st.integers(0, 2**32 - 1),
    step=st.integers(0, 2**32 - 1),
    first_sample=st.integers(0, 2**31),
    first_element=st.integers(0, 2**33),
)
ordinary = settings(deadline=None, derandomize=True, max_examples=60, database=None)


def _words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), VECTORS)
def test_published_vectors(counter, key, result):
    got = philox4x32(np.array(_words(counter), np.uint32), tuple(_words(key)))
    assert got.dtype == np.uint32
    assert got.tolist() == _words(result)


def test_many_counters_at_once_are_each_their_own():
    counters = np.array([_words(counter) for counter, _, _ in VECTORS], np.uint32)
    together = philox4x32(counters, (1, 2))
    assert [row.tolist() for row in together] == [philox4x32(counter, (1, 2)).tolist() for counter in counters]


def test_where_a_word_comes_from():
    """The layout that the module promises, element by element, without the code that does it in blocks."""
    stream = Stream(seed=0xA4093822_299F31D0, purpose=5, step=6, first_sample=7, first_element=9)
    drawn = words(stream, 3, 10)
    for sample in range(3):
        for element in range(10):
            place = 9 + element
            counter = np.array([place // 4, 7 + sample, 6, 5], np.uint32)
            assert drawn[sample, element] == philox4x32(counter, (0x299F31D0, 0xA4093822))[place % 4]


def test_the_vectors_come_out_of_a_stream():
    """Counter 243f6a88… is block 0x243f6a88 of sample 0x85a308d3 at step 0x13198a2e for purpose 0x03707344."""
    stream = Stream(0x299F31D0_A4093822, 0x03707344, 0x13198A2E, 0x85A308D3, 4 * 0x243F6A88)
    assert words(stream, 1, 4)[0].tolist() == _words(VECTORS[2][2])


@ordinary
@given(streams, st.integers(0, 5), st.integers(0, 5), st.integers(0, 30), st.integers(0, 30))
def test_splitting_a_batch_or_a_sample_changes_no_draw(stream, above, below_, left, right):
    whole = words(stream, above + below_, left + right)
    for rows, first_sample in ((slice(0, above), 0), (slice(above, None), above)):
        for columns, first_element in ((slice(0, left), 0), (slice(left, None), left)):
            piece = whole[rows, columns]
            place = Stream(
                stream.seed, stream.purpose, stream.step,
                stream.first_sample + first_sample, stream.first_element + first_element,
            )  # fmt: skip
            assert np.array_equal(words(place, *piece.shape), piece)


def test_samples_by_index():
    stream = Stream(1, 2, 3, first_sample=10)
    indices = np.array([4, 0, 4, 1000])
    assert np.array_equal(words(stream, indices, 6), words(stream, 1001, 6)[indices])


@pytest.mark.parametrize("block", [1, 3, 8])
def test_the_size_of_a_block_changes_no_draw(monkeypatch, block):
    whole = words(Stream(3, 4, first_element=2), 5, 37)
    monkeypatch.setattr(philox, "_BLOCK", block)
    assert np.array_equal(words(Stream(3, 4, first_element=2), 5, 37), whole)


def test_nothing_is_drawn_for_nobody():
    assert (
        words(Stream(0, 0), 0, 5).shape
        == uniform(Stream(0, 0), 0, 5).shape
        == normal(Stream(0, 0), 0, 5).shape
        == (0, 5)
    )
    assert words(Stream(0, 0), 3, 0).shape == normal(Stream(0, 0), 3, 0).shape == (3, 0)


@pytest.mark.parametrize("change", ["seed", "high half of the seed", "purpose", "step", "sample"])
def test_every_part_of_the_place_matters(change):
    start = {"seed": 1, "purpose": 2, "step": 3, "first_sample": 4}
    name = {"high half of the seed": "seed", "sample": "first_sample"}.get(change, change)
    other = {**start, name: start[name] + (2**32 if change.startswith("high") else 1)}
    first, second = words(Stream(**start), 1, 1000), words(Stream(**other), 1, 1000)
    assert np.count_nonzero(first == second) <= 1


def test_uniform_numbers():
    drawn = uniform(Stream(0, purpose("test")), 100, 10_000)
    assert drawn.dtype == np.float64
    assert 0 < drawn.min() < 1e-4
    assert 1 - 1e-4 < drawn.max() < 1
    # standard errors of a million: mean 2.9e-4, second moment 3e-4, correlation of neighbours 1e-3
    assert drawn.mean() == pytest.approx(1 / 2, abs=5 * 2.9e-4)
    assert (drawn**2).mean() == pytest.approx(1 / 3, abs=5 * 3e-4)
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 5e-3
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 5e-3


def test_normal_numbers():
    drawn = normal(Stream(0, purpose("test")), 100, 10_000)
    assert np.isfinite(drawn).all()
    # standard errors of a million: 1e-3, 1.4e-3, 3.9e-3, 9.8e-3
    for power, (moment, error) in enumerate([(0, 1e-3), (1, 1.4e-3), (0, 3.9e-3), (3, 9.8e-3)], start=1):
        assert (drawn**power).mean() == pytest.approx(moment, abs=5 * error)
    assert abs(np.corrcoef(drawn[:, 0::2].ravel(), drawn[:, 1::2].ravel())[0, 1]) < 8e-3
    assert np.mean(np.abs(drawn) > 1.959964) == pytest.approx(0.05, abs=5 * 2.2e-4)


def test_normal_numbers_may_be_drawn_in_pieces():
    whole = normal(Stream(1, 2), 1, 20)
    assert np.array_equal(normal(Stream(1, 2, first_element=8), 1, 7), whole[:, 8:15])
    with pytest.raises(ValueError, match="first_element must be even, got 3"):
        normal(Stream(1, 2, first_element=3), 1, 4)


@pytest.mark.parametrize("samples", [0, 1, 7])
def test_streams_drawn_together_are_what_each_draws_alone(samples):
    streams = [Stream(2**40 + 3, purpose(name), step=2**31 + step) for step, name in enumerate(("a", "b", "c"))]
    rows = [np.arange(samples) + 5, np.arange(samples) // 2, np.arange(samples) + 2**31]
    found = together(streams, rows)
    assert found.shape == (3, samples, 4)
    for drawn, stream, indices in zip(found, streams, rows, strict=True):
        assert np.array_equal(drawn, words(stream, indices, 4))
        assert np.array_equal(to_normal(drawn)[:, :3], normal(stream, indices, 3))
        assert np.array_equal(to_below(drawn[:, :2], (9, 2)), below(stream, indices, (9, 2)))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 100, 5000])
def test_a_permutation_is_one(n):
    order = permutation(Stream(4, purpose("order")), n)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(n))


def test_permutations_are_spread_evenly():
    orders = [tuple(permutation(Stream(seed, purpose("order")), 3)) for seed in range(1200)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    assert sum((count - 200) ** 2 / 200 for count in counts) < 20.5  # chi-squared, 5 degrees of freedom, 0.1 %


def test_integers_below_a_bound():
    drawn = below(Stream(0, purpose("crop")), 60_000, (3, 33, 1, 2))
    assert drawn.shape == (60_000, 4)
    assert drawn.min(axis=0).tolist() == [0, 0, 0, 0]
    assert drawn.max(axis=0).tolist() == [2, 32, 0, 1]
    counts = np.bincount(drawn[:, 0])
    assert ((counts - 20_000) ** 2 / 20_000).sum() < 13.9  # chi-squared, 2 degrees of freedom, 0.1 %


def test_purposes_are_told_apart():
    assert purpose("123456789") == 0xCBF43926  # the published check value of CRC-32
    assert len({purpose(f"dropout/{name}") for name in ("dropout6", "dropout7", "dropout8")}) == 3

"""One session, and several, asked by many threads of a program at once, as a web server asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minialex.backend import registry
from minialex.data import load
from minialex.engine.opening import new_session
from minialex.engine.session import Session
from minialex.errors import BackendUnavailable
from minialex.recipe.toml import load as load_recipe

THREADS, CALLS = 8, 24


def session(name: str, seed: int) -> Session:
    try:
        backend = registry.load(name)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    recipe = load_recipe("small").replace(kernels=(4, 8, 8, 8, 8), features=(16, 16), seed=seed)
    return new_session(recipe, load("shapes", train_images=64, validation_images=32), backend)


@pytest.mark.parametrize("name", sorted(registry.installed()))
def test_many_threads_get_the_answers_of_one(name: str) -> None:
    sessions = [session(name, seed) for seed in (0, 1)]
    images = load("shapes", train_images=64, validation_images=CALLS).validation.read(np.arange(CALLS))
    layer = sessions[0].network.layers[0].name
    batches = [images[first : first + 1 + first % 2] for first in range(CALLS)]

    def ask(number: int) -> tuple[np.ndarray, np.ndarray]:
        at = sessions[number % 2]
        return at.probabilities(batches[number])[0], at.activations(batches[number], [layer])[layer]

    alone = [ask(number) for number in range(CALLS)]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(ask, range(CALLS)))
    for one, other in zip(alone, together, strict=True):
        for expected, found in zip(one, other, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_draws_are_the_steps_own_while_another_thread_draws() -> None:
    at = session("numpy", 0)

    class Slow(float):
        """A number: while it is compared, another thread asks for the same step's draws with another colour."""

        def __eq__(self, other: object) -> bool:
            at._drawn(4, 0, 0, 0.5)
            return float(self) == other

        __hash__ = float.__hash__

    wanted = at._drawn(4, 0, 0, 0.1)
    np.testing.assert_array_equal(at._drawn(4, 0, 0, Slow(0.1)).shift, wanted.shift)

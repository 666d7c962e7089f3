"""Training steps in shards: the bits depend on the number of shards, and not on that of ranks, devices or columns."""

from __future__ import annotations

import gc
import hashlib
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex.backend.operations import OVER_RANKS
from minialex.backend.recorder import interpret
from minialex.data.statistics import Statistics
from minialex.engine import memory, opening
from minialex.engine.opening import placement_of_rank
from minialex.engine.schedule import EpochRates
from minialex.engine.session import Session, mean_loss
from minialex.engine.step import Plan, record
from minialex.errors import ConfigurationError
from minialex.network import models
from minialex.ranks.group import ALONE, Alone, FixedOrder
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load, parse
from minialex.training import guards
from minialex.training.guards import as_one, dead_units, first_not_finite
from minialex_numba import NumbaBackend
from minialex_numba.compiler.step import Step
from minialex_numpy import NumpyBackend

SMALL = load("small").replace(
    classes=5, crop=20, image_size=22, kernels=[6, 16, 24, 20, 10], features=[14, 18], dropout=0.3, batch_size=8,
    colour=0.1,
)  # fmt: skip
STEPS = 2


def batch(recipe: Recipe, number: int) -> tuple[Any, Any]:
    random = np.random.default_rng(number)
    size = recipe.image_size
    images = random.integers(0, 256, (recipe.batch_size, 3, size, size)).astype(np.uint8)
    return images, random.integers(0, recipe.classes, recipe.batch_size)


def opened(recipe: Recipe, backend: Any, group: Any = ALONE, placement: tuple[str, ...] | None = None) -> Session:
    size = recipe.image_size
    mean = np.random.default_rng(1).uniform(100, 150, (3, size, size)).astype(np.float32)
    statistics = Statistics(mean, np.diag([900.0, 400.0, 100.0]))
    return Session(recipe, backend, placement or ("cpu:0",) * recipe.columns, statistics, group=group)


def train(session: Session) -> tuple[str, list[Any]]:
    """The weights' and momentum's SHA-256 after some steps, and of each step the losses and probabilities."""
    group, told = session.plan.group, []
    share = session.recipe.batch_size // group.size
    for number in range(STEPS):
        images, labels = batch(session.recipe, number)
        own = slice(group.rank * share, (group.rank + 1) * share)
        outcome = session.train(images[own], labels[own], number, EpochRates(0.05, 0.1, {}))
        told.append((outcome.losses, outcome.probs))
    session.collect()
    sha = hashlib.sha256()
    for arrays in (session.weights(), session.momentum()):
        for _, array in sorted(arrays.items()):
            sha.update(array.tobytes())
    return sha.hexdigest(), told


def check(
    together: Callable[..., list[Any]], recipe: Recipe, make: Callable[[], Any], sizes: tuple[int, ...] = (1, 2, 4)
) -> str:
    wanted, told = train(opened(recipe, make()))
    for size in sizes:
        results = together(size, lambda group: train(opened(recipe, make(), group)))
        assert {sha for sha, _ in results} == {wanted}, f"{size} ranks"
        for step in range(STEPS):
            losses = [loss for _, found in results for loss in found[step][0]]
            assert losses == list(told[step][0])
            probs = np.concatenate([found[step][1] for _, found in results])
            assert probs.tobytes() == told[step][1].tobytes()
    return wanted


@pytest.mark.parametrize("columns", [1, 2])
def test_walked_on_any_number_of_ranks(together: Any, columns: int) -> None:
    recipe = SMALL.replace(shards=4, columns=columns)
    sha = check(together, recipe, NumpyBackend)
    devices = ("cpu:1", "cpu:0")[:columns]
    assert train(opened(recipe, NumpyBackend(), placement=devices))[0] == sha


def test_walked_in_float64_and_three_times_two_shards(together: Any) -> None:
    check(together, SMALL.replace(shards=6, batch_size=12, dtype="float64"), NumpyBackend, (1, 3, 6))


@pytest.mark.parametrize("columns", [1, 2])
def test_compiled_on_any_number_of_ranks(together: Any, columns: int) -> None:
    recipe = SMALL.replace(shards=4, columns=columns)
    session = opened(recipe, NumbaBackend(threads=1))
    assert isinstance(session.step("train", recipe.batch_size), Step), "the step was not compiled"
    sha = check(together, recipe, lambda: NumbaBackend(threads=1))
    assert train(opened(recipe, NumbaBackend(threads=2)))[0] == sha


class Picky:
    """A backend whose compiler takes whatever has no sum over ranks in it."""

    def __init__(self) -> None:
        self.backend = NumpyBackend()
        self.asked: list[bool] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def compile_step(self, program: Any, bound: Any) -> Any:
        self.asked.append("sum_over_ranks" not in {call.operation for call in program.calls})
        return interpret(program, self.backend, bound) if self.asked[-1] else None


def test_a_compiler_that_places_no_sums_compiles_what_is_before_and_after_them(together: Any) -> None:
    recipe = SMALL.replace(shards=4)
    wanted, _ = train(opened(recipe, NumpyBackend()))
    backends = [Picky(), Picky()]
    results = together(2, lambda group: train(opened(recipe, backends[group.rank], group, ("cpu:0", "cpu:1"))))
    assert [sha for sha, _ in results] == [wanted] * 2
    assert [backend.asked for backend in backends] == [[False, True, True]] * 2


def test_a_compiled_step_in_shards_is_near_the_walked_one() -> None:
    recipe = SMALL.replace(shards=4, dtype="float64")
    session, other = opened(recipe, NumbaBackend(threads=1)), opened(recipe, NumpyBackend())
    train(session)
    train(other)
    for name, array in session.weights().items():
        np.testing.assert_allclose(array, other.weights()[name], rtol=1e-6, atol=1e-10, err_msg=name)


def test_shards_are_the_whole_batch_but_for_roundings() -> None:
    whole = SMALL.replace(dtype="float64", columns=1)
    one, four = opened(whole, NumpyBackend()), opened(whole.replace(shards=4), NumpyBackend())
    (_, told), (_, parts) = train(one), train(four)
    for name, array in one.weights().items():
        np.testing.assert_allclose(four.weights()[name], array, rtol=1e-9, atol=1e-12, err_msg=name)
    assert mean_loss(parts[0][0]) == pytest.approx(told[0][0][0], rel=1e-12)


def test_one_shard_is_the_step_that_was_there_before() -> None:
    for shards in (0, 1):
        recipe = SMALL.replace(shards=shards)
        plan = opened(recipe, NumpyBackend()).plan
        program = record(plan, "train", recipe.batch_size, ("cpu:0", "cpu:1"))
        assert {call.operation for call in program.calls}.isdisjoint({"scale", "sum_over_ranks"})
        assert not [call for call in program.calls if call.phase == "reduce"]
    assert "shards" not in SMALL.to_toml()
    assert parse(SMALL.replace(shards=4).to_toml(), "a run's").shards == 4


@pytest.mark.parametrize("shards", [0, 4])
@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "walked"])
def test_a_step_of_one_process_asks_its_group_for_nothing(shards: int, compiled: bool) -> None:
    """No operation of it is one over ranks, and none sends, copies or waits behind the program's back."""

    class Mute:
        rank, size, engine, places = 0, 1, "mute", ()

    recipe = SMALL.replace(shards=shards)
    session = opened(recipe, NumbaBackend(threads=1) if compiled else NumpyBackend(), Mute())
    step = session.step("train", recipe.batch_size)
    assert isinstance(step, Step) == compiled
    alone = opened(recipe, NumpyBackend()).plan
    mute, without = (record(plan, "train", recipe.batch_size, ("cpu:0",)) for plan in (session.plan, alone))
    assert {call.operation for call in mute.calls}.isdisjoint(OVER_RANKS)
    assert [(call.operation, call.layer, call.column, call.phase) for call in mute.calls] == [
        (call.operation, call.layer, call.column, call.phase) for call in without.calls
    ]
    train(session)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"130 images cannot be divided into 4 shards: set --batch-size 128 or 132"
    ):
        SMALL.replace(batch_size=130, shards=4)
    with pytest.raises(ConfigurationError, match=r"set --batch-size 4$"):
        SMALL.replace(batch_size=3, shards=4)


def test_gradients_go_to_the_other_ranks_while_those_before_are_still_to_come(monkeypatch: Any) -> None:
    from minialex.engine import step

    monkeypatch.setattr(step, "BUCKET", 1)
    recipe = SMALL.replace(shards=2)
    plan = opened(recipe, NumpyBackend(), Alone(0, 2)).plan
    program = record(plan, "train", 4, ("cpu:0", "cpu:1"))
    order = [(call.operation, call.layer) for call in program.calls]
    assert order.index(("sum_over_ranks", "fc8")) < order.index(("linear_backward", "fc6"))
    assert order.index(("sum_over_ranks", "fc6")) < order.index(("conv2d_backward", "conv5"))
    assert order.index(("sum_over_ranks", "fc6")) < order.index(("sum_over_ranks", "conv1"))


@pytest.mark.parametrize("columns", [1, 2])
def test_a_compiled_step_goes_on_backwards_while_a_sum_is_made(monkeypatch: Any, columns: int) -> None:
    """No sum is made until the first layer's gradients are there: a step that waited for one would wait for ever."""
    from minialex.engine import step

    monkeypatch.setattr(step, "BUCKET", 1)
    recipe = SMALL.replace(shards=2, columns=columns)
    there, waited, marks = threading.Event(), [], []

    class Slow(FixedOrder):
        rank, size, engine = 0, 2, "slow"

        def all_to_all(self, send: Any, receive: Any) -> None:
            waited.append(there.wait(20))
            receive[...] = send[0]

        def all_gather(self, part: Any, whole: Any) -> None:
            whole[...] = part

    session = opened(recipe, NumbaBackend(threads=1), Slow())
    images, labels = batch(recipe, 0)
    compiled = session.step("train", 4)
    assert isinstance(compiled, Step), "the step was not compiled"
    feed = session.training_feed(images[:4], labels[:4], 0, EpochRates(0.05, 0.1, {}))

    def watch(layer: str, column: int, phase: str) -> None:
        marks.append((layer, phase))
        if phase == "update":
            return
        if ("conv1", "backward") in marks and (layer, phase) != ("conv1", "backward"):
            there.set()

    compiled(feed, watch)
    assert waited
    assert all(waited)
    assert marks.index(("fc8", "reduce")) < marks.index(("conv5", "backward"))


@pytest.mark.parametrize(
    ("devices", "first", "wanted"),
    [
        (4, ("cuda:0",), ["cuda:0", "cuda:1", "cuda:2"]),
        (6, ("cuda:0", "cuda:1"), ["cuda:0,cuda:1", "cuda:2,cuda:3", "cuda:4,cuda:5"]),
        (2, ("cuda:0", "cuda:0"), ["cuda:0,cuda:0", "cuda:1,cuda:1", "rank 2 on here has no device"]),
    ],
)
def test_ranks_of_a_machine_have_devices_of_their_own(
    together: Any, devices: int, first: tuple[str, ...], wanted: list[str]
) -> None:
    backend: Any = SimpleNamespace(devices=tuple(f"cuda:{number}" for number in range(devices)))

    def work(group: Any) -> str:
        try:
            return ",".join(placement_of_rank(backend, first, group))
        except ConfigurationError as error:
            return str(error)

    assert all(found.startswith(there) for found, there in zip(together(3, work), wanted, strict=True))


def test_ranks_share_the_hosts_memory_and_what_a_launcher_gave_them(together: Any, monkeypatch: Any) -> None:
    host: Any = SimpleNamespace(devices=("cpu:0", "cpu:1"))
    assert together(3, lambda group: placement_of_rank(host, ("cpu:1",), group)) == [("cpu:1",)] * 3
    numbers = iter("012")
    monkeypatch.setattr(opening, "os", SimpleNamespace(environ=SimpleNamespace(get=lambda *_: next(numbers))))
    one: Any = SimpleNamespace(devices=("cuda:0",))
    assert together(3, lambda group: placement_of_rank(one, ("cuda:0",), group)) == [("cuda:0",)] * 3


@pytest.mark.parametrize("shards", [1, 4])
def test_no_gradient_outlives_its_step(shards: int) -> None:
    session = opened(SMALL.replace(shards=shards), NumpyBackend())
    train(session)
    gc.collect()
    before = session.backend.memory_in_use("cpu:0")
    gc.disable()  # whatever is a circle stays
    try:
        train(session)
        assert session.backend.memory_in_use("cpu:0") == before
    finally:
        gc.enable()


def test_where_values_are_not_finite_is_found_in_whosever_images_it_is(together: Any) -> None:
    def work(group: Any) -> str:
        recipe = SMALL.replace(shards=2)
        session = opened(recipe, NumpyBackend(), group)
        images, labels = (array[:4] for array in batch(recipe, 0))
        if group.rank == 1:
            labels[:] = 99  # not a class: the loss is not a number
        return first_not_finite(session, session.training_feed(images, labels, 0, EpochRates(0.05, 0.1, {})))

    assert together(2, work) == ["layer 'softmax' (forward pass)"] * 2


@pytest.mark.parametrize("ranks", [1, 2])
def test_dead_units_are_those_of_all_probed_images(together: Any, ranks: int) -> None:
    def work(group: Any) -> dict[str, float]:
        recipe = SMALL.replace(shards=2, init="he")
        session = opened(recipe, NumpyBackend(), group)
        images, labels = batch(recipe, 0)
        feed = session.training_feed(images, labels, 0, EpochRates(0.05, 0.1, {}), as_one(session))
        return dead_units(session, feed)

    alone = opened(SMALL.replace(init="he"), NumpyBackend())
    feed = alone.training_feed(*batch(SMALL, 0), 0, EpochRates(0.05, 0.1, {}))
    assert together(ranks, work) == [dead_units(alone, feed)] * ranks


DIVIDED = SMALL.replace(shards=4, features=[16, 20], full_layers="divided")


@pytest.mark.parametrize("columns", [1, 2])
def test_divided_full_layers_walked_on_any_number_of_ranks(together: Any, columns: int) -> None:
    check(together, DIVIDED.replace(columns=columns), NumpyBackend)


def test_divided_full_layers_of_six_pieces(together: Any) -> None:
    recipe = DIVIDED.replace(shards=6, batch_size=12, dtype="float64", features=[18, 24])
    check(together, recipe, NumpyBackend, (1, 3, 6))


def test_divided_full_layers_compiled_on_any_number_of_ranks(together: Any) -> None:
    session = opened(DIVIDED, NumbaBackend(threads=1))
    assert isinstance(session.step("train", DIVIDED.batch_size), Step), "the step was not compiled"
    sha = check(together, DIVIDED, lambda: NumbaBackend(threads=1))
    assert train(opened(DIVIDED, NumbaBackend(threads=2)))[0] == sha


@pytest.mark.parametrize("frozen", [("conv1", "conv2", "conv3", "conv4", "conv5"), ("fc6", "fc8"), ("conv1", "fc7")])
def test_frozen_layers_of_a_divided_network_stay(together: Any, frozen: tuple[str, ...]) -> None:
    def work(group: Any) -> dict[str, Any]:
        session = opened(DIVIDED, NumpyBackend(), group)
        own = slice(group.rank * 8 // group.size, (group.rank + 1) * 8 // group.size)
        images, labels = batch(DIVIDED, 0)
        now = EpochRates(0.05, 0.1, dict.fromkeys(frozen, 0.0))
        session.train(images[own], labels[own], 0, now)
        session.collect()
        return session.weights()

    before = opened(DIVIDED, NumpyBackend()).weights()
    (one,), two = together(1, work), together(2, work)
    for name, array in one.items():
        assert (array.tobytes() == before[name].tobytes()) == (name.split(".")[0] in frozen), name
        assert all(array.tobytes() == other[name].tobytes() for other in two), name


def test_a_rank_updates_its_own_units_alone_and_sends_no_gradient_of_them(together: Any) -> None:
    plan = opened(DIVIDED, NumpyBackend(), Alone(1, 2)).plan
    program = record(plan, "train", 4, ("cpu:0", "cpu:1"))
    sums = [call for call in program.calls if call.operation == "sum_over_ranks"]
    full = {name for name in program.bound if name.layer.startswith("fc") and name.array == "weight"}
    assert {name.column for name in full} == {2, 3}
    gradients = {result for call in program.calls if call.operation == "linear_backward" for result in call.results}
    assert gradients.isdisjoint(value for call in sums for value in call.args[0])
    assert sums, "those of the convolutions"
    together(2, lambda group: train(opened(DIVIDED, NumpyBackend(), group)))


def test_a_divided_session_answers_and_goes_on(together: Any) -> None:
    def work(group: Any) -> tuple[Any, ...]:
        session = opened(DIVIDED, NumpyBackend(), group)
        share, found = 8 // group.size, []
        own = slice(group.rank * share, (group.rank + 1) * share)
        for number in range(2):
            images, labels = batch(DIVIDED, number)
            now = EpochRates(0.05, 0.1, {})
            session.train(images[own], labels[own], number, now)
            if group.size > 1:
                for ask in (session.weights, session.momentum, lambda shown=images: session.probabilities(shown)):
                    with pytest.raises(ConfigurationError, match=r"call Session\.collect on all ranks first"):
                        ask()
            session.collect()
            found.append(session.probabilities(images)[0].tobytes())
            feed = session.training_feed(images[own], labels[own], number, now)
            assert first_not_finite(session, feed) == guards.UPDATE
        return tuple(found), train(session)[0]

    (one,) = together(1, work)
    assert together(2, work) == [one] * 2


def test_a_lack_of_memory_on_one_rank_is_explained_without_the_others() -> None:
    session = opened(DIVIDED, NumpyBackend(), Alone(0, 2))
    images, labels = batch(DIVIDED, 0)
    session.train(images[:4], labels[:4], 0, EpochRates(0.05, 0.1, {}))
    error = memory.explained(MemoryError(), session.backend, session.plan, "train", 4, session.bound)
    assert str(error).endswith("try batch_size = 2"), "which was carried out, without its updates"


def test_what_cannot_be_divided_is_refused() -> None:
    for changes, words in (
        ({"features": [16, 18]}, "layer 'fc7': 18 units cannot be divided over ranks in 4 pieces"),
        ({"connect": "never"}, "layer 'fc6': it reads its own column alone"),
        ({"trust_coefficient": 0.02}, "LARS needs the norm of whole arrays"),
    ):
        with pytest.raises(ConfigurationError, match=words) as caught:
            opened(DIVIDED.replace(**changes), NumpyBackend())
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="on processors alone, not on cpu:0, cpu:1 yet"):
        opened(DIVIDED, NumpyBackend(), placement=("cpu:0", "cpu:1"))
    with pytest.raises(ConfigurationError, match="on processors alone, not on cuda:0 yet"):
        Plan(models.ALEXNET, ("cuda:0", "cuda:0"), DIVIDED).divided  # noqa: B018
    assert opened(DIVIDED.replace(shards=0), NumpyBackend()).plan.divided is None, "one process has all units"


@pytest.mark.parametrize("make", [NumpyBackend, lambda: NumbaBackend(threads=1)])
def test_divided_full_layers_are_the_whole_network_but_for_roundings(make: Any) -> None:
    recipe = DIVIDED.replace(dtype="float64")
    divided, plain = opened(recipe, make()), opened(recipe.replace(full_layers="data-parallel"), NumpyBackend())
    (_, told), (_, wanted) = train(divided), train(plain)
    for name, array in plain.weights().items():
        np.testing.assert_allclose(divided.weights()[name], array, rtol=1e-8, atol=1e-11, err_msg=name)
    np.testing.assert_allclose(told[-1][0], wanted[-1][0], rtol=1e-10)

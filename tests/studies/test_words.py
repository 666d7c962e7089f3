"""Verdicts follow from numbers by rules, and claim no more than the numbers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minialex.speed import machine
from minialex.studies import words
from minialex.studies.outcome import ArmResult, Outcome, recorded
from minialex.studies.statistics import Estimate, estimate, student
from minialex.studies.study import key, names, study

student(1)  # imports SciPy now, not within the time that Hypothesis gives an example
NUMBERS = st.lists(st.floats(-20, 20), min_size=2, max_size=6)
FACTS = {"command": "minialex ablate pooling", "data": "cifar10", "training_images": 9, "validation_images": 9,
         "epochs": 1, "seconds": 60, "backend": "numba", "date": "2026-01-01"}  # fmt: skip


def outcome(*arms: tuple[float | None, ...], name: str = "pooling", quick: bool = False, **more: object) -> Outcome:
    """An outcome of the first arms of a study, each with a search that is as it should be."""
    found = study(name)
    bare = replace(found, arms=tuple(replace(arm, learning_rate=0.01) for arm in found.arms[: len(arms)]))
    errors = {0.005: (0.2, 0.2), 0.01: (0.0, 0.1), 0.02: (0.3, 0.3)}
    evidence = tuple(
        {"arm": arm.name, "rate": rate, "seed": 101 + n, "key": key(bare.search_recipe(arm, 101 + n, rate)),
         "value": values[0] + error}
        for arm, values in zip(bare.arms, arms, strict=True)
        for rate, pair in errors.items()
        for n, error in enumerate(pair)
    )  # fmt: skip
    of = replace(bare, evidence=evidence)
    seeds = tuple(range(len(arms[0])))
    results = tuple(
        ArmResult(arm.name, values, tuple(key(of.recipe(arm, seed)) for seed in seeds))
        for arm, values in zip(of.arms, arms, strict=True)
    )
    return Outcome(of, seeds, results, FACTS, quick=quick, **more)  # type: ignore[arg-type]


@settings(deadline=None)  # the machine may be busy
@given(NUMBERS, st.sampled_from(["worse", "better", "none"]), st.one_of(st.none(), st.floats(0.1, 5)))
def test_an_interval_with_zero_shows_nothing(values: list[float], expect: str, effect: float | None) -> None:
    found = estimate(values)
    said = words.judge(found, found.p, expect, effect)
    if found.includes_zero:
        assert said in (words.NOT_SHOWN, words.UNDECIDED, words.NO_DIFFERENCE)
    if said in (words.SHOWN, words.OPPOSITE):
        assert (said == words.SHOWN) == ((found.mean > 0) == (expect == "worse"))


@settings(deadline=None)  # the machine may be busy
@given(NUMBERS, st.floats(0.1, 5))
def test_turning_the_sign_turns_the_verdict(values: list[float], effect: float) -> None:
    found, turned = estimate(values), estimate([-value for value in values])
    assert words.judge(found, found.p, "worse", effect) == words.judge(turned, turned.p, "better", effect)


@pytest.mark.parametrize(
    ("found", "adjusted", "said"),
    [
        (Estimate(2, 1, 3, 5, 0.001), 0.002, words.SHOWN),
        (Estimate(-2, -3, -1, 5, 0.001), 0.002, words.OPPOSITE),
        (Estimate(2, 1, 3, 5, 0.03), 0.09, words.UNDECIDED),  # not after Holm
        (Estimate(0, -0.3, 0.3, 5, 1.0), 1.0, words.NOT_SHOWN),  # no room for the paper's 0.4
        (Estimate(0, -3, 3, 5, 1.0), 1.0, words.UNDECIDED),
        (Estimate(-2, -5, 0.1, 5, 0.06), 0.06, words.NOT_SHOWN),
    ],
)
def test_the_rules(found: Estimate, adjusted: float, said: str) -> None:
    assert words.judge(found, adjusted, "worse", 0.4) == said


def test_a_shown_difference_in_words_and_table() -> None:
    found = outcome((50.0, 51.0, 49.0), (53.0, 54.1, 51.9))
    (sentence,) = words.verdict(found)
    assert "3.0 points of top-1 error more" in sentence
    assert sentence.endswith(f"the paper's claim: {words.SHOWN}.")
    row = words.table(found).splitlines()[-1]
    assert "| +3.0 |" in row
    assert "| +0.4 |" in row
    assert "41.1% (#147, ILSVRC-2012 validation; #145: 40.7%)" in row


def test_the_verdict_stands_beside_the_difference_and_what_others_measured_last() -> None:
    """A wide table scrolls: what is beyond its first columns may not be seen."""
    for name in names():
        found = recorded(name)
        assert found is not None
        header, _, *rows = [words.cells(line) for line in words.table(found).splitlines()]
        assert header[0] == "arm"
        assert header[2:4] == ["difference", "verdict"]
        assert [row[3] != "" for row in rows] == [False] + [True] * (len(rows) - 1)
        others = ["paper", "2012 log", *sorted({line.source for line in found.study.published})]
        assert header[header.index("learning rate") + 1 :] == [each for each in others if each in header]


def test_no_difference_is_said_in_both() -> None:
    found = outcome((50.0, 51.0, 49.0), (50.5, 50.0, 49.5))
    assert "no difference shown" in words.verdict(found)[0]
    assert "no difference shown: undecided" in words.table(found)


def test_the_opposite_needs_the_two_best_rates() -> None:
    found = outcome((53.0, 54.1, 51.9), (50.0, 51.0, 49.0))
    assert words.judgement(found, found.arms[1]) == words.OPPOSITE
    worse = [dict(line) for line in found.study.evidence]
    for line in worse:
        if line["arm"] == "touching" and line["rate"] != 0.01:
            line["value"] = 60.0
    crossed = replace(found, study=replace(found.study, evidence=tuple(worse)))
    assert words.judgement(crossed, crossed.arms[1]) == words.UNDECIDED


def test_no_verdict_without_a_search_or_of_another_design() -> None:
    found = outcome((50.0, 51.0, 49.0), (53.0, 54.1, 51.9))
    bare = replace(found, study=replace(found.study, evidence=()))
    assert words.judgement(bare, bare.arms[1]).startswith(f"{words.NOT_YET}: no learning rate was searched")
    other = replace(found, study=replace(found.study, regime={**found.study.regime, "epochs": 3}))
    assert "another design" in words.judgement(other, other.arms[1])
    assert words.NOT_YET in words.table(other)


def test_a_decay_that_could_not_act_is_called_that() -> None:
    found = outcome((53.0, 54.1, 51.9), (50.0, 51.0, 49.0), name="decay")
    few = replace(found, facts={**FACTS, "training_images": 320})  # 20 steps an epoch
    folds = words.decay_folds(few, few.arms[1])
    assert folds == pytest.approx(20 * (0.01 * 139 + 0.001 * 11) / 0.1 * 0.0005)
    assert words.judgement(few, few.arms[1]).startswith(words.CANNOT_TELL)
    many = replace(found, facts={**FACTS, "training_images": 32 * 200})
    assert words.judgement(many, many.arms[1]) == words.SHOWN
    pooling = outcome((50.0, 51.0), (53.0, 54.0))
    assert words.decay_folds(pooling, pooling.arms[1]) is None


def test_a_decay_acts_as_long_as_what_is_measured_lasts() -> None:
    found = outcome((50.0, 51.0, 49.0), (53.0, 54.1, 51.9), name="decay")
    step = 0.01 / 0.1 * 0.0005
    start = replace(found, study=replace(found.study, measure="start"), facts={**FACTS, "training_images": 32000})
    assert words.decay_folds(start, start.arms[1]) == pytest.approx(step * 54.1)
    epochs = replace(start, study=replace(found.study, measure="epochs"))
    assert words.decay_folds(epochs, epochs.arms[1]) == pytest.approx(step * 2000 * 54.1)


def test_a_decay_is_counted_with_its_own_images_and_whatever_else_is_named() -> None:
    found = outcome((50.0, 51.0, 49.0), (53.0, 54.1, 51.9), name="decay")
    first, second = found.study.arms[:2]
    few = {"train_images": 320}
    other_first = replace(first, name="few", fields={**first.fields, **few})
    arms = (first, other_first, replace(second, fields={**second.fields, **few}, against="few"))
    with_few = replace(found.study, arms=arms)
    results = (found.arms[0], replace(found.arms[0], name="few"), found.arms[1])
    other = replace(found, study=with_few, arms=results, facts={**FACTS, "training_images": 5000})
    folds = words.decay_folds(other, other.arms[2])
    assert folds == pytest.approx(20 * (0.01 * 139 + 0.001 * 11) / 0.1 * 0.0005)
    named = replace(second, fields={**second.fields, "loader_threads": 7, "backend": "numpy"})
    disguised = replace(found, study=replace(found.study, arms=(first, named)))
    assert words.decay_folds(disguised, disguised.arms[1]) == words.decay_folds(found, found.arms[1]) is not None


def test_two_seeds_that_happen_to_agree_show_nothing() -> None:
    found = outcome((50.0, 51.0), (53.0, 54.0))
    assert found.differences["touching"].p == 0
    assert words.judgement(found, found.arms[1]) == words.UNDECIDED


@pytest.mark.parametrize(
    ("base", "arm", "limits", "said"),
    [
        ((None, None, None), (None, None, None), (60, 60), words.CANNOT_TELL),
        ((None, None, None), (None, None, None), (60, 30), words.CANNOT_TELL),  # no difference but of the limits
        ((10.0, 10.5, 10.2), (None, None, None), (60, 60), words.SHOWN),  # a lower bound
        ((10.0, 10.5, 10.2), (None, None, None), (60, 5), words.UNDECIDED),  # −5, or anything above
        ((None, None, None), (70.0, 70.5, 70.2), (60, 80), words.UNDECIDED),  # +10, or anything below
        ((None, None, None), (10.0, 10.5, 10.2), (60, 60), words.OPPOSITE),
        ((59.9, 60.0, 59.8), (None, None, None), (60, 60), words.UNDECIDED),  # not "not shown"
    ],
)
def test_what_bounds_show(
    base: tuple[float | None, ...], arm: tuple[float | None, ...], limits: tuple[float, float], said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(words, "not_comparable", lambda *_: "")
    monkeypatch.setattr(words.search, "agree", lambda *_: True)
    found = outcome((3.0, 3.5, 3.2), (9.0, 9.6, 9.1), name="relu")
    arms = tuple(replace(one, values=values) for one, values in zip(found.arms, (base, arm), strict=True))
    found = replace(found, arms=arms, limits=dict(zip(("relu-2012", "tanh-2012"), limits, strict=True)))
    assert words.judgement(found, found.arms[1]).startswith(said)


def test_an_average_of_fewer_networks_is_not_what_was_asked() -> None:
    found = outcome((50.0, 51.0, 49.0), (47.0, 47.1, 46.9), name="ensemble")
    assert words.judgement(found, found.arms[1]) == f"{words.CANNOT_TELL}: an average of 3 networks, not of 5"


def test_a_bar_in_an_arms_words_is_no_new_cell() -> None:
    found = outcome((50.0, 51.0, 49.0), (53.0, 54.1, 51.9))
    named = replace(found.study.arms[1], words="relu | tanh")
    table = words.table(replace(found, study=replace(found.study, arms=(found.study.arms[0], named))))
    rows = [words.cells(line) for line in table.splitlines()]
    assert rows[-1][0] == "relu | tanh"
    assert len({len(row) for row in rows}) == 1


def test_arms_are_compared_with_the_one_they_name() -> None:
    found = outcome((3.0, 3.5), (9.0, 9.6), (4.0, 4.1), (4.2, 4.0), name="relu", limits={})
    assert found.differences["tanh-today"].mean == pytest.approx(0.05)
    assert found.differences["tanh-2012"].mean == pytest.approx(6.05)
    assert "ReLU as today" in words.table(found).splitlines()[-1]


def test_a_shared_base_is_said() -> None:
    mine, other, apart = study("momentum"), study("views"), study("decay")
    assert words.shared(mine, [mine, apart, other]) == (
        "The runs of momentum 0.9 are those of these studies, too: Ten views."
    )
    assert words.shared(mine, [mine, apart]) == ""


def test_quick_claims_nothing() -> None:
    found = outcome((50.0, 51.0, 49.0), (53.0, 54.0, 52.0), quick=True)
    assert words.verdict(found) == (words.QUICK + ".",)
    assert words.QUICK in words.table(found)
    assert words.SHOWN not in words.table(found)


def test_a_goal_that_is_not_reached_is_a_lower_bound() -> None:
    found = outcome((3.0, 3.5, 3.2), (9.0, None, None), name="relu",
                    limits={"relu-2012": 40.0, "tanh-2012": 40.0})  # fmt: skip
    assert "≥ 29.67" in words.table(found)
    assert "did not reach the goal in 40 epochs with 2 of 3 seeds" in words.verdict(found)[0]


def test_where_figures_come_from() -> None:
    said = words.provenance(outcome((50.0, 51.0), (50.0, 52.0)))
    assert said.startswith("`minialex ablate pooling`; cifar10, 9 training")
    assert "2026-01-01" in said
    assert "minutes of training on one core each: " in said


def test_figures_of_a_gpu_name_the_card() -> None:
    found = outcome((50.0, 51.0), (50.0, 52.0))
    found.facts.update(backend="cuda", machine={"processor": "Xeon", "cores": 16, "cards": ["NVIDIA H100"]})
    assert "minutes of training several runs at once on NVIDIA H100: Xeon, 16 cores;" in words.provenance(found)


def test_figures_of_the_first_arm_are_called_that_where_arms_differ_in_them() -> None:
    found = outcome((50.0, 51.0), (50.0, 52.0), name="data")
    assert "1 epoch (the first arm), seeds" in words.provenance(found)
    assert "the first arm" not in words.provenance(outcome((50.0, 51.0), (50.0, 52.0)))


def test_the_command_is_shown_without_the_machines_folders() -> None:
    found = outcome((50.0, 51.0), (50.0, 52.0))
    found.facts["command"] = (
        "minialex ablate pooling --data cifar10:/home/me/cifar10.tar.gz --out /home/me/out --record"
    )
    said = words.provenance(found)
    assert said.startswith("`minialex ablate pooling --data cifar10:cifar10.tar.gz --record`; cifar10, 9 training")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("python benchmarks/prepare.py decode /work/photos", "python benchmarks/prepare.py decode photos"),
        ("minialex ablate ./mine.toml --out=/tmp/x --jobs 2", "minialex ablate ./mine.toml --jobs 2"),
        ("minialex ablate relu --data=~/c.tgz --record", "minialex ablate relu --data=c.tgz --record"),
    ],
)
def test_commands_for_any_machine(command: str, shown: str) -> None:
    assert machine.anywhere(command) == shown

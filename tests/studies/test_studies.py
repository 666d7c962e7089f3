"""Study files: all load, every arm is a network, records agree with the studies, and what is wrong is said."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from minialex import studies as ablations
from minialex.cli.ablate import quick_study
from minialex.errors import ConfigurationError, DataError
from minialex.network import variants
from minialex.network.layers import Conv2d
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import built_in, load
from minialex.studies import words
from minialex.studies.study import ORDER, key, parse, study

ALL = ablations.names()


def parameters(recipe: Recipe) -> int:
    shapes = whole_shapes(variants.build(recipe), recipe.columns)
    return sum(math.prod(shape) for shape in shapes.values())


def test_all_are_there() -> None:
    assert ALL == ORDER


@pytest.mark.parametrize("name", ALL)
def test_every_arm_builds(name: str) -> None:
    found = study(name)
    assert len({key(found.recipe(arm, 1)) for arm in found.arms if not arm.rate_of}) == sum(
        not arm.rate_of for arm in found.arms
    ), "two arms train the same"
    for arm in found.arms:
        assert parameters(found.recipe(arm, 1).replace(classes=10)) > 1000
        assert not arm.rate_of or found.arm(arm.rate_of).fields == arm.fields
    for line in found.full_scale:
        assert line.recipe in built_in()
        load(line.recipe)
    assert not set(found.calibration.get("seeds", ())) & set(found.seeds), "rates are found on other seeds"


@pytest.mark.parametrize("name", ALL)
def test_records_are_of_these_studies(name: str) -> None:
    """A record whose keys no longer follow from the study is called that: `minialex ablate NAME --record` mends it."""
    found, kept = study(name), ablations.recorded(name)
    if kept is None:
        pytest.skip(f"nothing is recorded of {name}")
    assert [arm.name for arm in kept.arms] == [arm.name for arm in found.arms]
    for arm in kept.arms[1:]:
        recipes = [found.recipe(found.arm(arm.name), seed) for seed in kept.seeds]
        if arm.keys != tuple(key(recipe) for recipe in recipes):
            assert words.judgement(kept, arm).startswith(words.NOT_YET)
    assert not kept.quick
    assert set(kept.seeds) <= set(found.seeds)
    assert ablations.table(kept).count("\n") == len(found.arms) + 2
    assert len(ablations.verdict(kept)) == len(found.arms) - 1
    path = resources.files("minialex.studies") / "recorded" / f"{name}.json"
    assert len(path.read_bytes()) < 50_000
    assert ablations.outcome.from_json(json.loads(path.read_text()), found).to_json() == json.loads(path.read_text())


@pytest.mark.parametrize("name", ALL)
def test_quick_is_quick_for_every_arm(name: str) -> None:
    found = quick_study(study(name))
    for arm in found.arms:
        recipe = found.recipe(arm, 1)
        assert 32 <= recipe.train_images <= 256
        assert (recipe.epochs, recipe.data) == (2, "shapes")


def test_pooling_compares_equal_sizes() -> None:
    found = study("pooling")
    shapes = [whole_shapes(variants.build(found.recipe(arm, 1).replace(classes=10)), 2) for arm in found.arms]
    assert shapes[0] == shapes[1]


def test_depth_leaves_the_full_layers_as_they_are() -> None:
    found = study("depth")
    inputs = [
        whole_shapes(variants.build(found.recipe(arm, 1).replace(classes=10)), 1)["fc6.weight"] for arm in found.arms
    ]
    assert set(inputs) == {(128, 324)}


def test_more_decay_than_the_papers_has_time_to_act_at_every_rate_that_is_tried() -> None:
    found = study("decay")
    for arm in (found.arm("0.005"), found.arm("0.02")):
        for rate in found.grid(arm):
            recipe = found.search_recipe(arm, 101, rate)
            assert words.shrinkage(recipe, recipe.train_images) > 1


def test_initial_biases_are_compared_at_weights_as_small_beside_their_inputs_as_the_papers() -> None:
    found = study("bias")
    mine, paper = found.recipe(found.arm("1"), 1).replace(classes=10), load("alexnet-2012")
    for layer in ("conv3", "conv4", "conv5", "fc6", "fc7"):
        sizes = []
        for recipe in (mine, paper):
            stage = next(s for s in variants.build(recipe).stages(2) if s.layer.name == layer)
            inputs = stage.seen[0] * (stage.layer.size**2 if isinstance(stage.layer, Conv2d) else 1)
            sizes.append(stage.layer.std * math.sqrt(inputs))
        assert sizes[0] == pytest.approx(sizes[1])


def test_the_data_study_differs_in_images_alone() -> None:
    found = study("data")
    recipes = [found.recipe(arm, 1) for arm in found.arms]
    assert {recipe.train_images // recipe.batch_size * recipe.epochs for recipe in recipes} == {15000, 14976, 15004}
    assert {(recipe.steps[0] - 1) / recipe.epochs for recipe in recipes} == {0.75}, "full rate for so long"


def test_columns_at_equal_parameters_are_equal() -> None:
    found = study("columns-equal")
    counts = [parameters(found.recipe(arm, 1).replace(classes=10)) for arm in found.arms]
    assert counts == [39_802, 39_994, 39_854, 39_994]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("half", 59_798_312),  # FACTS: layers-145-half
        ("no-norm", 60_965_224),
        ("no-overlap", 60_965_224),
        ("no-augmentation", 60_965_224),
        ("without-conv4", 60_965_224 - 663_936),
    ],
)
def test_full_scale_recipes_have_their_parameters(name: str, count: int) -> None:
    assert parameters(load(f"ablations/{name}")) == count


def test_touching_windows_have_the_programs_sizes() -> None:
    from minialex.engine.summary import summarise

    rows = {
        row.layer: row.output[1] for row in summarise(load("ablations/no-overlap"), None).rows if len(row.output) == 3
    }
    assert [rows[name] for name in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")] == [55, 28, 26, 13, 11, 6]


SMALL = """
title = "t"
question = "q"
section = "1"
claim = "c"
measure = "error"
base = "small"
seeds = [1, 2]
[[arms]]
name = "a"
[[arms]]
name = "b"
fields = { dropout = 0.3 }
"""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('measure = "error"', 'measure = "errror"', "no measure 'errror'. Did you mean 'error'"),
        ("dropout = 0.3", "droput = 0.3", "no recipe field 'droput'. Did you mean 'dropout'"),
        ("dropout = 0.3", "dropout = 3", "recipe field 'dropout'"),
        ('base = "small"', 'base = "smal"', "no recipe 'smal'"),
        ("seeds = [1, 2]", "seeds = [1, 1]", "seeds that differ"),
        ('name = "b"', 'name = "a"', "a name of its own"),
        ('title = "t"', 'titel = "t"', "unknown 'titel'. Did you mean 'title'"),
        ('title = "t"', "", "'title' is missing"),
        ('title = "t"', "title = t", "is not TOML"),
        ('name = "b"', 'name = "b"\nagainst = "c"', "is compared with 'c', no arm above it"),
        ("[[arms]]", "[calibration]\nseeds = [7]\n[[arms]]", "needs two seeds or more"),
        ("[[arms]]", "[calibration]\nregime = {}\n[[arms]]", "unknown 'regime'"),
        ('name = "b"', 'name = "b"\nexpect = "wors"', "expect is one of worse, better, none"),
        ('name = "b"', 'name = "b"\nagainst = "b"', "is compared with 'b', no arm above it"),
        ('name = "b"', 'name = "b"\nrate_of = "c"', "uses the learning rate of 'c', no arm above it"),
        ('name = "b"', 'name = "b"\nrate_of = "a"', "trains something else than 'a', whose learning rate it uses"),
        ("dropout = 0.3", "", "arms 'a' and 'b' train the same"),
        ("dropout = 0.3", 'backend = "numpy", loader_threads = 7, seed = 9', "arms 'a' and 'b' train the same"),
        ("dropout = 0.3", "droput = 0.3", "arm 'b' of study 'mine'"),
        ("seeds = [1, 2]", "seeds = 5", "'seeds' must be a list of whole numbers"),
        ("seeds = [1, 2]", "seeds = [1, -2]", "'seeds' must be a list of whole numbers"),
        ("seeds = [1, 2]", "seeds = []", "two arms or more, and seeds"),
        ('title = "t"', "title = 3", "'title' must be a line of text"),
        ('title = "t"', 'title = "t\\n\\u001b[2J"', "'title' must be a line of text"),
        ('measure = "error"', "measure = 3", "'measure' must be a line of text"),
        ('base = "small"', "base = 3", "'base' must be a line of text"),
        ('title = "t"', 'title = "t"\nregime = 3', "'regime' must be a table"),
        ('title = "t"', 'title = "t"\ncalibration = 3', "'calibration' must be a table"),
        ('title = "t"', 'title = "t"\npublished = [3]', "'published' must be a list of tables"),
        ("{ dropout = 0.3 }", "3", "'fields' must be a table"),
        ('name = "b"', "name = 3", "'name' must be a line of text"),
        ('name = "b"', 'name = "b"\neffect = -1.4', "'effect' must be a number above 0"),
        ('name = "b"', 'name = "b"\nevaluate = { views = 7 }', "'views' must be 1 or 10"),
        ('name = "b"', 'name = "b"\nevaluate = { average = 0 }', "'average' must be a whole number above 0"),
        ("[[arms]]", '[[published]]\narm = "b"\n[[arms]]', "[[published]] of study 'mine': 'source' is missing"),
        (
            "[[arms]]",
            '[[full_scale]]\narm = "b"\nrecipe = "ablations/no-nrom"\n[[arms]]',
            "Did you mean 'ablations/no-norm'",
        ),
        (
            "[[arms]]",
            '[[full_scale]]\narm = "b"\nrecipe = "gone.toml"\n[[arms]]',
            "cannot read the recipe gone.toml",
        ),
        ("[[arms]]", "[calibration]\nseeds = [7, 8]\n[[arms]]", "no grid of learning rates for arm 'a'"),
        ("[[arms]]", "[calibration]\nseeds = [7, 7]\ngrid = [0.1]\n[[arms]]", "seeds that differ"),
        ("[[arms]]", "[calibration]\nseeds = [7, 2]\ngrid = [0.1]\n[[arms]]", "seed 2 is compared"),
        ("[[arms]]", "[calibration]\nseeds = [7, 8]\ngrid = [0.0]\n[[arms]]", "numbers above 0 that differ"),
        ("[[arms]]", "[calibration]\nseeds = [7, 8]\ngrid = [0.1, 0.1]\n[[arms]]", "numbers above 0 that differ"),
        ("[[arms]]", "[calibration]\nseeds = [7, 8]\ngrids = { c = [0.1] }\n[[arms]]", "no arm 'c'"),
    ],
)
def test_what_is_wrong_is_said(before: str, after: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(SMALL.replace(before, after, 1), "mine")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ("rates = 3", "'rates' must be a table"),
        ("evidence = [3]", "'evidence' must be a list of tables"),
        ('evidence = [{ arm = "a" }]', "'rate' is missing"),
        ('evidence = [{ arm = "a", rate = 0.1, seed = 1, value = nan, key = "k" }]', "'value' must be a number"),
        ("[rates]\na = nan", "expected a finite number"),
        ("[rates]\nc = 0.1", "no arm 'c'"),
    ],
)
def test_rates_that_are_wrong_are_said(rates: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(SMALL, "mine", rates)
    assert said in str(caught.value)


def test_a_full_scale_recipe_may_be_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_text("[training]\nlearning_rate = 0.02\n")
    full = f"[[full_scale]]\narm = 'b'\nrecipe = '{path}'\n"
    assert parse(SMALL + full, "mine").full_scale[0].recipe == str(path)


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for data, said in ((b"title = '\xff'", "line 1 is not UTF-8"), (SMALL.encode("utf-16"), "UTF-16")):
        path.write_bytes(data)
        with pytest.raises(ConfigurationError, match=said):
            study(str(path))
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert study(str(path)).name == "mine"


def test_many_arms_are_checked_in_seconds() -> None:
    many = "".join(f'[[arms]]\nname = "n{n}"\nfields = {{ norm_k = {n + 10.0} }}\n' for n in range(600))
    began = time.process_time()
    assert len(parse(SMALL + many, "many").arms) == 602
    assert time.process_time() - began < 2


def damaged(name: str = "pooling") -> dict[str, Any]:
    path = resources.files("minialex.studies") / "recorded" / f"{name}.json"
    value: dict[str, Any] = json.loads(path.read_text())
    return value


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value["arms"].pop(),
        lambda value: value["arms"].reverse(),
        lambda value: value["arms"][1]["values"].pop(),
        lambda value: value["arms"][1]["keys"].pop(),
        lambda value: value["arms"][1]["values"].__setitem__(0, math.nan),
        lambda value: value["arms"][1]["values"].__setitem__(0, 99.0),
        lambda value: value["differences"]["touching"].__setitem__(0, -3.0),
        lambda value: value["means"]["touching"].__setitem__(0, math.nan),
        lambda value: value["means"]["touching"].pop(),
        lambda value: value.update(measure="gap"),
        lambda value: value.update(arms=3),
        lambda value: value.update(means=[3]),
    ],
)
def test_a_record_that_cannot_be_is_no_result(change: Callable[[dict[str, Any]], object]) -> None:
    value = damaged()
    ablations.outcome.from_json(value, study("pooling"))
    change(value)
    with pytest.raises(DataError, match="the recorded outcome of 'pooling' is damaged"):
        ablations.outcome.from_json(value, study("pooling"))


def test_a_record_that_is_cut_off_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    (tmp_path / "recorded" / "pooling.json").write_text(json.dumps(damaged())[:500])
    pooling = study("pooling")
    monkeypatch.setattr("minialex.studies.outcome.resources.files", lambda _: tmp_path)
    monkeypatch.setattr("minialex.studies.outcome.study", lambda _: pooling)
    with pytest.raises(DataError, match="the recorded outcome of 'pooling' is damaged"):
        ablations.recorded("pooling")


def test_a_study_of_ones_own_with_its_rates(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SMALL)
    (tmp_path / "mine.rates.toml").write_text("[rates]\nb = 0.5\n")
    found = study(str(tmp_path / "mine.toml"))
    assert found.recipe(found.arm("b"), 3).learning_rate == 0.5
    assert found.recipe(found.arm("b"), 3).seed == 3
    with pytest.raises(ConfigurationError, match=r"no study 'poling'\. Did you mean 'pooling'"):
        study("poling")


def test_a_key_is_of_what_decides_the_numbers() -> None:
    recipe = load("small")
    assert key(recipe) == key(recipe.replace(backend="numpy", devices="cpu:1", loader_threads=7))
    assert key(recipe.replace(data="cifar10")) == key(recipe.replace(data="cifar10:/somewhere"))
    assert key(recipe) != key(recipe.replace(seed=1))
    assert key(recipe) != key(recipe.replace(norm_k=1.0))

"""Recipes: defaults, files, overrides, and errors that name the nearest field."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from minialex.errors import ConfigurationError
from minialex.recipe.fields import Recipe, fields
from minialex.recipe.toml import built_in, load, parse, parse_value


@pytest.mark.parametrize("name", built_in())
def test_built_in_recipes_survive_a_round_trip(name: str) -> None:
    recipe = load(name)
    assert parse(recipe.to_toml(), "here") == recipe


def test_defaults_are_the_papers() -> None:
    recipe = load("alexnet-2012")
    assert recipe == Recipe()
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay, recipe.batch_size) == (0.01, 0.9, 0.0005, 128)
    assert (recipe.norm_k, recipe.norm_size, recipe.norm_alpha, recipe.norm_beta) == (2, 5, 1e-4, 0.75)
    assert (recipe.pool_size, recipe.pool_stride, recipe.dropout, recipe.crop, recipe.image_size) == (
        3,
        2,
        0.5,
        224,
        256,
    )


def test_the_papers_recipe_states_what_the_paper_says() -> None:
    """All fields that cite a section stand in the file, each with a comment."""
    text = (resources.files("minialex") / "recipe" / "presets" / "alexnet-2012.toml").read_text(encoding="utf-8")
    lines = {line.partition(" = ")[0]: line for line in text.splitlines() if " = " in line and line[0] != "#"}
    cited = {name for name, (_, info) in fields().items() if re.search(r"\(\d(\.\d)?\)", info.metadata["doc"])}
    assert cited - set(lines) == set()
    sections = {name: re.search(r"\((\d(\.\d)?)\)", lines[name]) for name in cited}
    for name in ("learning_rate", "momentum", "weight_decay", "crop", "kernels", "norm_k", "pool_size", "reflect"):
        assert sections[name], name


def test_the_modern_recipe_says_why_for_each_field() -> None:
    text = (resources.files("minialex") / "recipe" / "presets" / "alexnet-modern.toml").read_text(encoding="utf-8")
    stated = [line for line in text.splitlines() if " = " in line and line[0] != "#" and not line.startswith("base")]
    modern, paper = load("alexnet-modern"), load("alexnet-2012")
    assert {line.partition(" = ")[0] for line in stated} >= set(modern.differences(paper))
    for line in stated:
        name = line.partition(" = ")[0]
        assert "#" in line or name in ("kernels", "conv1_padding"), line


def test_every_field_is_documented() -> None:
    for name, (_, info) in fields().items():
        assert len(info.metadata["doc"]) > 10, name


def test_a_field_is_found_by_its_name_alone() -> None:
    recipe = Recipe().replace(norm_k=1, steps=(3, 4))
    assert recipe.norm_k == 1.0
    assert recipe.norm_k == 1.0
    assert recipe.steps == (3, 4)
    with pytest.raises(AttributeError):
        _ = recipe.no_such_field


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rat", 1, "no recipe field 'learning_rat'. Did you mean 'learning_rate'?"),
        ("batch_size", 0, "recipe field 'batch_size': expected at least 1, got 0"),
        ("loader_threads", 257, "recipe field 'loader_threads': expected at most 256, got 257"),
        ("batch_size", 2.5, "recipe field 'batch_size': expected a whole number, got 2.5"),
        ("batch_size", True, "recipe field 'batch_size': expected a whole number, got True"),
        ("learning_rate", 0, "recipe field 'learning_rate': expected more than 0, got 0.0"),
        ("learning_rate", float("nan"), "recipe field 'learning_rate': expected a finite number, got nan"),
        ("dropout", 1.0, "recipe field 'dropout': expected less than 1, got 1.0"),
        ("norm_place", "before-relu", "expected one of after-relu, before-relu-1, after-pool, got 'before-relu'"),
        ("crop", 300, "recipe field 'crop': 300 is larger than image_size, 256"),
        ("views", 5, "recipe field 'views': expected 1 or 10, got 5"),
        ("kernels", (1, 2), "recipe field 'kernels': expected 5 numbers"),
        ("omit", ("conv7",), "recipe field 'omit': no layer 'conv7'"),
        ("omit", ("conv1",), "conv1 cannot be left out"),
        ("layer_rates", {"conv1": "x"}, "recipe field 'layer_rates'"),
        ("timeline", ({"epoch": 3, "momentum": 0.5},), "'momentum' cannot change during a run"),
        ("timeline", ({"learning_rate": 0.5},), "every table needs an epoch"),
    ],
)
def test_errors(name: str, value: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Recipe().replace(**{name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[network]\nnorm_kk = 1", "no field 'norm_kk' in [network]. Did you mean 'norm_k'?"),
        ("[netwrok]\nnorm_k = 1", "no table [netwrok]. Did you mean 'network'?"),
        ("[training]\nnorm_k = 1", "no field 'norm_k' in [training]"),
        ('base = "papre"', "no base 'papre'"),
        ("= 3", "is not valid TOML"),
        ('[images]\ncrops = "none"', "file.toml: recipe field 'crops': expected one of random, centre"),
    ],
)
def test_errors_in_files(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"file\.toml") as caught:
        parse(text, "file.toml")
    assert message in str(caught.value)


def test_load_from_a_file_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "code145"\n[training]\nepochs = 3\n', encoding="utf-8")
    assert load(str(path)).epochs == 3
    assert load(str(path)).spatial_norm
    with pytest.raises(ConfigurationError, match=r"no recipe 'alexnet-2021'.*Did you mean 'alexnet-2012'"):
        load("alexnet-2021")
    with pytest.raises(ConfigurationError, match="cannot read the recipe"):
        load(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("kernels", "1,2, 3,4,5", (1, 2, 3, 4, 5)),
        ("norm_layers", "", ()),
        ("norm_layers", "conv2", ("conv2",)),
        ("norm_layers", '["conv1", "conv2"]', ("conv1", "conv2")),
        ("reflect", "no", False),
        ("learning_rate", "1e-3", 0.001),
        ("data", "cifar10:/a b/c", "cifar10:/a b/c"),
        ("layer_rates", '{"conv1": 0}', {"conv1": 0}),
    ],
)
def test_values_from_the_command_line(name: str, text: str, value: object) -> None:
    assert parse_value(name, text) == value


@pytest.mark.parametrize(("name", "text"), [("reflect", "maybe"), ("epochs", "3.5"), ("colour", "red")])
def test_values_that_do_not_parse(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"recipe field '{name}': expected .*, got '{text}'"):
        parse_value(name, text)


def test_precision_needs_float32() -> None:
    with pytest.raises(ConfigurationError, match="'precision': tf32 needs dtype float32, not float64"):
        Recipe().replace(precision="tf32", dtype="float64")
    with pytest.raises(ConfigurationError, match="Did you mean 'bfloat16'"):
        Recipe().replace(precision="bf16")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "small"\n[images]\ndata = "Füße"\n', encoding=encoding)
    assert load(str(path)) == load("small").replace(data="Füße")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_a_recipe_that_is_not_utf_8_says_what_it_is(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes('base = "small"\n[images]\ndata = "Füße"\n'.encode(encoding))
    what = "line 3 is not UTF-8" if encoding == "latin-1" else "it is UTF-16"
    with pytest.raises(ConfigurationError, match=f"{what}; save it as UTF-8"):
        load(str(path))


def test_no_text_has_a_null_character() -> None:
    with pytest.raises(ConfigurationError, match="contains a null character"):
        parse('[images]\ndata = "a\\u0000b"\n', "x")

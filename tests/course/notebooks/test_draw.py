"""Drawings that belong to one notebook each: what they show is what they were given."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from minialex.course import notebooks
from minialex.course.notebooks import draw
from minialex.network import models, variants
from minialex.recipe import toml as recipe
from minialex.runs.weights_file import read

ROOT = Path(__file__).resolve().parents[3]


def words(picture):
    axes = picture.figure.axes
    return [a.get_title(loc="left") for a in axes] + [text.get_text() for a in axes for text in a.texts]


def test_columns_draw_what_the_network_says_it_reads():
    axes = draw.columns(models.ALEXNET).figure.axes[0]
    assert {"conv1", "conv3", "fc8", "card 2"} <= set(words(draw.columns(models.ALEXNET)))
    crossing = sorted(round(line.get_xdata()[1] + 0.18) for line in axes.lines if line.get_linestyle() == "--")
    assert crossing == [2, 2, 5, 5, 6, 6, 7]  # conv3, fc6 and fc7 both ways; fc8 is on the first card


def test_views_say_how_many_rows_a_place_sees():
    short = variants.build(recipe.load("alexnet-2012").replace(omit=("conv3", "conv4")))
    said = words(draw.views({"whole": models.ALEXNET, "short": short}))
    assert {"conv1: 11", "conv5: 163", "conv5: 99", "What one place sees: short"} <= set(said)


def test_descents_and_masks():
    path = np.array([[-9.0, 2.0], [3.0, 4.0]])
    assert words(draw.descents({"a": path}, (0.1, 3.0))) == ["a: after 1 steps 5 from the bottom"]
    answers = np.full((8, 3), 1 / 3)
    panels = draw.mask_answers({"one": (answers, answers[0], answers[1]), "two": (answers, answers[0], answers[1])})
    assert words(panels) == ["one", "two"]
    assert [len(line.get_ydata()) for line in panels.figure.axes[0].lines] == [8, 8, 8, 3, 3]


def test_a_trained_network_comes_with_the_library(tmp_path, monkeypatch):
    network = read(notebooks.trained())
    assert network.recipe.columns == 2
    assert network.tensors["conv1.weight"].shape[1] == 3
    package = tmp_path / "minialex" / "course" / "notebooks"
    (package / "files").mkdir(parents=True)
    monkeypatch.setattr(notebooks, "__file__", str(package / "__init__.py"))
    with pytest.raises(Exception, match="install minialex again"):
        notebooks.trained()
    (package / "files" / "classify.safetensors").write_bytes(b"")
    assert notebooks.trained() == package / "files" / "classify.safetensors"
    assert notebooks.trained().name in (ROOT / "hatch_build.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_no_cell_is_mostly_plotting(path):
    """Cells hold the lesson: nobody sets axes there."""
    calls = re.findall(r"\baxes\.\w+|\bplt\.\w+|add_axes|subplots", path.read_text(encoding="utf-8"))
    assert len(calls) <= 2, calls

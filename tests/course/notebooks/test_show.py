"""What notebooks are shown: sources, tables, pictures, recorded studies."""

import base64
import io
import types

import numpy as np
import pytest
from PIL import Image

from minialex.course.notebooks import show
from minialex_numpy.relu import relu, relu_backward


def size(picture):
    bundle, _ = picture._repr_mimebundle_()
    return Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).size


def test_a_source_is_the_file_s():
    data, metadata = show.source(relu, relu_backward)._repr_mimebundle_()
    assert "return np.maximum(x, 0)" in data["text/markdown"]
    assert "`minialex_numpy/relu.py`" in data["text/markdown"]
    assert metadata == {"minialex": {"source": ["minialex_numpy.relu.relu", "minialex_numpy.relu.relu_backward"]}}


def test_a_table_puts_numbers_to_the_right_and_keeps_bars_in_their_cells():
    text = show.table([("a|b", 1_234_567, 0.5), ("c", 2, float("nan"))], ("name", "count", "share")).markdown
    assert text.splitlines() == [
        "| name | count | share |",
        "|:---|---:|---:|",
        "| a\\|b | 1,234,567 | 0.5 |",
        "| c | 2 | nan |",
    ]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (4213, 1, "4,000"),
        (0.0731, 1, "0.07"),
        (0.0731, 2, "0.073"),
        (9.99, 1, "10"),
        (0, 1, "0"),
        (float("inf"), 1, "inf"),
    ],
)
def test_rounded(value, digits, text):
    assert show.rounded(value, digits) == text


def test_images_of_any_kind_make_a_picture_whose_bytes_do_not_change():
    colour = np.zeros((3, 8, 8), np.uint8)
    grey = np.linspace(0, 1, 64).reshape(8, 8)
    first = show.images([colour, grey, grey], ["black", "slope"], columns=2, headline="three")
    assert (
        first._repr_mimebundle_()
        == show.images([colour, grey, grey], ["black", "slope"], columns=2, headline="three")._repr_mimebundle_()
    )
    assert size(first)[0] < size(show.images([colour] * 6))[0]
    with pytest.raises(ValueError, match=r"\[3,H,W\] or \[H,W\]"):
        show.images([np.zeros((4, 8, 8))])


def test_curves_and_bars_make_pictures():
    x = np.arange(1, 5)
    assert min(size(show.curves({"a": (x, x), "b": (x, x**2)}, "x", "y", log_x=True, log_y=True))) > 200
    assert min(size(show.curves({"a": (x, x)}, "x", "y", level=(2, "here"), ticks=["p", "q"], limits=(0, 5)))) > 200
    assert min(size(show.bars({"one": 1.0, "two": 2.0}, "x", headline="both"))) > 100


def test_a_study_that_is_not_recorded_is_said_to_be_so(monkeypatch):
    studies = types.ModuleType("minialex.studies")
    studies.__spec__ = types.SimpleNamespace()
    studies.recorded = lambda name: None
    monkeypatch.setattr(show, "studies", studies)
    [part] = show.ablation_parts("relu")
    assert "not recorded yet" in part.markdown
    assert "minialex ablate relu" in part.markdown
    assert part.made_of == {"ablation": "relu"}


def test_a_recorded_study_is_its_table_verdict_provenance_and_picture(monkeypatch):
    from matplotlib.figure import Figure

    studies = types.ModuleType("minialex.studies")
    studies.__spec__ = types.SimpleNamespace()
    studies.recorded = lambda name: name
    studies.table = lambda outcome: "| arm | error |"
    studies.verdict = lambda outcome: ("No difference shown.", "The interval includes zero.")
    studies.provenance = lambda outcome: "minialex ablate relu, 5 seeds"
    studies.picture = lambda outcome: Figure(figsize=(2, 2))
    studies.picture_text = lambda outcome: "Two arms."
    studies.tuning_picture = lambda outcome: None
    monkeypatch.setattr(show, "studies", studies)
    text, picture = show.ablation_parts("relu")
    assert "| arm | error |" in text.markdown
    assert "- No difference shown.\n- The interval includes zero." in text.markdown
    assert "5 seeds" in text.markdown
    assert size(picture) == (200, 200)
    assert picture._repr_mimebundle_()[1] == {"image/png": {"alt": "Two arms."}}

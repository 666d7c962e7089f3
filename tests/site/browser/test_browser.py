"""The built site in a real browser: no page complains, everybody can read it, and the live parts give our numbers."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex.cli import server
from minialex.recipe import toml as recipe
from minialex.site import build, live, widgets
from minialex.site.diagrams import learning

HOME_LIMIT = 500_000  # bytes of the home page with all that it loads before a button is pressed
COMPUTED = ("convolution", "relu", "normalisation", "pooling", "colour")
HERE = Path(__file__).resolve().parent
CARRIED = HERE.parents[2] / "docs" / "assets" / "live" / "classify.safetensors"
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, pyodide: Path, chromium: str) -> Path:
    pytest.importorskip("mkdocs", reason="pip install 'minialex[docs]'")
    folder = tmp_path_factory.mktemp("browser") / "site"
    build.build(folder)
    return folder


@pytest.fixture(scope="module")
def address(site: Path, pyodide: Path) -> Iterator[str]:
    with server.serve(site, 0, str(pyodide)) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}/"
        found.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "mine.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)
    Image.fromarray(pixels).resize((640, 400)).save(path)
    return path


@pytest.fixture
def ask(tmp_path: Path, address: str, fetch: ModuleType, chromium: str) -> Ask:
    """A function that gives ``site.cjs`` a task and returns its report."""

    def asked(task: str, limit: float = 300, **orders: Any) -> dict[str, Any]:
        given = {
            "playwright": str(fetch.cache() / fetch.PLAYWRIGHT.folder),
            "axe": str(fetch.cache() / fetch.AXE.folder / "axe.min.js"),
            "chromium": chromium,
            "address": address,
            "task": task,
            **orders,
        }
        (tmp_path / "orders.json").write_text(json.dumps(given), encoding="utf-8")
        command = ["node", str(HERE / "site.cjs"), str(tmp_path / "orders.json")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    return asked


def agree(asked: dict[str, Any], found: dict[str, Any], name: str) -> None:
    """A result of the browser is what the library computes here."""
    here = live.call(name, asked)
    assert "error" not in here, here
    assert found["shape"] == here["shape"]
    np.testing.assert_allclose(found["data"], here["data"], rtol=1e-5, atol=1e-4)


def test_every_page_at_two_widths_in_two_schemes(site: Path, ask: Ask) -> None:
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) > 50
    report = ask("pages", 600, pages=pages)
    assert report["errors"] == []
    assert report["wide"] == []
    assert report["wordless"] == []
    assert report["axe"] == []
    assert set(report["weights"]) == set(pages)
    assert report["weights"]["index.html"] < HOME_LIMIT


def test_the_search_finds_and_costs_nothing_before(ask: Ask) -> None:
    for found in ask("search", page="index.html", words="overlapping pooling").values():
        assert (found["before"], found["after"]) == (0, 1)
        assert "pooling" in found["first"]


def test_the_live_parts_are_operated_and_give_our_numbers(ask: Ask, picture: Path) -> None:
    report = ask("live", page="live/index.html", picture=str(picture))
    assert report["errors"] == []
    parts = report["parts"]
    for name in COMPUTED:
        steps = parts[name]
        assert len(steps) >= 2, name
        for step in steps:
            assert step["failed"] is None, step
            agree(step["asked"], step["result"], name)
        assert any(step["asked"] != steps[0]["asked"] for step in steps[1:]), "what a reader moves must matter"
    for name in ("convolution", "relu", "pooling"):
        assert report["first"][name] == {"empty": 0, "same": True}, "what Run gives is there before"
        images = {step["step"]: step["asked"]["image"] for step in parts[name]}
        assert images["keyboard"] != images["slider"]
        assert images["pointer"] != images["keyboard"]
        assert images["picture"] != images["pointer"]
    for step in parts["classify"]:
        here = live.network(**step["asked"], tell=lambda layer: None, weights=str(CARRIED))
        np.testing.assert_allclose(step["result"]["logits"], here["logits"], rtol=1e-4, atol=1e-4)
        assert [name for name, _ in step["result"]["top"]] == [name for name, _ in here["top"]]
    layers = live.layers(recipe.load("alexnet-2012"))
    assert parts["columns"][0]["result"] == layers[1]
    moved = parts["wires"][0]["result"]
    assert moved["forward"]["w1"] < learning.START["w1"], "an arrow key moves the slider"
    assert (moved["forward"], moved["back"]) == tuple(
        pytest.approx(found) for found in learning.numbers(**{**learning.START, "w1": moved["forward"]["w1"]})
    )
    calculated = parts["calculator"][0]["result"]
    defaults = widgets.calculator()["defaults"]
    assert calculated["output"][0] == defaults["kernels"]
    assert calculated["parameters"] == defaults["kernels"] * ((defaults["channels"] - 1) * defaults["kernel"] ** 2 + 1)


def test_the_whole_network_runs_on_the_home_page(ask: Ask) -> None:
    report = ask("network", page="index.html", weights=str(CARRIED))
    assert report["errors"] == []
    steps = report["steps"]
    assert steps["before"] == 0, "nothing of Python is loaded before the button is pressed"
    drawn = steps["drawn"]
    assert drawn["failed"] is None
    assert drawn["lit"] == 11
    assert drawn["result"]["parameters"] == 60_965_224
    here = live.network(**drawn["asked"], tell=lambda layer: None)
    spread = float(np.abs(here["logits"]).max())
    np.testing.assert_allclose(drawn["result"]["logits"], here["logits"], rtol=1e-3, atol=1e-4 * spread)
    assert drawn["result"]["memory"] < 1 << 30
    assert steps["stopped"]["failed"] == "stopped"
    assert steps["read"]["failed"] is None
    own = live.network(**steps["read"]["asked"], tell=lambda layer: None, weights=str(CARRIED))
    np.testing.assert_allclose(steps["read"]["result"]["logits"], own["logits"], rtol=1e-4, atol=1e-4)


def test_what_is_missing_is_said_in_words(tmp_path: Path, ask: Ask) -> None:
    text = tmp_path / "words.png"
    text.write_text("no picture at all", encoding="utf-8")
    said = ask("failures", page="live/index.html", text=str(text))["said"]
    assert said["WebAssembly"] == "this browser has no WebAssembly: use a newer one"
    assert said["Pyodide"].startswith("Python cannot be loaded from http")
    assert "minialex docs --pyodide DIR" in said["Pyodide"]
    assert "umpy" in said["NumPy"]
    assert said["wheel"].startswith("minialex cannot be loaded from http")
    assert "minialex docs" in said["settings"]
    assert said["picture"] == "the browser cannot read words.png as a picture"
    assert said["weights"] == "the trained network cannot be loaded: is there a network?"


def test_without_scripts_every_part_has_something_in_its_place(site: Path, ask: Ask) -> None:
    pages = [
        path.relative_to(site).as_posix()
        for path in sorted(site.rglob("*.html"))
        if 'data-live="' in path.read_text(encoding="utf-8")
    ]
    seen = ask("plain", pages=pages)["seen"]
    assert {part["name"] for parts in seen.values() for part in parts} >= {*COMPUTED, "network", "classify", "columns"}
    for page, parts in seen.items():
        for part in parts:
            assert len(part["words"]) > 25 or part["drawings"], (page, part)
            assert part["height"] > 20
    drawn = {part["name"] for part in seen["live/index.html"] if part["drawings"]}
    assert drawn >= {"convolution", "relu", "normalisation", "pooling", "columns"}

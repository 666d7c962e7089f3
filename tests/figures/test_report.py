"""The report: one file, well formed, complete, and nothing in it that a name could have put there."""

from __future__ import annotations

import base64
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex.errors import MinialexError
from minialex.evaluation.errors import wilson
from minialex.figures import pictures, report

VOID = {"meta", "img", "br", "hr", "link", "input"}
EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "$\\frac{",
    "a\u202eb\x00c",
    "\udcff",
    "&lt;b&gt;",
    "x" * 300,
    "{title}",
    "中文",
]


class Page(HTMLParser):
    """Reads a page and refuses what is not well formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[tuple[tuple[str, ...], str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag}: an attribute twice"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> outside SVG"
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without its beginning"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append((tuple(self.open), data))

    def text(self, inside: str = "body") -> str:
        said = "".join(words for where, words in self.words if inside in where)
        return re.sub(r"\s+", " ", said.replace("\N{NO-BREAK SPACE}", " "))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def run(classes: int = 10, size: int = 32, images: int = 60) -> dict[str, Any]:
    """Arguments of a report on a run that learns a little."""
    rng = np.random.default_rng(0)
    labels = np.arange(images, dtype=np.int64) % classes
    probs = rng.uniform(size=(images, classes)) ** 4
    probs[np.arange(images), labels] += 0.8
    probs /= probs.sum(axis=1, keepdims=True)
    matrix = rng.integers(0, 3, (classes, classes)) + 50 * np.eye(classes, dtype=np.int64)
    if classes >= 4:
        matrix[1, 3] = 40
    metrics: list[dict[str, Any]] = []
    for n in range(1, 41):
        rate = 0.01 if n <= 20 else 0.001
        train = {"kind": "train", "step": 10 * n, "epoch": n / 10, "loss": 2.3 - n / 20, "top1": n / 50}
        metrics.append({**train, "learning_rate": rate, "images_per_second": 1000.0 + n})
        if n % 10 == 0:
            e = n // 10
            errors = {"top1_error": (0.8, 0.4, 0.25, 0.31)[e - 1], "top5_error": 0.1 / e}
            metrics.append(
                {"kind": "validation", "epoch": e, "step": 10 * n, "loss": 2 / e, "seconds": 33.0 * e, **errors}
            )
    metrics.append({"kind": "event", "step": 123, "message": "resumed from step 120"})
    return {
        "title": "alexnet_small on shapes",
        "facts": [("backend", "numpy"), ("parameters", "301,578"), ("Evaluate", "minialex evaluate runs/1 --views 10")],
        "metrics": metrics,
        "kernels": rng.normal(size=(32, 3, 5, 5)).astype(np.float32),
        "columns": 2,
        "confusion": matrix,
        "images": rng.integers(0, 256, (images, 3, size, size)).astype(np.uint8),
        "probs": probs.astype(np.float32),
        "labels": labels,
        "class_names": [f"kind {k}" for k in range(classes)],
        "warnings": [],
        "recipe_toml": "[training]\nepochs = 4\n",
    }


def written(tmp_path: Path, **arguments: Any) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    report.write(path, **arguments)
    text = path.read_bytes().decode()
    assert len(text) < 1_500_000
    return text, Page(text)


def assert_self_contained(text: str, page: Page) -> None:
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name, "data:")
            assert value.startswith("data:image/") or value == "data:" or value[1:] in ids, (tag, value)
        for target in re.findall(r"url\(([^)]*)\)", " ".join(attributes.values())):
            assert target.startswith("#")
            assert target[1:] in ids


def test_a_report_is_one_well_formed_file(tmp_path: Path) -> None:
    text, page = written(tmp_path, **run())
    assert_self_contained(text, page)
    assert text.startswith("<!DOCTYPE html>")
    assert page.all("html")[0]["lang"] == "en"
    assert "prefers-color-scheme: dark" in text
    assert "width=device-width" in text
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1
    for above, below in itertools.pairwise(headings):
        assert int(below[1]) <= int(above[1]) + 1
    (policy,) = [meta for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'")


def test_the_result_is_said_in_a_sentence(tmp_path: Path) -> None:
    arguments = run()
    _, page = written(tmp_path, **arguments)
    said = page.text("header")
    low, high = wilson(0.31, arguments["confusion"].sum())
    assert (
        "After 4 epochs (400 steps), 2 min 12 s of training, the network is wrong on 31.0 % of the validation images "
        f"(95%: {100 * low:.1f} % to {100 * high:.1f} %, as there are "
        f"{arguments['confusion'].sum():,}); guessing would be wrong on 90.0 %. "
        "It was best after epoch 3: 25.0 %." in said
    )


def test_everything_that_was_given_is_shown(tmp_path: Path) -> None:
    _, page = written(tmp_path, **{**run(), "warnings": ["the loss stays at 2.303"]})
    said = page.text()
    for text in ("301,578", "minialex evaluate runs/1 --views 10", "epochs = 4", "the loss stays at 2.303"):
        assert text in said
    assert "step 123: resumed from step 120" in said
    assert "40 of " in said
    assert "images of kind 1 were taken for kind 3" in said
    assert "minialex evaluate runs/1 --views 10" not in page.text("table")
    assert "epochs = 4" in page.text("details")
    assert "Warnings" not in written(tmp_path, **run())[1].text()


def test_the_table_has_every_epoch(tmp_path: Path) -> None:
    text, _ = written(tmp_path, **run())
    table = re.search(r'<table class="numbers">.*?</table>', text, re.DOTALL)
    assert table
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)<", row) for row in re.findall(r"<tr>(.*?)</tr>", table.group())[1:]]
    mean = np.mean([2.3 - n / 20 for n in range(11, 21)])
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert rows[1] == ["2", "0.01", f"{mean:.4f}", "1.0000", "40.00\xa0%", "5.00\xa0%"]
    assert rows[2][1] == "0.001"


def test_long_runs_keep_the_last_epoch_in_the_table(tmp_path: Path) -> None:
    metrics = [{"kind": "validation", "epoch": e, "step": e, "loss": 1.0, "top1_error": 0.5} for e in range(1, 252)]
    text, _ = written(tmp_path, **{**run(), "metrics": metrics})
    shown = [int(epoch) for epoch in re.findall(r'<tr><th scope="row">(\d+)</th>', text)]
    assert len(shown) <= report.TABLE_ROWS
    assert shown[-1] == 251


def test_every_picture_states_its_numbers(tmp_path: Path) -> None:
    _, page = written(tmp_path, **run())
    drawings = list(page.all("svg"))
    assert len(drawings) == 3
    assert all(drawing["role"] == "img" for drawing in drawings)
    loss, error, matrix = (drawing["aria-label"].replace("\xa0", " ") for drawing in drawings)
    assert "Training: from 2.25 to 0.3." in loss
    assert "Validation: 2 after epoch 1, 0.5 after epoch 4; lowest 0.5 after epoch 4. Guessing gives 2.30." in loss
    assert "lowest 25.0 % after epoch 3. Guessing gives 90.0 %." in error
    assert "images of kind 1 were taken for kind 3" in matrix
    assert all(f"kind {k} " in matrix for k in range(10))
    alts = [image["alt"].replace("\xa0", " ") for image in page.all("img")]
    assert len(alts) > 10
    assert all(re.search(r"\d", alt) for alt in alts)
    assert alts[0].startswith("column 1: 16 kernels of 5 × 5 weights in 3 channels; share of colour ")
    assert re.match(r"An image of kind \d; the network says kind \d \d+\.\d %, kind", alts[2])


def test_examples_are_right_and_wrong_ones_as_they_say(tmp_path: Path) -> None:
    arguments = run()
    given = arguments["probs"].argmax(axis=1)
    text, _ = written(tmp_path, **arguments)
    sections = text.split("<h3>")[1:]
    assert [section.split("<")[0] for section in sections] == [
        "Wrong, the surest first",
        "Right, class by class",
    ]
    for section, right in zip(sections, (False, True), strict=True):
        found = re.findall(r'src="data:image/png;base64,([^"]*)" alt="An image of kind (\d+);', section)
        expected = (given == arguments["labels"]) == right
        assert len(found) == min(report.EXAMPLES, expected.sum())
        first = []
        for data, label in found:
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                image.load()
            same = (arguments["images"] == np.asarray(image).transpose(2, 0, 1)).all(axis=(1, 2, 3))
            (n,) = np.flatnonzero(same)
            assert expected[n]
            assert arguments["labels"][n] == int(label)
            first.append(arguments["probs"][n].max())
        if right:
            assert len({label for _, label in found}) == len(found)
        else:
            assert first == sorted(arguments["probs"].max(axis=1)[expected], reverse=True)[: len(found)]


def test_one_epoch_is_not_plural_and_old_records_without_seconds_do(tmp_path: Path) -> None:
    metrics = [{"kind": "validation", "epoch": 1, "step": 1, "loss": 1.0, "top1_error": 0.5, "top5_error": None}]
    _, page = written(tmp_path, **{**run(), "metrics": metrics, "confusion": None})
    assert "After 1 epoch (1 step) the network is wrong on 50.0 % of the validation images; guessing" in page.text()


def test_a_report_with_nothing_to_show(tmp_path: Path) -> None:
    nothing = np.zeros((0, 10), np.float32)
    arguments = {**run(), "metrics": [], "kernels": None, "confusion": None, "facts": [], "recipe_toml": ""}
    images = np.zeros((0, 3, 32, 32), np.uint8)
    _, page = written(tmp_path, **{**arguments, "images": images, "probs": nothing, "labels": np.zeros(0, np.int64)})
    assert "Nothing has been validated yet" in page.text()
    assert not page.all("img")


def test_a_report_of_a_run_that_broke(tmp_path: Path) -> None:
    arguments = run()
    arguments["kernels"][:] = np.nan
    arguments["probs"][:] = np.nan
    arguments["metrics"] = [{**record, "loss": None, "learning_rate": None} for record in arguments["metrics"]]
    arguments["confusion"][2] = 0
    text, page = written(tmp_path, **arguments)
    assert_self_contained(text, page)
    assert "nan" not in page.text().lower()


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    arguments = run()
    harmless, _ = written(tmp_path, **arguments)
    evil = "</style></title></td></pre></details><script>alert(1)</script>\x07\udcff{x}"
    arguments["metrics"].append({"kind": "event", "step": evil, "message": evil})
    arguments |= {
        "class_names": EVIL,
        "title": evil,
        "facts": [(evil, evil), (evil, "minialex " + evil)],
        "warnings": [evil],
        "recipe_toml": evil,
    }
    text, page = written(tmp_path, **arguments)
    assert_self_contained(text, page)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(harmless).tags}
    assert "\x07" not in text
    assert "\u202e" not in text
    said = page.text()
    assert said.count("<script>alert(1)</script>") >= 6
    assert '"><img src=x onerror=alert(1)>' in said
    assert "&lt;b&gt;" in said


@pytest.mark.parametrize(("classes", "size"), [(1, 32), (2, 32), (21, 64), (100, 65), (1000, 224)])
def test_reports_of_any_number_of_classes_stay_small(tmp_path: Path, classes: int, size: int) -> None:
    arguments = run(classes, size, images=30)
    arguments["kernels"] = np.random.default_rng(0).normal(size=(96, 3, 11, 11)).astype(np.float32)
    text, page = written(tmp_path, **arguments)
    assert_self_contained(text, page)
    for image in page.all("img")[2:]:
        data = base64.b64decode(image["src"].split(",")[1])
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (min(size, 160),) * 2 if size > pictures.SMALL_IMAGE else (size, size)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path, **run())[0] == written(tmp_path, **run())[0]


def test_a_report_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(MinialexError):
        report.write(tmp_path / "missing" / "report.html", **run())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.42, "0.4 s"), (58.4, "58 s"), (59.9, "1 min 0 s"), (250, "4 min 10 s"), (11520, "3 h 12 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert report.duration(seconds).replace("\xa0", " ") == said


def test_a_run_s_report_says_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data, network, backend, machine, versions and commands; a folder's name stays one word of a command."""
    from minialex.cli.app import run as minialex
    from minialex.speed import machine

    words = ["train", "--backend", "numpy", "--recipe", "shapes", "--train-images", "32", "--validation-images", "16",
             "--batch-size", "16", "--epochs", "1", "--steps", "1", "--kernels", "4,4,4,4,4", "--features", "8,8",
             "--out", str(tmp_path / "my <run>")]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["/usr/bin/minialex", *words])
    assert minialex(words) == 0
    page = Page((tmp_path / "my <run>" / "report.html").read_text(encoding="utf-8"))
    told = page.text()
    for fact in (
        "data shapes: 32 training and 16 validation images", "classes 10", "network alexnet_small, 1,", "in 2 columns",
        "backend numpy (cpu:0,cpu:0), float32", f"machine {machine.processor()}"[:30], f"numpy {np.__version__}",
    ):  # fmt: skip
        assert fact.replace(" ", "") in told.replace(" ", "")  # cells stand side by side
    code = page.text(inside="code")
    assert f"minialex {' '.join(words[:-1])} '{tmp_path}/my <run>'" in code
    assert f"minialex evaluate '{tmp_path}/my <run>' --views 10" in code
    assert f"minialex train --recipe '{tmp_path}/my <run>/recipe.toml' --out OTHER" in code

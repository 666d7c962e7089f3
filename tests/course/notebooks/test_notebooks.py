"""The executed notebooks match their sources and what their outputs were made of; running them finds what is wrong."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minialex import studies as ablations
from minialex.course import notebooks
from minialex.course.notebooks import build, show
from minialex.course.notebooks.build import NotebookError
from minialex.course.sources import source as source_of

FOLDER = Path(__file__).parents[3] / "notebooks"
MADE = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
pytestmark = pytest.mark.filterwarnings("default")  # Jupyter's own warnings are not ours


def outputs(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        yield from cell.get("outputs", [])


def test_executed_notebooks_match_their_sources():
    assert build.stale(FOLDER) == []


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_each_is_whole_small_and_without_time_stamps(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len(path.read_bytes()) <= build.BYTES
    assert all(cell["metadata"].keys() <= {"alt", "tags"} for cell in notebook["cells"])
    kinds = [kind for output in outputs(path) for kind in output.get("data", {})]
    assert "image/png" in kinds
    assert not any(output["output_type"] == "error" for output in outputs(path))
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_every_picture_has_words(path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        assert len(pictures) <= 1 or "alt" not in cell["metadata"], "a cell has words for one picture"
        for output in pictures:
            words = output["metadata"]["image/png"]["alt"]
            assert 8 <= len(words.split()) <= 90, words
            assert words.endswith(".")
            study = next(
                (o["metadata"]["minialex"]["ablation"] for o in cell["outputs"] if "minialex" in o["metadata"]), ""
            )
            if study:
                outcome = ablations.recorded(study)
                assert words in (ablations.picture_text(outcome), ablations.tuning_text(outcome))
            else:
                assert words == cell["metadata"]["alt"]
        assert pictures or "alt" not in cell["metadata"]


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_shown_sources_are_the_present_ones(path):
    shown = [output for output in outputs(path) if "source" in output.get("metadata", {}).get("minialex", {})]
    assert shown, "a notebook shows the reference operation from its source"
    for output in shown:
        text = "".join(output["data"]["text/markdown"])
        for name in output["metadata"]["minialex"]["source"]:
            assert source_of(name).rstrip() in text, f"{name} has changed: build {path.name}"


@pytest.mark.parametrize("path", MADE, ids=lambda path: path.stem)
def test_shown_studies_are_the_recorded_ones(path):
    for output in outputs(path):
        name = output.get("metadata", {}).get("minialex", {}).get("ablation")
        if name:
            now = show.ablation_text(name)
            assert "".join(output["data"]["text/markdown"]) == now.markdown, (
                f"{name} is recorded anew: build {path.name}"
            )


# ---- the builder, on notebooks made for the purpose ------------------------------------------------------------


def source(folder, text, name="01_made.py"):
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def test_building_writes_the_same_bytes_again(tmp_path):
    source(
        tmp_path,
        """\
        # %% [markdown]
        # # One
        # text

        # %% alt="One bar."
        from minialex.course.notebooks import show
        print("a"); print("b")
        show.bars({"x": 1.0}, "y")

        # %% tags=["exercise"]
        answer = ...
        answer
        """,
    )
    [(path, ran)] = build.build(tmp_path)
    first = path.read_bytes()
    assert build.stale(tmp_path) == []
    assert ran.processor_seconds > 0
    list(build.build(tmp_path, ["01"]))
    assert path.read_bytes() == first
    notebook = json.loads(first)
    assert notebook["cells"][1]["outputs"][0]["text"] == ["a\n", "b\n"]
    assert list(notebook["cells"][1]["outputs"][1]["data"]) == ["image/png"]
    assert notebook["cells"][2]["metadata"] == {"tags": ["exercise"]}


def test_words_change_without_a_run(tmp_path):
    code = "import time\nfrom minialex.course.notebooks import show\nprint(time.time())\nshow.bars({'x': 1.0}, 'y')\n"
    path = source(tmp_path, f'# %% [markdown]\n# # One\n\n# %% alt="One bar."\n{code}')
    [(made, _)] = build.build(tmp_path)
    before = json.loads(made.read_text(encoding="utf-8"))["cells"]
    path.write_text(f'# %% [markdown]\n# # Two\n\n# %% alt="A bar as long as 1."\n{code}', encoding="utf-8")
    assert list(build.reword(tmp_path)) == [made]
    assert list(build.reword(tmp_path)) == build.stale(tmp_path) == []
    after = json.loads(made.read_text(encoding="utf-8"))["cells"]
    assert after[0]["source"] == ["# Two"]
    assert after[1]["outputs"][0] == before[1]["outputs"][0], "what was printed is what the run printed"
    assert after[1]["outputs"][1]["data"] == before[1]["outputs"][1]["data"]
    assert after[1]["outputs"][1]["metadata"] == {"image/png": {"alt": "A bar as long as 1."}}


def test_a_changed_source_or_a_study_that_was_recorded_anew_needs_no_run(tmp_path):
    source(
        tmp_path,
        """
        # %%
        from minialex.course.notebooks import show
        show.source("minialex_numpy.relu.relu")

        # %%
        from minialex.course.notebooks import show
        print("before")
        show.ablation("dropout")
        """,
    )
    [(made, _)] = build.build(tmp_path)
    whole = made.read_bytes()
    notebook = json.loads(whole)
    [shown] = notebook["cells"][-2]["outputs"]
    assert "".join(shown["data"]["text/markdown"]).startswith("`minialex_numpy/relu.py`")
    shown["data"]["text/markdown"] = ["as it was"]
    before, words, picture, search = notebook["cells"][-1]["outputs"]
    assert before["text"] == ["before\n"]
    words["data"]["text/markdown"] = ["- an earlier verdict"]
    picture["data"]["image/png"] = picture["data"]["image/png"][:100]
    notebook["cells"][-1]["outputs"].remove(search)  # it had no search then
    made.write_text(json.dumps(notebook), encoding="utf-8")
    assert list(build.reword(tmp_path)) == [made]
    assert made.read_bytes() == whole


def test_a_changed_source_is_stale_and_so_is_a_missing_notebook(tmp_path):
    path = source(tmp_path, "# %%\n1 + 1\n")
    assert build.stale(tmp_path) == ["01_made.ipynb is missing"]
    list(build.build(tmp_path))
    assert build.stale(tmp_path) == []
    path.write_text("# %%\n1 + 2\n", encoding="utf-8")
    assert build.stale(tmp_path) == ["01_made.ipynb does not match 01_made.py"]
    with pytest.raises(NotebookError, match=r"the code of 01_made.ipynb is different: build it"):
        list(build.reword(tmp_path))
    path.rename(tmp_path / "02_other.py")
    assert build.stale(tmp_path) == ["02_other.ipynb is missing", "01_made.ipynb has no source"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "01_made.py: a cell raises ZeroDivisionError"),
        ("import warnings\nwarnings.warn('old')", "01_made.py: a cell writes to standard error"),
        ("import time\ntime.sleep(60)", "limit 3 s"),
        (
            "from minialex.course.notebooks import show\nshow.bars({'x': 1.0}, 'y')",
            "01_made.py: a picture without words",
        ),
        ("print('a line of text\\n' * 40_000)", "more than 500,000"),
    ],
)
def test_what_is_wrong_with_a_notebook_is_said(tmp_path, code, words):
    source(tmp_path, f"# %%\n{code}\n")
    seconds = 3 if "sleep" in code else 60
    with pytest.raises(NotebookError, match=words):
        list(build.build(tmp_path, seconds=seconds))
    assert not (tmp_path / "01_made.ipynb").exists()


def test_a_wrong_name_is_answered_with_the_nearest():
    with pytest.raises(Exception, match="Did you mean '01_network'"):
        build.sources(FOLDER, ["01_netwrok"])


def test_the_command_checks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "minialex.course.notebooks", "check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# ---- getting them ------------------------------------------------------------------------------------------------


def test_copying_never_overwrites_silently(tmp_path, capsys):
    from minialex.cli.app import run

    target = tmp_path / "labs"
    assert run(["notebooks", str(target)]) == 0
    names = [path.name for path in notebooks.paths()]
    assert sorted(path.name for path in target.iterdir()) == names
    assert f"jupyter lab {target}" in capsys.readouterr().out
    (target / names[0]).write_text("my answers", encoding="utf-8")
    assert run(["notebooks", str(target)]) == 0
    said = capsys.readouterr().out
    assert "kept yours" in said
    assert names[0] in said
    assert (target / names[0]).read_text(encoding="utf-8") == "my answers"
    assert run(["notebooks", str(target), "--overwrite"]) == 0
    assert (target / names[0]).read_bytes() == notebooks.paths()[0].read_bytes()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    from minialex.cli.app import run

    (tmp_path / "file").write_text("", encoding="utf-8")
    assert run(["notebooks", str(tmp_path / "file")]) in (2, 6)
    said = capsys.readouterr().err
    assert said.startswith("error:")
    assert said.count("\n") == 1


def test_without_a_folder_they_are_listed(capsys):
    from minialex.cli.app import run

    assert run(["notebooks"]) == 0
    said = capsys.readouterr().out
    assert all(path.stem in said for path in notebooks.paths())
    assert "From an image to the network" in said


def test_a_wheel_has_its_own_copy(tmp_path, monkeypatch):
    """`folder` prefers the package's own files, and says so where there are none."""
    package = tmp_path / "minialex" / "notebooks"
    (package / "files").mkdir(parents=True)
    monkeypatch.setattr(notebooks, "__file__", str(package / "__init__.py"))
    with pytest.raises(Exception, match="install minialex again"):
        notebooks.folder()
    (package / "files" / "01_x.ipynb").write_text("{}", encoding="utf-8")
    assert notebooks.folder() == package / "files"

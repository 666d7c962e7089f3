"""What is promised of all commands, tried on each: bad paths, hostile names, full and closed outputs, no extras."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.main import get_command

from minialex.cli.app import app, run

INPUTS = {
    "train": ["--data @", "--recipe @", "--resume @", "--network @:net", "--data shapes --init @"],
    "evaluate": ["@", "RUN --data @"],
    "predict": ["@ PHOTO", "RUN @"],
    "recipe": ["@"],
    "download": ["@"],
    "prepare": ["@ new", "IMAGES new --words @"],
    "look kernels": ["@"],
    "look activations": ["@", "RUN @", "RUN --layer @"],
    "look occlusion": ["@", "RUN @", "RUN PHOTO --label @"],
    "look saliency": ["@", "RUN @", "RUN PHOTO --label @"],
    "look translation": ["@", "RUN @"],
    "look excite": ["@", "RUN --layer @"],
    "look maximise": ["@", "RUN --layer @"],
    "look neighbours": ["@", "RUN @"],
    "look map": ["@", "RUN --layer @"],
    "summary": ["--recipe @", "--model @:net"],
    "features": ["@ new", "RUN new --layer @"],
    "import": ["@ new.safetensors"],
    "export": ["@ new.safetensors"],
    "bench": ["--recipe @", "--data @"],
    "plan": ["--recipe @", "--rates @"],
    "ablate": ["@"],
    "docs": ["--pyodide @"],
    "grade": ["@", "student.py --only @"],
    "store check": ["@"],
    "doctor": ["--backend @"],
}
"""What reads, with @ for what it is given."""

OUTPUTS = {
    "train": ["--data shapes --train-images 16 --batch-size 8 --out @"],
    "evaluate": ["RUN --reliability @.png"],
    "predict": ["RUN PHOTO --picture @"],
    "prepare": ["IMAGES @"],
    "look activations": ["RUN PHOTO --picture @"],
    "features": ["RUN @"],
    "export": ["RUN @.safetensors", "RUN @.pt"],
    "bench": ["--recipe small --json @", "--recipe small --picture @.png"],
    "plan": ["--devices h200 --picture @.png"],
    "ablate": ["pooling --quick --out @"],
    "notebooks": ["@"],
    "grade": ["--new @", "student.py --only relu --examples 1 --json @"],
    "doctor": ["--quick --report @"],
}
"""What writes. Those that leave their work undone where a file cannot be written find that out first."""

WITHOUT = {"backends", "differences"}  # take nothing from outside

HOSTILE = "x\x1b[31m[red]b[/]\n\u202e'\udcff$(y)"


def names() -> set[str]:
    """All commands, those of groups too."""
    found = set()
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found |= {f"{name} {child}".strip() for child in getattr(command, "commands", None) or [""]}
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained run, images, a submission, and paths that cannot be used."""
    folder = tmp_path_factory.mktemp("every")
    words = ["train", "--data", "shapes", "--backend", "numpy", "--train-images", "16", "--validation-images", "8",
             "--batch-size", "8", "--epochs", "1", "--kernels", "4,4,4,4,4", "--features", "8,8"]  # fmt: skip
    assert run([*words, "--out", str(folder / "RUN")]) == 0
    for name in ("a", "b"):
        (folder / "IMAGES" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), (60 * number, 9, 9)).save(folder / "IMAGES" / name / f"{number}.png")
    Image.new("RGB", (40, 40)).save(folder / "PHOTO", format="PNG")
    (folder / "student.py").write_text("import numpy as np\n\ndef relu(x):\n    return np.maximum(x, 0)\n")
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def command(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command and looks at how it ends; gives its error."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["minialex"])

    def call(name: str, use: str, given: str) -> str:
        words = [given if word == "@" else word.replace("@", given) for word in use.split(" ")]
        capfd.readouterr()
        code = run([*name.split(), *words])
        out, err = capfd.readouterr()
        what = (name, use, code, err)
        assert code in (2, 3, 4, 6), what
        assert err.startswith("error: "), what
        assert err.count("\n") == 1, what
        assert len(err) < 2000, what
        wrong = [c for c in out + err if (unicodedata.category(c) in ("Cc", "Cs") and c != "\n") or c == "\u202e"]
        assert not wrong, what
        return err

    return call


def test_every_command_is_here() -> None:
    assert INPUTS.keys() | OUTPUTS.keys() | WITHOUT == names()


@pytest.mark.skipif(os.name != "posix", reason="paths of POSIX")
@pytest.mark.parametrize("name", INPUTS)
def test_what_cannot_be_read_is_one_line(name: str, command: Callable[..., str]) -> None:
    for use in INPUTS[name]:
        for given in (HOSTILE, "a" * 5000, "loop/x", "file/x", "file"):
            if given == "file" and use == "IMAGES new --words @":
                continue
            err = command(name, use, given)
            assert "\\x1b[31m[red]" in err or given != HOSTILE, (use, err)


@pytest.mark.skipif(os.name != "posix", reason="paths of POSIX")
@pytest.mark.parametrize("name", OUTPUTS)
def test_what_cannot_be_written_is_one_line(name: str, command: Callable[..., str]) -> None:
    for use in OUTPUTS[name]:
        for given in ("a" * 5000, "loop/x", "file/x"):
            command(name, use, given)


@pytest.mark.skipif(os.name != "posix", reason="names that other systems do not allow")
def test_hostile_names_are_shown_and_not_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "an\x1b[31m[red]\n'b\x9b\u202e"
    for part in ("train", "val"):
        for number, kind in enumerate((name, "other")):
            (tmp_path / name / part / kind).mkdir(parents=True)
            for image in range(5):  # ten to validate on: a map takes no fewer
                file = tmp_path / name / part / kind / f"{name}{image}.png"
                Image.new("RGB", (40, 40), (50 * image, 90 * number, 9)).save(file)
    bad = tmp_path / name / "train" / "other" / f"{name}bad.png"
    (tmp_path / "student.py").write_text(f"def relu(x):\n    raise ValueError({name!r})\n")
    on = "--backend numpy"
    uses = [
        ("train", f"{on} --data NAME --image-size 32 --crop 28 --batch-size 4 --epochs 1 --kernels 4,4,4,4,4 "
                  "--features 8,8 --recipe small --out RUN"),
        ("evaluate RUN", f"{on} --per-class"), ("predict RUN PICTURE", on), ("look activations RUN PICTURE", on),
        ("look excite RUN", f"{on} --layer conv1"), ("look neighbours RUN", on), ("look occlusion RUN", on),
        ("look saliency RUN", on), ("look maximise RUN", f"{on} --layer fc8 --steps 1"),
        ("look map RUN", f"{on} --count 12 --steps 2"),
        ("grade student.py", "--only relu --examples 2"), ("prepare NAME STORE", "--workers 1"),
        ("store check STORE", ""),
    ]  # fmt: skip
    known = {
        "NAME": name, "RUN": f"run {name}", "STORE": f"store {name}", "PICTURE": f"{name}/val/other/{name}0.png",
    }  # fmt: skip
    said = ""
    for command, options in uses:
        if command.startswith("prepare"):
            bad.write_bytes(b"no image")
        code = run([known.get(word, word) for word in (*command.split(), *options.split())])
        out, err = capfd.readouterr()
        assert code in (0, 1 if command.startswith("grade") else 0), (command, err)
        wrong = [c for c in out + err if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n"]
        assert not wrong, command
        assert "\u202e" not in out + err, command
        assert r"an\x1b[31m[red]" in out, command
        said += out
    assert r"$'run an\x1b[31m[red]\x0a\'b\xc2\x9b\xe2\x80\xae'" in said, "a printed command can be typed"


ALL = """
import json, sys
from minialex.cli.app import main
codes = {}
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        codes[" ".join(words)] = end.code
print(json.dumps(codes), file=sys.stderr)
"""


def codes(uses: list[str], redirection: str, place: Path, **environment: str) -> tuple[dict[str, int], str]:
    """How uses end in a process of their own, and what that said."""
    words = json.dumps([use.split() for use in uses])
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "$2" {redirection}', sys.executable, ALL, words],
        cwd=place, capture_output=True, check=True, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    *said, last = done.stderr.splitlines()
    return json.loads(last), "\n".join(said)


PRINTING = [
    "recipe", "recipe small", "differences", "backends", "plan --devices h200 --json", "notebooks", "ablate --list",
    "ablate pooling --recorded",
    "evaluate RUN --backend numpy --per-class", "--version", "summary --recipe small", "--help",
]  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_below_standard_output(place: Path) -> None:
    uses = [*PRINTING, *(f"{name} --help" for name in sorted(names()))]
    ended, said = codes(uses, "> /dev/full", place)
    assert set(ended.values()) == {6}
    assert set(said.splitlines()) == {"error: standard output cannot be written: No space left on device"}
    assert len(said.splitlines()) == len(uses)


@pytest.mark.skipif(os.name != "posix", reason="shells of other systems")
@pytest.mark.parametrize("redirection", ["| true", ">&-"])
def test_nobody_reads_standard_output(place: Path, redirection: str) -> None:
    ended, said = codes([use for use in PRINTING if not use.startswith(("backends", "evaluate"))], redirection, place)
    assert set(ended.values()) == {0}
    assert said == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_encoding(place: Path, encoding: str) -> None:
    uses = PRINTING if encoding == "ascii" else [f"{name} --help" for name in sorted(names())]
    ended, said = codes(uses, "> /dev/null", place, PYTHONIOENCODING=encoding, LC_ALL="C")
    assert set(ended.values()) == {0}
    assert said == ""


WITHOUT_EXTRAS = """
import sys
class Hiding:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.partition(".")[0] in hidden else self.finder.find_spec(name, *rest)
hidden = set(sys.argv[1].split(","))
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
"""

EXTRAS = {
    "grade student.py": "conformance",
    "ablate pooling --quick": "studies",
    "export RUN new.onnx": "export",
    "features RUN new --format parquet": "look",
    "look neighbours RUN --search faiss": "look",
}


def test_a_missing_extra_says_what_installs_it(place: Path) -> None:
    hidden = "hypothesis,pytest,scipy,onnx,google,pyarrow,faiss,jupytext,nbformat,nbclient,ipykernel,mkdocs,jupyterlab"
    uses = [use.split() for use in (*EXTRAS, *PRINTING)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS + "del sys.argv[1]\n" + ALL, hidden, json.dumps(uses)],
        cwd=place, capture_output=True, check=True, text=True,
    )  # fmt: skip
    *said, last = done.stderr.splitlines()
    ended = json.loads(last)
    assert {use: ended[use] for use in EXTRAS} == dict.fromkeys(EXTRAS, 2)
    assert {use: ended[use] for use in PRINTING} == dict.fromkeys(PRINTING, 0), "they need none"
    for use, line in zip(EXTRAS, said, strict=True):
        assert line.startswith("error: "), use
        assert f"minialex[{EXTRAS[use]}]" in line, use

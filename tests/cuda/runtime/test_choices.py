"""Which plan of cuDNN is taken: the first choice for a card stays, whoever makes it and however many do at once."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minialex_cuda.runtime import choices

ASKED = {"device": "NVIDIA H100 80GB HBM3", "cudnn": "91900", "kind": "wgrad", "N": 128, "padding": ((0, 1), (0, 1))}


def never() -> dict[str, Any]:
    raise AssertionError("chosen again")


def test_a_choice_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = choices.settled(tmp_path, ASKED, lambda: {"plan": "eng65", "microseconds": {"eng65": 39.2, "eng10": 60.5}})
    assert first["plan"] == "eng65"
    assert choices.settled(tmp_path, ASKED, never) == first
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", str(tmp_path))
    assert choices.finding() == f"1 convolution timed before; the choices are in {tmp_path}"
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("nvidia-h100-80gb-hbm3-wgrad-")
    assert json.loads(file.read_text(encoding="utf-8"))["microseconds"] == {"eng65": 39.2, "eng10": 60.5}


@pytest.mark.parametrize("other", [{"device": "NVIDIA H200"}, {"cudnn": "92801"}, {"N": 64}, {"kind": "dgrad"}])
def test_another_card_version_or_shape_is_another_choice(tmp_path: Path, other: dict[str, Any]) -> None:
    assert choices.settled(tmp_path, ASKED, lambda: {"plan": "one"})["plan"] == "one"
    assert choices.settled(tmp_path, {**ASKED, **other}, lambda: {"plan": "two"})["plan"] == "two"
    assert choices.settled(tmp_path, ASKED, never)["plan"] == "one"


HOSTILE = [
    "[" * 100_000,
    '{"asked":' * 100_000,
    '{"plan":' + "9" * 9_999 + "}",
    " " * (2 << 20),
    "[" + "0," * 10 + "0]",
]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"plan": "eng65"}', '{"asked": {}, "plan": "eng65"}', "\x00\xff", "dir", "pipe",
     "no note", "note", *HOSTILE],
    ids=lambda text: text[:8].strip(),
)  # fmt: skip
def test_a_damaged_file_is_said_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    choices.settled(tmp_path, ASKED, lambda: {"plan": "old"})
    (file,) = tmp_path.iterdir()
    if text == "dir":
        file.unlink()
        file.mkdir()
    elif text == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes here")
        file.unlink()
        os.mkfifo(file)
    elif "note" in text:  # without a plan there is a reason
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "plan": None, **({"note": 1} if text == "note" else {})})
        )
    else:
        file.write_bytes(text.encode("latin-1"))
    for choose in (lambda: {"plan": "new"}, never):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "minialex"):
            assert choices.settled(tmp_path, ASKED, choose)["plan"] == "new"
        assert f"{file} is damaged" in caplog.text


def test_a_choice_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        choices.settled(tmp_path, ASKED, never)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="no modes of files")
def test_who_shares_the_folder_may_read_a_choice(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        choices.settled(tmp_path, ASKED, lambda: {"plan": "one"})
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644


RACE = """
import sys, time
from pathlib import Path
from minialex_cuda.runtime import choices
where, mine = Path(sys.argv[1]), sys.argv[2]
print(flush=True)
sys.stdin.readline()
for n in range(40):
    def choose():
        time.sleep(0.002)
        return {"plan": mine}
    print(choices.settled(where, {"device": "a card", "N": n}, choose)["plan"])
"""


def test_processes_at_once_take_the_same_plans(tmp_path: Path) -> None:
    """As the ranks of one training do: each times for itself where none has chosen, and all take the first's."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(tmp_path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in "abc"
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    answers = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        answers.append(process.communicate(timeout=60)[0].split())
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 40
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp-")]


def test_where_choices_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MINIALEX_CUDA_PLANS", raising=False)
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path))
    assert choices.opened() == tmp_path / "minialex" / "cuda"
    assert (tmp_path / "minialex" / "cuda").is_dir()
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", str(tmp_path / "shared"))
    assert choices.opened() == tmp_path / "shared"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", "shared")
    assert choices.opened() == tmp_path / "shared"
    assert choices.finding().endswith(f"the choices are in {tmp_path / 'shared'}")
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", "off")
    assert choices.opened() is None
    assert "none is timed" in choices.finding()


def test_a_folder_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "minialex"):
        assert choices.opened() is None
    assert "none is timed: each convolution uses cuDNN's first" in caplog.text
    assert choices.finding().startswith(f"cannot be kept in {tmp_path / 'file'}: ")

    def link(source: str, target: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setenv("MINIALEX_CUDA_PLANS", str(tmp_path / "plain"))
    assert choices.opened() is None
    assert "Operation not supported" in caplog.text
    assert list((tmp_path / "plain").iterdir()) == []

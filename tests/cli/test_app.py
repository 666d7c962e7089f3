"""The program as a whole: what it imports, which options all commands have, how errors end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from minialex.cli.app import app, run
from minialex.cli.options import Machine, options


def commands() -> dict[str, object]:
    """Every command by its words, those of groups too."""
    root = typer.main.get_command(app)
    commands = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        children = getattr(command, "commands", None) or {"": command}
        commands |= {f"{name} {child}".strip(): children[child] for child in children}
    return commands


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from minialex.cli.app import run; run(['--help']); "
        "print({'numpy', 'matplotlib', 'numba', 'PIL', 'http.server'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_every_command_takes_debug_and_says_what_it_does() -> None:
    assert len(commands()) == 29
    for name, command in commands().items():
        assert any("--debug" in parameter.opts for parameter in command.params), name  # type: ignore[attr-defined]
        assert command.help, name  # type: ignore[attr-defined]


def test_commands_are_grouped_and_their_sentences_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    groups = ("Train:", "Look inside:", "Exchange weights:", "Measure:", "Learn and teach:", "Maintain:")
    places = [out.index(f"\n{group}\n") for group in groups]
    assert places == sorted(places)
    assert "\nCommands:\n" not in out, "every command is in a group"
    for words in (["--help"], ["look"], ["store", "--help"]):
        assert run(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any(line.endswith("...") for line in lines if "Usage" not in line)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("exp", {"export"}),
        ("train --res", {"--resume"}),
        ("train --recipe alex", {"alexnet-2012", "alexnet-large-batch", "alexnet-modern"}),
    ],
)
def test_the_shell_completes(typed: str, offered: set[str]) -> None:
    words = ["minialex", *typed.split()]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from minialex.cli.app import main; sys.argv[0] = 'minialex'; main()"],
        capture_output=True, text=True, check=True,
        env={**os.environ, "_MINIALEX_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words),
             "COMP_CWORD": str(len(words) - 1)},
    )  # fmt: skip
    assert set(done.stdout.split()) == offered


def test_a_dataclass_becomes_options() -> None:
    got = []

    def compute(word: str, *, machine: Machine, count: Annotated[int, typer.Option(min=1)] = 2) -> int:
        """Words."""
        got.append((word, machine, count))
        return 5

    program = typer.Typer()
    program.command()(options(compute))
    result = CliRunner().invoke(program, ["hello", "--threads", "3", "--backend", "numpy", "--debug"])
    assert result.exit_code == 0
    assert got == [("hello", Machine("numpy", None, 3), 2)]
    assert CliRunner().invoke(program, ["hello", "--threads", "0"]).exit_code == 2


@pytest.mark.parametrize("words", [["nothing"], ["bench", "--repeats", "0"], ["look", "nothing"], ["summary", "x"]])
def test_wrong_usage_is_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --epochs three", "'--epochs': expected a whole number. `minialex train --help` explains the command"),
        ("bench --repeats 0", "'--repeats': expected at least 1. `minialex bench --help` explains the command"),
        ("evaluate", "Missing argument 'runs'. `minialex evaluate --help` explains the command"),
        ("backends foo", "unexpected argument (foo). `minialex backends --help` explains the command"),
        ("store check", "`minialex store check --help` explains the command"),
        ("train shapes", "unexpected argument 'shapes'. Did you mean --data shapes?"),
        ("train alexnet-2012", "unexpected argument 'alexnet-2012'. Did you mean --recipe alexnet-2012?"),
        ("train mine.toml", "unexpected argument 'mine.toml'. Did you mean --recipe mine.toml?"),
        ("train nonsense", "unexpected argument 'nonsense'"),
        ("train --data nowhere", "or the path of a store, a folder of images or a list of them"),
    ],
)
def test_what_a_newcomer_gets_wrong(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert run(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_folder_that_is_no_run_is_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    assert run(["evaluate", "store"]) == 4
    assert "no run at store: recipe.toml is missing" in capsys.readouterr().err

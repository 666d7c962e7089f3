"""Objects by a file or a module and a name."""

import sys

import pytest

from minialex.backend.imports import find
from minialex.errors import ConfigurationError


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_and_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it_here.py").write_text("value = 3\n")
    (tmp_path / "mine_here.py").write_text("from beside_it_here import value\nclass Holder:\n    net = value\n")
    assert find("network", "mine_here.py:Holder.net") == 3
    assert find("network", str(tmp_path / "mine_here.py:Holder")) is find("network", "mine_here.py:Holder")
    assert find("network", "mine_here:Holder") is find("network", "mine_here.py:Holder")


def test_a_file_called_as_a_module_that_is_there_takes_not_its_place(tmp_path):
    (tmp_path / "numpy.py").write_text("net = 5\n")
    assert find("network", "numpy.py:net") == 5
    assert sys.modules["numpy"].ndarray


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gone.py:net", "no network from 'gone.py': no such file"),
        ("mine", "no network 'mine': expected FILE.py:NAME or MODULE:NAME"),
        ("broken_here.py:net", "no network from 'broken_here.py', which cannot be imported: ZeroDivisionError"),
        ("whole_here.py:nte", "no network 'whole_here.py:nte': whole_here.py has no 'nte'. Did you mean 'net'?"),
        ("not_there_at_all:net", "there is no module of this name in "),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, reason):
    (tmp_path / "broken_here.py").write_text("1 / 0\n")
    (tmp_path / "whole_here.py").write_text("net = 1\n")
    with pytest.raises(ConfigurationError) as raised:
        find("network", text)
    assert reason in str(raised.value)

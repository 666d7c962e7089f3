"""Backends by name: a broken one gives its reason and harms no other."""

from __future__ import annotations

import subprocess
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from minialex.backend import registry
from minialex.errors import BackendUnavailable, ConfigurationError
from minialex_numpy import NumpyBackend


def points(monkeypatch: pytest.MonkeyPatch, **named: str) -> None:
    found = [EntryPoint(name, value, registry.GROUP) for name, value in named.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


def module(monkeypatch: pytest.MonkeyPatch, **members: object) -> None:
    fake = types.ModuleType("fake_backend")
    fake.__dict__.update(members)
    monkeypatch.setitem(sys.modules, "fake_backend", fake)


def test_the_reference_follows_the_protocol() -> None:
    assert registry.protocol_faults(NumpyBackend) == []
    assert registry.load("numpy").devices == ("cpu:0", "cpu:1")


def test_a_broken_backend_gives_its_reason_and_the_others_load(monkeypatch: pytest.MonkeyPatch) -> None:
    points(monkeypatch, broken="no_such_module:Backend", numpy="minialex_numpy:NumpyBackend")
    with pytest.raises(BackendUnavailable, match=r"'broken' cannot be used: ModuleNotFoundError.*no_such_module"):
        registry.load("broken")
    assert registry.load("numpy").name == "numpy"


def test_departures_from_the_protocol_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    members = dict(vars(NumpyBackend))
    del members["relu"]
    members["tanh"] = lambda self, z: z
    members.pop("__dict__"), members.pop("__weakref__")
    module(monkeypatch, Backend=type("Backend", (), members))
    points(monkeypatch, theirs="fake_backend:Backend")
    with pytest.raises(BackendUnavailable) as caught:
        registry.load("theirs")
    assert "'relu' is missing" in str(caught.value)
    assert "'tanh' takes (z), expected (x)" in str(caught.value)


def test_a_constructor_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, *, threads: int | None = None) -> None:
        raise RuntimeError("no driver")

    members = {**vars(NumpyBackend), "__init__": fail}
    members.pop("__dict__"), members.pop("__weakref__")
    module(monkeypatch, Backend=type("Backend", (), members))
    points(monkeypatch, theirs="fake_backend:Backend")
    with pytest.raises(BackendUnavailable, match="RuntimeError: no driver"):
        registry.load("theirs")


def test_only_options_that_are_given_are_passed() -> None:
    assert registry.load("numpy").name == "numpy"
    assert registry.load("numpy", precision="float32").name == "numpy"
    with pytest.raises(ConfigurationError, match="the numpy backend has no --threads"):
        registry.load("numpy", threads=2)
    for name in ("numpy", "numba"):
        with pytest.raises(ConfigurationError, match=f"the {name} backend has no --precision; it computes in float32"):
            registry.load(name, precision="tf32")


def test_a_constructor_gets_its_options() -> None:
    class Takes:
        def __init__(self, *, precision: str = "float32") -> None:
            self.precision = precision

    class TakesAll:
        def __init__(self, **options: object) -> None:
            self.options = options

    assert registry.build("x", Takes, precision="bfloat16").precision == "bfloat16"
    assert registry.build("x", TakesAll, threads=3).options == {"threads": 3}


def test_two_packages_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [EntryPoint("x", value, registry.GROUP) for value in ("a:B", "c:D")]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    with pytest.raises(ConfigurationError, match="two packages define the backend 'x': a:B and c:D"):
        registry.installed()


def test_the_default_is_the_one_with_most_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.default_name() == "numba"
    members = {key: value for key, value in vars(NumpyBackend).items() if key not in ("__dict__", "__weakref__")}
    first = type("Backend", (), {**members, "priority": 100})
    module(monkeypatch, First=first, Asked=type("Backend", (), {**members, "priority": -1}))
    named = {"a": "no_such_module:Backend", "b": "fake_backend:Asked", "numpy": "minialex_numpy:NumpyBackend"}
    points(monkeypatch, **named)
    assert registry.default_name() == "numpy"  # what cannot be imported is passed over
    points(monkeypatch, **named, z="fake_backend:First")
    assert registry.default_name() == "z"
    points(monkeypatch, b="fake_backend:Asked")
    with pytest.raises(ConfigurationError, match=r"no installed backend \(b\) is a default; name one"):
        registry.load()


def test_unknown_name() -> None:
    with pytest.raises(ConfigurationError, match=r"no backend named 'nmupy'; installed: .*Did you mean 'numpy'"):
        registry.load("nmupy")


def test_a_source_tree_has_the_backends_that_it_would_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = {name: point.value for name, point in registry.installed().items()}
    points(monkeypatch)
    found = registry.installed()
    assert {name: found[name].value for name in found} == {name: real[name] for name in ("cuda", "numba", "numpy")}
    assert registry.load("numpy").name == "numpy"
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "minialex" / "backend" / "registry.py"))
    assert registry.installed() == {}
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "theirs"\n', encoding="utf-8")
    assert registry.installed() == {}  # somebody else's folder


def test_importing_and_listing_load_no_backend() -> None:
    code = (
        "import sys, minialex, minialex.backend.registry as r; r.installed();"
        "print([m for m in ('numba', 'cupy', 'matplotlib', 'rich', 'typer', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"

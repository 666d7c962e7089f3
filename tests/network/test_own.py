"""Networks of one's own: found by file, module, entry point or object, and refused where they do not fit."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest

from minialex.engine.step import Plan, record
from minialex.errors import ConfigurationError
from minialex.network import models, own, variants
from minialex.network.layers import ArrayLayer, Context, Conv2d, Flatten, Layer, Linear, Parameter
from minialex.network.network import Network
from minialex.recipe.fields import announced
from minialex.recipe.toml import load, parse
from minialex_numpy import NumpyBackend

MINE = """
from minialex.network.layers import Conv2d, Flatten, Linear, ReLU
from minialex.network.network import Network

net = Network("mine", (3, 32, 32), (
    Conv2d("conv1", 8, 5, stride=4), ReLU("relu1"), Flatten("flatten"), Linear("fc2", 10, sees="all", on="first"),
))

def maker(fields):
    return Network("made", (3, fields.crop, fields.crop), (
        Conv2d("conv1", 8, 5), Flatten("flatten"), Linear("fc2", fields.classes, sees="all", on="first")))

def wrong(fields):
    return [net]
"""
SMALL = load("small").replace(classes=4)
LITERAL = Network("here", (3, 28, 28), (Conv2d("conv1", 8, 5), Flatten("flatten"), Linear("fc2", 10)))


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine_net.py").write_text(MINE)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_is_named_from_the_root_on_and_brings_the_size_of_its_images(tmp_path):
    changes = own.changes_for("mine_net.py:net")
    assert changes == {"model": f"{tmp_path / 'mine_net.py'}:net", "crop": 32}
    network = variants.build(SMALL.replace(**changes))
    assert (network.name, network.layers[-1]) == ("mine", Linear("fc2", 4, sees="all", on="first"))
    again = parse(SMALL.replace(**changes).to_toml(), "a run's recipe")
    assert variants.build(again) == network


def test_a_function_is_given_the_fields():
    network = variants.build(SMALL.replace(**own.changes_for("mine_net:maker")))
    assert (network.input_shape, network.layers[-1].features) == ((3, 28, 28), 4)


def test_an_entry_point(monkeypatch):
    point = EntryPoint("theirs", "mine_net:maker", "minialex.networks")
    points = type("Points", (list,), {"names": {"theirs"}})([point])
    monkeypatch.setattr("minialex.recipe.fields.entry_points", lambda group: points)
    announced.cache_clear()
    try:
        assert variants.build(SMALL.replace(model="theirs")).name == "made"
        known = "expected one of alexnet, alexnet_small, cifar4, cifar5, theirs, FILE.py:NAME"
        with pytest.raises(ConfigurationError, match=known):
            SMALL.replace(model="theris")
    finally:
        announced.cache_clear()


def test_an_object_is_named_after_its_module_or_for_as_long_as_the_session_lives():
    assert own.changes_for(own.load("mine_net:net"))["model"] == "mine_net:net"
    local = Network("local", (3, 28, 28), LITERAL.layers)
    changes = own.changes_for(local)
    assert changes == {"model": "session:local", "crop": 28}
    assert variants.build(SMALL.replace(**changes)).name == "local"
    del own._here["session:local"]
    with pytest.raises(ConfigurationError, match="was an object in a Python session that has ended"):
        variants.build(SMALL.replace(**changes))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "mine_net.py:net"}, r"takes images of 3 × 32 × 32, the recipe crops 3 × 28 × 28: set crop to 32"),
        ({"model": "mine_net.py:wrong"}, "made a list, expected a Network"),
        ({"model": "mine_net.py:MINE"}, "has no 'MINE'"),
        ({"model": "mine_net.py:Network"}, "is a type, expected a Network or a function"),
        ({"model": "gone.py:net"}, "no such file in "),
        ({"model": "mine_net:maker", "layer_rates": {"fc8": 0.0}}, "recipe field 'layer_rates': no layer 'fc8'"),
    ],
)
def test_what_does_not_fit_is_said(changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        variants.build(SMALL.replace(**changes))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys\nsys.exit('enough')", r"cannot be imported: SystemExit: enough"),
        ("from minialex.network.layers import Conv2d\nConv2d('c', 16)", "TypeError: .*missing 1 required .*'size'"),
        ("from minialex.network.layers import Conv2d\nConv2d('c', 16, 5, padding=2)", "layer 'c': padding must be"),
        ("def net(fields):\n    import sys\n    sys.exit(3)", "broken.py:net' failed: SystemExit: 3"),
        ("def net(fields):\n    return 1 / 0", "broken.py:net' failed: ZeroDivisionError: division by zero"),
        ("def net():\n    return 1", "broken.py:net' failed: TypeError: .* takes 0 positional arguments"),
    ],
)
def test_a_file_that_fails_is_their_reason_and_no_bug(tmp_path, text, reason):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ConfigurationError, match=reason):
        variants.build(SMALL.replace(model="broken.py:net"))


@dataclass(frozen=True)
class Broken(Layer):
    """A layer of somebody's own; `wrong` says what is."""

    wrong: str

    def output_shape(self, shape, columns):
        return {"index": lambda: shape[7], "shape": lambda: [1, 2]}.get(self.wrong, lambda: shape)()

    def parameters(self, shape, column, columns):
        return {"list": [3], "zero": lambda: 1 / 0}.get(self.wrong, {})

    def forward(self, backend, parameters, x, context):
        if self.wrong == "numpy":
            return x * (x > 0), x
        y = backend.relu(x)
        return y if self.wrong == "alone" else (y, y)

    def backward(self, backend, parameters, saved, dy, context):
        return backend.relu_backward(dy, saved), ({"weight": dy} if self.wrong == "extra" else {})


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("index", "layer 'mine': its output_shape failed: IndexError: tuple index out of range"),
        ("shape", r"layer 'mine': its output_shape gave \[1, 2\], expected whole numbers from 1"),
        ("list", "layer 'mine': its parameters failed: TypeError"),
        ("zero", "layer 'mine': its parameters failed: TypeError"),
        ("numpy", "layer 'mine': its forward failed: TypeError: '>' .*its own arithmetic belongs in an ArrayLayer"),
        ("alone", "layer 'mine': its forward failed: TypeError: cannot unpack"),
        (
            "extra",
            r"layer 'mine': its backward failed: ValueError: it gave gradients of \['weight'\], expected those of",
        ),
    ],
)
def test_a_layer_that_fails_is_named_with_its_method(wrong, reason):
    row = (LITERAL.layers[0], Broken("mine", wrong), *LITERAL.layers[1:])
    with pytest.raises(ConfigurationError, match=reason):
        record(Plan(Network("n", (3, 28, 28), row), ("cpu:0",)), "train", 2, ("cpu:0",))


def test_a_layer_without_its_fields_is_refused():
    class Bare(Layer):
        def __init__(self):
            pass

    with pytest.raises(ConfigurationError, match=r"a layer \(Bare\): name must be a string, got None"):
        Network("n", (3, 28, 28), (Bare(),))
    record_nothing = Network("n", (3, 28, 28), (LITERAL.layers[0], Nothing("nothing"), *LITERAL.layers[1:]))
    with pytest.raises(ConfigurationError, match="layer 'nothing': its forward failed: NotImplementedError: it has no"):
        record(Plan(record_nothing, ("cpu:0",)), "infer", 2, ("cpu:0",))


class Nothing(Layer):
    """A layer without methods."""


def scaled(learns):
    """Two layers by the same name: a class that is defined again, as in a notebook."""

    class Scale(ArrayLayer):
        if learns:

            def parameters(self, shape, column, columns):
                return {"weight": Parameter((shape[0],), constant=3.0)}

            def compute(self, xp, x, weight, *, training):
                return x * weight + training

            def gradient(self, xp, dy, x, weight):
                return dy * weight, (dy * x).sum(axis=0)
        else:

            def compute(self, xp, x):
                return x * 2

            def gradient(self, xp, dy, x):
                return dy * 2

    return Scale("scale")


def test_classes_of_one_name_stay_apart():
    backend = NumpyBackend()
    layers = [scaled(False), scaled(True), scaled(False)]
    x, three = (backend.to_device(np.full(shape, value), "cpu:0") for shape, value in (((2, 4), 1.0), ((4,), 3.0)))
    for layer, arrays, wanted in zip(layers, ({}, {"weight": three}, {}), (2, 4, 2), strict=True):
        y, saved = layer.forward(backend, arrays, x, Context(training=True))
        assert np.all(backend.to_numpy(y) == wanted)
        _, gradients = layer.backward(backend, arrays, saved, x, Context(training=True))
        assert list(gradients) == list(arrays)


def test_the_outputs_are_the_classes():
    class Twice(ArrayLayer):
        def output_shape(self, shape, columns):
            return (2 * shape[0],)

        def compute(self, xp, x):
            return xp.concatenate([x, x], axis=1)

        def gradient(self, xp, dy, x):
            return dy[:, : x.shape[1]] + dy[:, x.shape[1] :]

    network = Network("wide", (3, 28, 28), (*LITERAL.layers, Twice("twice")))
    with pytest.raises(ConfigurationError, match=r"gives \(10,\) for an image, expected 4 classes"):
        variants.build(SMALL.replace(**own.changes_for(network)))


def test_what_learns_before_columns_are_divided_is_refused():
    class Scaled(ArrayLayer):
        def parameters(self, shape, column, columns):
            return {"weight": Parameter((shape[0],), constant=1.0)}

        def compute(self, xp, x, weight):
            return x * weight[:, None, None]

    network = Network("early", (3, 28, 28), (Scaled("scaled"), *LITERAL.layers))
    assert network.stages(1)
    with pytest.raises(ConfigurationError, match="layer 'scaled': it would learn the same in each of 2 columns"):
        network.stages(2)


def test_objects_of_a_session_are_told_apart_and_a_script_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (replace(models.ALEXNET_SMALL, layers=models.ALEXNET_SMALL.layers[:n]) for n in (3, 4))
    monkeypatch.setattr(own, "_here", {})
    monkeypatch.setitem(vars(sys.modules["__main__"]), "net", first)  # as in a script, which an import would run again
    names = [own.name_of(network) for network in (first, second, first)]
    assert names == ["session:alexnet_small", "session:alexnet_small-2", "session:alexnet_small"]
    assert own.load(names[0]) is first
    assert own.load(names[1]) is second

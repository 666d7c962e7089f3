"""PyTorch's files: ours are read by PyTorch, PyTorch's by us, and the exported module gives our probabilities."""

from __future__ import annotations

import ast
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.cli import import_ as commands
from minialex.errors import CheckpointError, ConfigurationError
from minialex.exchange import pytorch_file, pytorch_module, whole
from minialex.network import variants
from minialex.recipe.toml import load
from minialex.runs.weights_file import Weights

from .conftest import KINDS, centre, images, log_softmax, network, ours


def module(path: Path) -> types.ModuleType:
    """The exported source, run."""
    made = types.ModuleType("exported")
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), made.__dict__)
    return made


# ---- export ---------------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_the_exported_module_gives_our_probabilities(weights: Weights, tmp_path: Path, torch: Any) -> None:
    pixels = images(weights.recipe)
    expected = ours(weights, pixels)
    source = pytorch_module.write(tmp_path / "net.pt", weights)
    made = module(source)
    assert weights.titles == made.CLASSES
    net = made.load(tmp_path / "net.pt")
    crops = torch.tensor(centre(weights.recipe, pixels))
    with torch.no_grad():
        single, double = net(crops), net.double()(crops.double())
    assert np.abs(log_softmax(single.numpy()) - expected.value).max() <= expected.bound32
    # a channel's mean is rounded to float32 in the file
    bound = expected.bound32 if weights.recipe.mean == "channel" else expected.bound64
    assert np.abs(log_softmax(double.numpy()) - expected.value).max() <= bound


@pytest.mark.peers
def test_the_exported_module_trains_with_dropout(tmp_path: Path, torch: Any) -> None:
    """In training units are silent and what remains is not scaled (the paper), or is (inverted)."""
    for mode, kept in (("paper", 1.0), ("inverted", 2.0)):
        changes = {**KINDS["small"][1], "dropout": 0.5, "dropout_mode": mode}
        source = pytorch_module.write(tmp_path / f"{mode}.pt", network(load("small").replace(**changes)))
        made = module(source)
        text = source.read_text(encoding="utf-8")
        drop = made.paper_dropout if mode == "paper" else torch.nn.functional.dropout
        assert (
            "paper_dropout(x, 0.5, self.training)" if mode == "paper" else "F.dropout(x, 0.5, self.training)"
        ) in text
        out = drop(torch.ones(4000), 0.5, True)
        assert set(out.unique().tolist()) == {0.0, kept}
        assert 0.4 < (out > 0).float().mean() < 0.6


@pytest.mark.peers
def test_what_we_write_is_what_pytorch_reads(tmp_path: Path, torch: Any) -> None:
    random = np.random.default_rng(0)
    tensors = {name: random.standard_normal(s).astype("f4") for name, s in
               {"a.weight": (3, 4, 5, 6), "ä": (7,), "scalar": (), "flat": (1, 1)}.items()}  # fmt: skip
    pytorch_file.write(tmp_path / "w.pt", tensors)
    for how in ({}, {"mmap": True}):
        read = torch.load(tmp_path / "w.pt", weights_only=True, **how)
        assert isinstance(read, OrderedDict)
        assert list(read) == list(tensors)
        for name, array in tensors.items():
            np.testing.assert_array_equal(read[name].numpy(), array)
    first = (tmp_path / "w.pt").read_bytes()
    pytorch_file.write(tmp_path / "w.pt", tensors)
    assert (tmp_path / "w.pt").read_bytes() == first
    ours_again = pytorch_file.read(tmp_path / "w.pt")
    for name, array in tensors.items():
        np.testing.assert_array_equal(ours_again[name], array)


@pytest.mark.parametrize("name", ['a""" + boom + """.pt', "a\nb.pt", "a\\x.pt", "plain.pt"])
def test_a_file_name_stays_text_in_the_module(name: str) -> None:
    weights = network(load("small").replace(**KINDS["small"][1]))
    row = whole.whole_layers(weights, "PyTorch")
    text = pytorch_module.source(row, whole.preprocessing(weights), name, ('"""', "it's\n", "\\"))
    tree = ast.parse(text)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "boom" not in names
    assert ast.literal_eval(tree.body[-1].value) == ('"""', "it's\n", "\\")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "module_name"),
    [
        ("first.pt", "first.py"), ("my-net.v2.pth", "my_net_v2.py"), ("2024.pt", "net_2024.py"), ("ä.pt", "ä.py"),
        *((f"{word}.pt", f"{word}_net.py") for word in
          ("numpy", "Torch", "minialex", "os", "json", "class", "match", "None", "pytest", "tensorflow")),
    ],
)  # fmt: skip
def test_the_module_hides_no_other(name: str, module_name: str, tmp_path: Path) -> None:
    assert pytorch_module.module_path(tmp_path / name) == tmp_path / module_name


@pytest.mark.peers
def test_names_that_pytorch_has_taken(torch: Any) -> None:
    has = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert has - {"training", "call_super_init", "dump_patches"} <= pytorch_module.TAKEN


@pytest.mark.parametrize("name", ["mean", "forward", "type", "float", "_parameters", "class", "a b", "1st"])
def test_a_layer_that_cannot_be_an_attribute(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = network(load("small").replace(**KINDS["small"][1]))
    built = variants.build(weights.recipe)
    layers = tuple(replace(layer, name=name) if layer.name == "relu1" else layer for layer in built.layers)
    monkeypatch.setattr("minialex.network.variants.build", lambda recipe: replace(built, layers=layers))
    with pytest.raises(ConfigurationError, match=f"layer '{name}' cannot be an attribute of a PyTorch module"):
        pytorch_module.write(tmp_path / "net.pt", weights)


def test_exported_weights_come_back(tmp_path: Path) -> None:
    """Through a .pt file and the import: the same arrays, and the same probabilities on the centre view."""
    changes = KINDS["small"][1]
    before = network(load("small").replace(**changes))
    (tmp_path / "thin.toml").write_text(before.recipe.to_toml(), encoding="utf-8")
    pytorch_module.write(tmp_path / "net.pt", before)
    after = commands.import_weights(
        tmp_path / "net.pt", tmp_path / "back.safetensors", str(tmp_path / "thin.toml"), None, None, False
    )
    for name, array in before.tensors.items():
        np.testing.assert_array_equal(after.tensors[name], array)
    pixels = images(before.recipe)
    np.testing.assert_array_equal(ours(before, pixels).value, ours(after, pixels).value)


# ---- reading --------------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("form", ["plain", "in a checkpoint", "parameters", "strided"])
def test_what_pytorch_writes_is_what_we_read(tmp_path: Path, torch: Any, zipped: bool, form: str) -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 3).half(),
        torch.nn.Linear(2, 3).bfloat16(), torch.nn.Linear(2, 3).double(),
    )  # fmt: skip
    state = net.state_dict()
    expected = {name: tensor.float().numpy() for name, tensor in state.items()}
    value: Any = state
    if form == "in a checkpoint":
        value = {"epoch": 3, "arch": "alexnet", "best": 0.5, "state_dict": state, "steps": [1, 2]}
    elif form == "parameters":
        value = dict(net.named_parameters())
        expected = {name: p.detach().float().numpy() for name, p in value.items()}
    elif form == "strided":
        value = {"turned": torch.arange(12.0).reshape(3, 4).T, "part": torch.arange(10.0)[2:8:3]}
        expected = {name: tensor.numpy() for name, tensor in value.items()}
    torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = pytorch_file.read(tmp_path / "x.pth")
    assert list(read) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(read[name].astype("f4"), array)


class Boom:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/minialex-was-here",))


def archive(pickled: bytes, entries: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as file:
        for name, content in {"data.pkl": pickled, "version": b"3\n", **(entries or {})}.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def tensor_pickle(
    count: int = 6, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1), offset: int = 0,
    kind: bytes = b"ctorch\nFloatStorage\n", names: tuple[str, ...] = ("a",),
) -> bytes:  # fmt: skip
    """A state dictionary of tensors that all show row 0."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(n: int) -> bytes:
        return pickle.dumps(n, 2)[2:-1]

    def row(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    parts = [b"\x80\x02}("]
    for name in names:
        parts += [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((", text("storage"), kind, text("0"), text("cpu"),
                  number(count), b"tQ", number(offset), row(shape), row(strides), b"\x89}tR"]  # fmt: skip
    return b"".join([*parts, b"u."])


NUMBERS = {"data/0": np.arange(6, dtype="<f4").tobytes()}
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a program": (archive(pickle.dumps({"a": Boom()}, 2)), "refused"),
    "a program of 2019": (
        pytorch_file.LEGACY + b"".join(pickle.dumps(v, 2) for v in (1001, {"little_endian": True}, {"a": Boom()}, [])),
        "refused"),
    "eval": (archive(b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."), "a whole object, builtins.eval"),
    "a whole module": (archive(b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81."), "save the state dictionary alone"),
    "TorchScript": (archive(tensor_pickle(), {**NUMBERS, "constants.pkl": b"\x80\x02)."}), "TorchScript"),
    "compressed": (archive(tensor_pickle(), NUMBERS, zipfile.ZIP_DEFLATED), "compressed"),
    "no numbers": (archive(tensor_pickle()), "damaged"),
    "fewer numbers": (archive(tensor_pickle(count=7), NUMBERS), "data/0 has 24 bytes, not 7 numbers"),
    "numbers without end": (archive(tensor_pickle(2**40, (2**40,), (1,)), NUMBERS), "not 1099511627776"),
    "a shape beyond them": (archive(tensor_pickle(shape=(3, 3)), NUMBERS), "does not fit"),
    "a stride of 0": (archive(tensor_pickle(shape=(10**6, 10**6), strides=(0, 0)), NUMBERS), "again and again"),
    "a negative stride": (archive(tensor_pickle(strides=(-3, 1)), NUMBERS), "shape is damaged"),
    "an offset beyond them": (archive(tensor_pickle(offset=4), NUMBERS), "does not fit"),
    "a negative offset": (archive(tensor_pickle(offset=-4), NUMBERS), "shape is damaged"),
    "one row a thousand times": (
        archive(tensor_pickle(names=tuple(f"t{n}" for n in range(1000))), NUMBERS), "again and again"),
    "an unknown type": (archive(tensor_pickle(kind=b"ctorch\nQuantStorage\n"), NUMBERS), "'a' (torch.QuantStorage)"),
    "two pickles": (archive(tensor_pickle(), {**NUMBERS, "deeper/data.pkl": b"\x80\x02}."}), "one state dictionary"),
    "no dictionary": (archive(b"\x80\x02]."), "no dictionary"),
    "an empty dictionary": (archive(b"\x80\x02}."), "no tensors"),
    "more after the end": (archive(tensor_pickle() + b"N.", NUMBERS), "more follows"),
    "cut short": (archive(tensor_pickle(), NUMBERS)[:-40], "damaged"),
    "nothing": (b"", "damaged"),
    "text": (b"PK\x03\x04 and no more", "damaged"),
    "a legacy file cut short": (pytorch_file.LEGACY + b"\x80\x02M\xe9\x03.", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_damaged_files(name: str, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    before = set(sys.modules)
    with pytest.raises(CheckpointError) as caught:
        pytorch_file.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert not Path("/tmp/minialex-was-here").exists()
    assert not {module for module in set(sys.modules) - before if module.startswith("torch")}


def test_a_tensor_by_hand_is_read() -> None:
    """The maker of hostile files makes sound ones too, or it would prove nothing."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"minialex-{os.getpid()}.pt"
    try:
        path.write_bytes(archive(tensor_pickle(), NUMBERS))
        np.testing.assert_array_equal(pytorch_file.read(path)["a"], np.arange(6).reshape(2, 3))
    finally:
        path.unlink()


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_never_give_wrong_numbers(seed: int, tmp_path: Path) -> None:
    """Of a damaged file comes an error or the same numbers: zip archives have sums."""
    random = np.random.default_rng(seed)
    tensors = {"a": np.arange(200, dtype="f4"), "b": np.ones((3, 4), "f4")}
    path = tmp_path / "x.pt"
    pytorch_file.write(path, tensors)
    sound = path.read_bytes()
    errors = 0
    for _ in range(60):
        broken = bytearray(sound)
        broken[random.integers(len(broken))] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        try:
            read = pytorch_file.read(path)
        except CheckpointError:
            errors += 1
        else:
            assert all(np.array_equal(read[name], tensors[name]) for name in tensors)
    assert errors > 20

"""Weights as other people's programs save them: more beside the tensors, longer names, narrower numbers."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import json
import os
import pathlib
import pickle
import random
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minialex.cli.app import run
from minialex.cli.import_ import import_weights
from minialex.errors import CheckpointError
from minialex.exchange import names, pytorch_file
from minialex.network import variants
from minialex.network.parameters import whole_shapes
from minialex.recipe.toml import load
from minialex.storage import safetensors

from .test_pytorch import archive

NUMBERS = np.arange(40, dtype="<f4")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def plain(value: Any) -> bytes:
    """A value's own instructions, to stand inside another pickle."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, key: str = "0", count: int = 40) -> bytes:
    """A float32 tensor that shows a part of a row of numbers, as PyTorch describes it."""
    row = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + plain(count) + b"tQ"
    shown = plain(offset) + plain(shape) + plain(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + row + shown + b"\x89ccollections\nOrderedDict\n)RtR"


def mapping(items: dict[str, bytes], begin: bytes = b"}") -> bytes:
    return begin + b"(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def zipped(path: Path, value: bytes, rows: dict[str, NDArray[Any]] | None = None) -> Path:
    rows = rows or {"0": NUMBERS}
    path.write_bytes(archive(b"\x80\x02" + value + b".", {f"data/{key}": row.tobytes() for key, row in rows.items()}))
    return path


def old(path: Path, value: bytes, rows: dict[str, NDArray[Any]]) -> Path:
    """The row of pickles of before 2020."""
    head = [pickle.dumps(v, 2) for v in (1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})]
    numbers = [struct.pack("<q", len(row)) + row.tobytes() for row in rows.values()]
    pickles = [*head, b"\x80\x02" + value + b".", pickle.dumps(list(rows), 2)]
    path.write_bytes(b"".join([pytorch_file.LEGACY, *pickles, *numbers]))
    return path


# ---- where a tensor's numbers are -----------------------------------------------------------------------------

VIEWS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "an offset": ((2, 3), (3, 1), 7),
    "the last numbers": ((5,), (1,), 35),
    "turned around": ((3, 4), (1, 3), 0),
    "every third from the second": ((4,), (3,), 1),
    "channels last": ((1, 2, 3, 4), (24, 1, 8, 2), 5),
    "one number shown several times": ((3, 1, 1), (0, 0, 0), 9),
    "a single number": ((), (), 11),
    "none": ((0, 3), (3, 1), 40),
}


@pytest.mark.parametrize("form", [zipped, old])
def test_every_view_of_a_shared_row(form: Any, tmp_path: Path) -> None:
    """Offsets and strides, all in one row of numbers; against NumPy's own indexing, element by element."""
    path = form(tmp_path / "x.pt", mapping({name: tensor(*view) for name, view in VIEWS.items()}), {"0": NUMBERS})
    read = pytorch_file.read(path)
    assert list(read) == list(VIEWS)
    for name, (shape, strides, offset) in VIEWS.items():
        expected = np.empty(shape, np.float32)
        for index in np.ndindex(shape):
            expected[index] = NUMBERS[offset + sum(i * step for i, step in zip(index, strides, strict=True))]
        np.testing.assert_array_equal(read[name], expected)
        assert read[name].shape == shape
        assert read[name].flags.c_contiguous


def test_two_names_for_one_tensor(tmp_path: Path) -> None:
    read = pytorch_file.read(zipped(tmp_path / "x.pt", mapping({"a": tensor((40,), (1,)), "b": tensor((40,), (1,))})))
    np.testing.assert_array_equal(read["a"], NUMBERS)
    np.testing.assert_array_equal(read["b"], NUMBERS)


# ---- what stands beside the tensors ---------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = 1


class Boom:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/minialex-was-here",))


class OwnDict(collections.OrderedDict):  # type: ignore[type-arg]
    pass


class OwnList(list):  # type: ignore[type-arg]
    pass


BESIDE: dict[str, tuple[Any, str]] = {  # the value, and what it is called where it is left out
    "script's arguments": (argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("/x")), "argparse.Namespace"),
    "NumPy's scalar": (np.float64(0.5), "multiarray.scalar"),
    "NumPy's array": (np.arange(3.0), "multiarray._reconstruct"),
    "array of objects": (np.array([Boom()], object), "multiarray._reconstruct"),
    "generator's state": (np.random.default_rng(0).bit_generator.state, "'beside'"),
    "Python's random state": (random.getstate(), ""),
    "path": (pathlib.PurePosixPath("a/b"), "PurePosixPath"),
    "date": (datetime.datetime(2020, 1, 1), "datetime.datetime"),
    "default dictionary": (collections.defaultdict(list, {"a": [1]}), "collections.defaultdict"),
    "own dictionary": (OwnDict(a=1), "OwnDict"),
    "own list": (OwnList([1, 2]), "OwnList"),
    "counter": (collections.Counter("abca"), "collections.Counter"),
    "enum": (Colour.RED, "Colour"),
    "set": ({1, 2}, "set"),
    "complex": (1 + 2j, "complex"),
    "bytes": (b"\xff\x00", ""),
    "large number": (2**127, ""),
    "keys that are tuples": ({(1, 2): 3, None: 4, 0.5: 6}, "'beside'"),
    "class": (argparse.Namespace, ""),
    "program": (Boom(), "system"),
    "plain": ([1, 2.5, "text", None, True, {"a": (1,)}], ""),
}


@pytest.mark.parametrize("form", [zipped, old])
@pytest.mark.parametrize("name", BESIDE)
def test_values_beside_the_tensors_are_left_out_and_named(name: str, form: Any, tmp_path: Path) -> None:
    value, called = BESIDE[name]
    state = mapping({"a": tensor((2, 3), (3, 1)), "b": plain(value)})
    path = form(tmp_path / "x.pt", mapping({"beside": plain(value), "state_dict": state}), {"0": NUMBERS})
    said: list[str] = []
    read = pytorch_file.read(path, said.append)
    assert list(read) == ["a"]
    np.testing.assert_array_equal(read["a"], NUMBERS[:6].reshape(2, 3))
    assert len(said) == bool(called)
    assert not called or (called in said[0] and "'beside'" in said[0])
    assert not Path("/tmp/minialex-was-here").exists()


@pytest.mark.parametrize("form", [zipped, old])
def test_an_optimizer_beside_them(form: Any, tmp_path: Path) -> None:
    """Its tensors lie in rows of their own, between those of the weights."""
    rows = {"9": NUMBERS + 100, "0": NUMBERS, "7": NUMBERS - 100}
    state = b"}(" + plain(0) + mapping({"momentum_buffer": tensor((40,), (1,), key="9")}) + b"u"
    optimizer = mapping({"state": state, "param_groups": plain([{"lr": 0.1, "params": [0, 1]}])})
    model = mapping({"a": tensor((40,), (1,)), "b": tensor((40,), (1,), key="7")})
    read = pytorch_file.read(form(tmp_path / "x.pt", mapping({"optimizer": optimizer, "model": model}), rows))
    np.testing.assert_array_equal(read["a"], NUMBERS)
    np.testing.assert_array_equal(read["b"], NUMBERS - 100)


@pytest.mark.parametrize(
    "around",
    [
        lambda state: state,
        lambda state: mapping({"weights_of_the_net": state, "epoch": plain(3)}),  # the only one with tensors
        lambda state: mapping({"model": mapping({"state_dict": state}), "net": plain({"name": "alexnet"})}),
        lambda state: mapping({"state_dict": state}, b"c__main__\nEasyDict\n)R"),
        lambda state: mapping({"state_dict": state}, b"c__main__\nEasyDict\n)\x81"),
    ],
)
def test_where_the_state_dictionary_stands(around: Any, tmp_path: Path) -> None:
    for begin in (b"}", b"ccollections\nOrderedDict\n)R", b"cmine\nStateDict\n)R", b"cmine\nStateDict\n)\x81"):
        state = mapping({"a": tensor((40,), (1,))}, begin) + b"}" + text("_metadata") + b"}sb"
        np.testing.assert_array_equal(pytorch_file.read(zipped(tmp_path / "x.pt", around(state)))["a"], NUMBERS)


def test_several_dictionaries_of_tensors(tmp_path: Path) -> None:
    both = mapping({"generator": mapping({"a": tensor((4,), (1,))}), "critic": mapping({"a": tensor((4,), (1,))})})
    with pytest.raises(CheckpointError, match="several dictionaries of tensors, 'generator', 'critic'"):
        pytorch_file.read(zipped(tmp_path / "x.pt", both))


def test_a_tar_archive_of_2016(tmp_path: Path) -> None:
    (tmp_path / "storages").write_bytes(b"x")
    with tarfile.open(tmp_path / "x.pth", "w") as tar:
        tar.add(tmp_path / "storages", "storages")
    with pytest.raises(CheckpointError, match=r"tar archive, as PyTorch wrote them before 2017: save it once more"):
        pytorch_file.read(tmp_path / "x.pth")


# ---- names ----------------------------------------------------------------------------------------------------

LAYERS = ("features.0.weight", "features.10.bias", "classifier.6.weight")


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        (LAYERS, ""),
        (tuple(f"module.{name}" for name in LAYERS), "'module.'"),
        (tuple(f"model.{name}" for name in LAYERS), "'model.'"),
        (tuple(f"_orig_mod.module.{name}" for name in LAYERS), "'module.' and '_orig_mod.'"),
        (tuple(f"model._orig_mod.net.{name}" for name in LAYERS), "'_orig_mod.' and 'model.' and 'net.'"),
        (tuple(f"state_dict.my_alexnet.{name}" for name in LAYERS), "'state_dict.' and 'my_alexnet.'"),
        # PyTorch's own example for ImageNet wraps AlexNet's features alone
        (("features.module.0.weight", "features.module.10.bias", "classifier.6.weight"), "'module.'"),
    ],
)
def test_what_is_removed_from_names(given: tuple[str, ...], gone: str) -> None:
    def known(tensors: Any) -> bool:
        return LAYERS[0] in tensors

    arrays = {name: np.zeros(n + 1) for n, name in enumerate(given)}
    found, said = names.bare(arrays, known)
    assert list(found) == list(LAYERS)
    assert [len(array) for array in found.values()] == [1, 2, 3]
    assert said == gone


@pytest.mark.parametrize("given", [("a.weight", "b.weight"), ("module.a.w", "a.w"), ("w",), ()])
def test_names_that_share_nothing_stay(given: tuple[str, ...]) -> None:
    assert list(names.bare(dict.fromkeys(given, np.zeros(1)), lambda tensors: False)[0]) == list(given)


# ---- whole imports --------------------------------------------------------------------------------------------


def thin(tmp_path: Path) -> tuple[str, dict[str, NDArray[np.float32]]]:
    """A recipe's file, and tensors of its network, exact in bfloat16."""
    recipe = load("shapes").replace(kernels=(4,) * 5, features=(8, 8), classes=3)
    (tmp_path / "thin.toml").write_text(recipe.to_toml(), encoding="utf-8")
    shapes = {**whole_shapes(variants.build(recipe), recipe.columns), "mean": (3, 1, 1)}
    generator = np.random.default_rng(1)
    wide = {name: generator.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
    return str(tmp_path / "thin.toml"), {n: (a.view("u4") & 0xFFFF0000).view("f4") for n, a in wide.items()}


def bfloat16_file(path: Path, tensors: dict[str, NDArray[np.float32]], short: str = "BF16") -> Path:
    """A safetensors file by hand, by the format's description: the upper halves of the numbers."""
    header, content = {}, b""
    for name, array in tensors.items():
        half = np.ascontiguousarray(array.view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": short, "shape": array.shape, "data_offsets": [len(content), len(content) + len(half)],
        }  # fmt: skip
        content += half
    beginning = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(beginning)) + beginning + content)
    return path


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    """Also what is no ordinary number: the bits of every bfloat16, in the upper half of a float32."""
    every = (np.arange(2**16, dtype="u4") << 16).view("f4").reshape(256, 256)
    read = safetensors.read(bfloat16_file(tmp_path / "x.safetensors", {"a": every, "b": every[:0]}))
    assert read["a"].dtype == np.float32
    np.testing.assert_array_equal(read["a"].view("u4"), every.view("u4"))
    assert read["b"].shape == (0, 256)
    read["a"][0] = 1  # one's own
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        safetensors.read(bfloat16_file(tmp_path / "x.safetensors", {"BF16": every}, "F8_E4M3"))


def test_a_lightning_checkpoint_in_bfloat16_is_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, tensors = thin(tmp_path)
    source = bfloat16_file(tmp_path / "x.safetensors", {f"model.{name}": array for name, array in tensors.items()})
    assert run(["import", str(source), str(tmp_path / "w.safetensors"), "--recipe", recipe]) == 0
    assert f"{source}: removed from the names of its tensors: 'model.'" in capsys.readouterr().out
    read = safetensors.read(tmp_path / "w.safetensors")
    for name in tensors:
        np.testing.assert_array_equal(read["data.mean" if name == "mean" else name], tensors[name] + (
            np.zeros((3, 32, 32), "f4") if name == "mean" else np.float32(0)))  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><html>", "is a web page, not a weights file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "`git lfs pull` fetches them"),
    ],
)
@pytest.mark.parametrize("ending", ["pth", "safetensors", "caffemodel"])
def test_text_under_the_name_of_weights(content: bytes, message: str, ending: str, tmp_path: Path) -> None:
    source = tmp_path / f"x.{ending}"
    source.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        import_weights(source, tmp_path / "w.safetensors", None, None, None, False)


@pytest.mark.peers
@pytest.mark.parametrize("zipped_", [True, False])
def test_a_training_script_s_checkpoint(tmp_path: Path, torch: Any, zipped_: bool, capsys: Any) -> None:
    """Written by PyTorch: compiled and wrapped names, an optimizer that has taken a step, arguments, a NumPy scalar."""
    recipe, tensors = thin(tmp_path)
    base = torch.arange(30.0)
    weight = torch.nn.Parameter(base[4:10])
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    state = {f"_orig_mod.module.{name}": torch.tensor(array) for name, array in tensors.items()}
    value = {
        "args": argparse.Namespace(lr=0.1, device=torch.device("cpu"), dtype=torch.float32, size=torch.Size([3])),
        "best": np.float32(0.25), "optimizer": optimizer.state_dict(), "state_dict": OwnDict(state),
        "rng": torch.get_rng_state(),
        "numpy": np.random.default_rng(0).bit_generator.state, "ema": dict(state), "mask": base > 3,
        "complex": torch.zeros(2, dtype=torch.complex64), "short": torch.zeros(2, dtype=torch.int16),
    }  # fmt: skip
    torch.save(value, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped_)
    out = tmp_path / "w.safetensors"
    assert run(["import", str(tmp_path / "x.pth"), str(out), "--recipe", recipe]) == 0
    said = capsys.readouterr().out
    for words in ("'args' (argparse.Namespace)", "none of it was executed", "'module.' and '_orig_mod.'"):
        assert words in said
    read = safetensors.read(out)
    for name in tensors.keys() - {"mean"}:
        np.testing.assert_array_equal(read[name], tensors[name])

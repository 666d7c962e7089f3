"""Checkpoints: what is saved comes back; what is damaged, hostile or of another network is named."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.errors import CheckpointError, ConfigurationError, MinialexError, ResourceError
from minialex.runs import checkpoint
from minialex.storage import atomic, safetensors

Tensors = dict[str, np.ndarray[Any, Any]]
PARTS = ("weights.safetensors", "momentum.safetensors", "state.json", "manifest.json")


def tensors(seed: int) -> Tensors:
    """Return tensors that differ for each seed, with an empty one and a scalar among them."""
    generator = np.random.default_rng(seed)
    return {
        "conv1.weight": generator.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "conv1.bias": generator.standard_normal(4),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(seed, np.float64),
    }


def save(folder: Path, step: int, **options: Any) -> Path:
    """Save a checkpoint whose contents are a function of the step."""
    return checkpoint.save(folder, step, tensors(step), tensors(step + 1), {"seed": 0, "step": step}, **options)


def assert_is(found: checkpoint.Checkpoint | None, step: int) -> None:
    """Check that a checkpoint is what `save` saved, bit for bit."""
    assert found is not None
    assert (found.step, found.state) == (step, {"seed": 0, "step": step})
    for expected, part in ((tensors(step), found.weights), (tensors(step + 1), found.momentum)):
        assert set(part) == set(expected)
        for name, tensor in expected.items():
            assert (part[name].dtype, part[name].shape) == (tensor.dtype, tensor.shape)
            assert part[name].tobytes() == tensor.tobytes()


def no_warning(message: str) -> None:
    """Fail: nothing should be warned about."""
    raise AssertionError(message)


# ---------------------------------------------------------------- what is saved comes back


def test_save_and_load(tmp_path: Path) -> None:
    path = save(tmp_path / "run" / "checkpoints", 1234)
    assert path == tmp_path / "run" / "checkpoints" / "step-00001234"
    assert sorted(os.listdir(path)) == sorted(PARTS)
    assert (path.parent / "latest").read_text() == "step-00001234\n"
    assert not (path.parent / "best").exists()
    assert_is(checkpoint.load(path), 1234)
    assert_is(checkpoint.latest(path.parent, no_warning), 1234)
    assert_is(checkpoint.best(path.parent, no_warning), 1234)
    shutil.move(path, tmp_path / "mine")  # someone took it elsewhere
    assert_is(checkpoint.load(tmp_path / "mine"), 1234)


def test_arrays_that_are_not_contiguous_or_not_little_endian(tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    weights = {"transposed": base.T, "strided": base[::2, 1::3], "big": base.astype(">f4"), "read_only": base.copy()}
    weights["read_only"].flags.writeable = False
    found = checkpoint.load(checkpoint.save(tmp_path, 0, weights, {}, {}))
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found.weights[name], tensor)
        found.weights[name] += 1  # the update step writes in place
    assert_is(checkpoint.load(save(tmp_path, 1)), 1)
    np.testing.assert_array_equal(checkpoint.load(tmp_path / "step-00000000").weights["strided"], base[::2, 1::3])


def test_other_programs_read_the_weights(tmp_path: Path) -> None:
    safetensors_torch = pytest.importorskip("safetensors.torch", exc_type=ImportError)
    found = safetensors_torch.load_file(save(tmp_path, 3) / "weights.safetensors")
    for name, tensor in tensors(3).items():
        np.testing.assert_array_equal(found[name].numpy(), tensor)


@pytest.mark.parametrize(
    "dtype", ["float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
)
def test_every_dtype_comes_back(tmp_path: Path, dtype: str) -> None:
    tensor = np.array([[0, 1, 2]], dtype)
    found = checkpoint.load(checkpoint.save(tmp_path, 0, {"a": tensor}, {}, {})).weights["a"]
    assert (found.dtype, found.tolist()) == (tensor.dtype, tensor.tolist())


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    one = {"a": np.ones(1, np.float32)}
    with pytest.raises(ConfigurationError, match="cannot save tensor 'a' of complex64 in weights"):
        checkpoint.save(tmp_path, 0, {"a": np.ones(1, np.complex64)}, {}, {})
    with pytest.raises(ConfigurationError, match="cannot save tensor '__metadata__'"):
        checkpoint.save(tmp_path, 0, one, {"__metadata__": one["a"]}, {})
    with pytest.raises(ConfigurationError, match="not a JSON value: Out of range float"):
        checkpoint.save(tmp_path, 0, one, one, {"lowest": float("inf")})
    with pytest.raises(ConfigurationError, match="exceed 1048576 bytes"):
        checkpoint.save(tmp_path, 0, {"a" * 1_100_000: one["a"]}, one, {})
    with pytest.raises(ConfigurationError, match="got step=-1 and keep=3"):
        checkpoint.save(tmp_path, -1, one, one, {})
    with pytest.raises(ConfigurationError, match="got step=1 and keep=1"):
        checkpoint.save(tmp_path, 1, one, one, {}, keep=1)
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- which are kept


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder, and check that nothing else is there but the pointers."""
    names = sorted(name for name in os.listdir(folder) if name not in ("latest", "best"))
    found = [int(name.removeprefix("step-")) for name in names]
    assert names == [f"step-{step:08d}" for step in found]
    return found


def test_the_last_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step * 10, best=step in (1, 3))
    assert steps(tmp_path) == [30, 50, 60, 70]
    assert (tmp_path / "best").read_text() == "step-00000030\n"
    assert_is(checkpoint.best(tmp_path, no_warning), 30)
    assert_is(checkpoint.latest(tmp_path, no_warning), 70)
    save(tmp_path, 80, best=True)
    assert steps(tmp_path) == [60, 70, 80]
    save(tmp_path, 90, keep=2)
    assert steps(tmp_path) == [80, 90]


def test_the_same_step_again(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20, best=True)
    save(tmp_path, 20)  # the same weights: still the best
    assert steps(tmp_path) == [10, 20]
    assert_is(checkpoint.best(tmp_path, no_warning), 20)
    checkpoint.save(tmp_path, 20, tensors(5), tensors(6), {"other": True})
    found = checkpoint.latest(tmp_path, no_warning)
    assert found is not None
    assert found.state == {"other": True}
    assert found.weights["scalar"] == 5
    assert steps(tmp_path) == [10, 20]
    assert not json.loads((tmp_path / "step-00000020" / "manifest.json").read_text())["content"]["best"]


def test_a_run_that_went_back_continues_on_its_new_way(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    save(tmp_path, 15)  # resumed from 10 by hand
    assert_is(checkpoint.latest(tmp_path, no_warning), 15)
    assert steps(tmp_path) == [15, 20, 30]
    save(tmp_path, 25)
    assert_is(checkpoint.latest(tmp_path, no_warning), 25)
    assert steps(tmp_path) == [15, 25, 30]


def test_damaged_ones_do_not_count_among_those_kept(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step)
    os.truncate(tmp_path / "step-00000030" / "weights.safetensors", 9)
    (tmp_path / "step-00000020" / "manifest.json").unlink()
    save(tmp_path, 40, keep=2)
    assert steps(tmp_path) == [10, 20, 30, 40]
    save(tmp_path, 50, keep=2)
    assert steps(tmp_path) == [40, 50]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("step-1", "step-00000001.bak", "notes", "step-00000001.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000002").write_text("a file")
    assert checkpoint.latest(tmp_path, no_warning) is None
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    assert len(os.listdir(tmp_path)) == 5 + 3 + 1


# ---------------------------------------------------------------- damage


def test_none_only_if_there_never_was_one(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "missing", no_warning) is None
    assert checkpoint.latest(tmp_path, no_warning) is None
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*: train first"):
        checkpoint.best(tmp_path, no_warning)
    shutil.rmtree(save(tmp_path, 10))
    with pytest.raises(CheckpointError, match=r"checkpoint step-00000010, named by '.*/latest', is gone"):
        checkpoint.latest(tmp_path, no_warning)


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "harm", [damage, Path.unlink, lambda path: os.truncate(path, 0)], ids=["flip", "gone", "empty"]
)
def test_the_one_before_is_taken_and_the_damaged_file_named(
    tmp_path: Path, part: str, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20, best=True)
    harm(tmp_path / "step-00000020" / part)
    warnings: list[str] = []
    assert_is(checkpoint.latest(tmp_path, warnings.append), 10)
    assert len(warnings) == 1
    assert warnings[0].startswith("checkpoint step-00000020 cannot be used: ")
    assert f"step-00000020/{part}'" in warnings[0]
    assert warnings[0].endswith("; continuing from step-00000010 instead")
    assert_is(checkpoint.latest(tmp_path), 10)
    assert capsys.readouterr().err == f"warning: {warnings[0]}\n"

    warnings.clear()
    assert_is(checkpoint.best(tmp_path, warnings.append), 10)
    assert warnings[-1].startswith("the best checkpoint, step-00000020, cannot be used: ")
    assert warnings[-1].endswith("; using step-00000010 instead")

    save(tmp_path, 20)  # the run comes here again
    assert_is(checkpoint.latest(tmp_path, no_warning), 20)


def test_all_damaged(tmp_path: Path) -> None:
    for step in (10, 20):
        damage(save(tmp_path, step) / "state.json")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.latest(tmp_path, no_warning)
    message = str(caught.value)
    assert message.index("checkpoint step-00000020 cannot be used") < message.index("checkpoint step-00000010 cannot")
    assert message.endswith("restore one from a copy, or start over in another folder")
    assert "\n" not in message


def test_a_checkpoint_that_was_removed_is_missed(tmp_path: Path) -> None:
    save(tmp_path, 10)
    shutil.rmtree(save(tmp_path, 20, best=True))
    warnings: list[str] = []
    assert_is(checkpoint.latest(tmp_path, warnings.append), 10)
    assert len(warnings) == 1
    assert "step-00000020, named by" in warnings[0]
    assert_is(checkpoint.best(tmp_path, warnings.append), 10)
    assert "the best checkpoint, step-00000020, cannot be used: no checkpoint at" in warnings[-1]


@pytest.mark.parametrize(
    "contents", [b"", b"../../etc\n", b"\xff\xfe", b"step-00000010", b"step-00000099999999999999\n"]
)
def test_pointers_are_only_hints(tmp_path: Path, contents: bytes) -> None:
    save(tmp_path, 10, best=True)
    save(tmp_path, 20)
    for pointer in ("latest", "best"):
        (tmp_path / pointer).write_bytes(contents)
    assert_is(checkpoint.latest(tmp_path, lambda _: None), 20)
    if b"999" not in contents:
        assert_is(checkpoint.best(tmp_path, no_warning), 10)


@pytest.mark.parametrize("part", PARTS)
def test_every_flipped_bit_is_noticed(tmp_path: Path, part: str) -> None:
    path = save(tmp_path, 20)
    whole = (path / part).read_bytes()
    for position in range(len(whole)):
        broken = bytearray(whole)
        broken[position] ^= 1 << position % 8
        (path / part).write_bytes(broken)
        with pytest.raises(CheckpointError, match=part):
            checkpoint.load(path)
    (path / part).write_bytes(whole)
    assert_is(checkpoint.load(path), 20)


@pytest.mark.parametrize("part", PARTS)
def test_every_length_that_is_too_short_is_noticed(tmp_path: Path, part: str) -> None:
    path = save(tmp_path, 20)
    for length in reversed(range((path / part).stat().st_size - 1)):  # the last byte of a JSON file is a newline
        os.truncate(path / part, length)
        with pytest.raises(CheckpointError, match=part):
            checkpoint.load(path)


def resigned(path: Path, **changes: Any) -> None:
    """Change a manifest as someone would who knows how."""
    content = {**json.loads((path / "manifest.json").read_text())["content"], **changes}
    whole = {"content": content, "sha256": checkpoint._digest_of(content)}
    (path / "manifest.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "format 'minialex checkpoint' version 2; this minialex reads .* update minialex"),
        ({"format": "other"}, "is of format 'other'"),
        ({"files": {}}, "is not a manifest: KeyError"),
        (
            {"files": {name: {"bytes": float("inf"), "sha256": ""} for name in PARTS}},
            "is not a manifest: OverflowError",
        ),
        ({"step": "x"}, "is not a manifest: ValueError"),
        ({"step": None}, "is not a manifest: TypeError"),
    ],
)
def test_hostile_manifests(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = save(tmp_path, 20)
    resigned(path, **changes)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "text", ["[]", "[" * 100_000, "9" * 10_000, '"' + "a" * checkpoint.JSON_LIMIT + '"', "\x00" * 50]
)
def test_hostile_json(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, 20)
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        checkpoint.load(path)


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at '.*missing': no such folder"):
        checkpoint.load(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"manifest\.json' is missing"):
        checkpoint.load(tmp_path)
    save(tmp_path, 10)
    with pytest.raises(CheckpointError, match="is a folder of checkpoints: name one of them, such as step-00000010"):
        checkpoint.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot read '.*file': Not a directory"):
        checkpoint.latest(tmp_path / "file", no_warning)


def test_what_may_not_be_read_is_not_taken_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 10)

    def refused(*_: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", refused)
    with pytest.raises(ConfigurationError, match=r"cannot read .*: Permission denied: ask its owner"):
        checkpoint.latest(tmp_path, no_warning)


# ---------------------------------------------------------------- safetensors from others


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    """Return a tensor's entry in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def write_safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> None:
    """Write a file with any header and any claim about its length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


HOSTILE: dict[str, tuple[object, bytes, int | None, str]] = {
    "huge header": (
        {},
        b"",
        2**63,
        "not a safetensors file, or cut short: it has 10 bytes and says .* 9223372036854775808",
    ),
    "header beyond the end": ({}, b"", 3, "not a safetensors file, or cut short"),
    "header of nothing": ({}, b"", 0, "not a safetensors file, or cut short"),
    "header beyond the limit": (
        b"{" + b" " * 2**20 + b"}",
        b"",
        None,
        "1048578 bytes, and no more than 1048576 are read",
    ),
    "not JSON": (b"{nope", b"", None, "cannot be read as safetensors: .*invalid JSON"),
    "a list": ([], b"", None, "cannot be read as safetensors"),
    "not UTF-8": (b'{"\xff": 1}', b"", None, "cannot be read as safetensors"),
    "nested deeply": (b'{"a":' + b"[" * 100_000, b"", None, "cannot be read as safetensors"),
    "overlap": ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, bytes(4), None, "invalid offset for tensor"),
    "partial overlap": ({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12), None, "invalid offset for tensor"),
    "hole": ({"a": entry(4, 8, [1])}, bytes(8), None, "invalid offset for tensor"),
    "backwards": ({"a": entry(4, 0, [1])}, bytes(4), None, "invalid offset for tensor"),
    "negative shape": ({"a": entry(0, 4, [-1])}, bytes(4), None, "cannot be read as safetensors"),
    "shape too large": ({"a": entry(0, 4, [2**40, 2**40])}, bytes(4), None, "overflow"),
    "empty and too large": ({"a": entry(0, 0, [0, 2**62, 2**62])}, b"", None, "array is too big"),
    "shape of another size": ({"a": entry(0, 4, [3])}, bytes(4), None, "cannot be read as safetensors"),
    "too many axes": ({"a": entry(0, 4, [1] * 100)}, bytes(4), None, "maximum supported dimension"),
    "cut short": ({"a": entry(0, 4, [1])}, bytes(3), None, "incomplete metadata"),
    "trailing bytes": ({"a": entry(0, 4, [1])}, bytes(9), None, "not fully covered"),
    "a type NumPy has not": ({"a": entry(0, 2, [2], "F8_E5M2")}, bytes(2), None, "float8|F8_E5M2"),
    "a type nobody has": ({"a": entry(0, 4, [1], "Q7")}, bytes(4), None, "unknown variant"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_safetensors(tmp_path: Path, case: str) -> None:
    header, data, length, words = HOSTILE[case]
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, header, data, length)
    with pytest.raises(CheckpointError, match=words) as caught:
        safetensors.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_safetensors_that_are_no_file_of_that_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match=r"a\.safetensors' is missing"):
        safetensors.read(path)
    for contents in (b"", b"1234567", b"\x80\x04\x95" * 100):
        path.write_bytes(contents)
        with pytest.raises(CheckpointError, match="not a safetensors file, or cut short"):
            safetensors.read(path)
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        safetensors.read(tmp_path)


def test_random_damage_to_a_header_never_escapes(tmp_path: Path) -> None:
    path = save(tmp_path, 20) / "weights.safetensors"
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    generator = np.random.default_rng(0)
    caught = 0
    for _ in range(500):
        broken = bytearray(whole)
        for position in generator.integers(0, header, size=generator.integers(1, 4)):
            broken[position] = generator.integers(0, 256)
        path.write_bytes(broken)
        try:
            found = safetensors.read(path)
        except CheckpointError:
            caught += 1
        else:
            assert sum(tensor.nbytes for tensor in found.values()) == len(whole) - header
    assert caught > 250  # the others changed only a name, or a shape for one of the same size


# ---------------------------------------------------------------- another network


SHAPES: dict[str, tuple[int, ...]] = {"conv1.weight": (4, 3), "conv1.bias": (4,)}


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("conv1.bias", None, "RUN: tensor 'conv1.bias' is missing: these are the weights of another network"),
        ("fc8.bias", np.zeros(2, np.float32), "RUN: tensor 'fc8.bias' is not in this network: .* another network"),
        ("conv1.bias", np.zeros(5, np.float32), r"'conv1.bias' has shape \(5,\), this network's has \(4,\)"),
        (
            "conv1.weight",
            np.zeros((3, 4), np.float32),
            r"'conv1.weight' has shape \(3, 4\), this network's has \(4, 3\)",
        ),
        ("conv1.bias", np.zeros(4, np.float16), "'conv1.bias' is float16, should be float32 or float64"),
        ("conv1.bias", np.zeros(4, np.int32), "'conv1.bias' is int32, should be float32 or float64"),
        ("conv1.bias", np.array([0, np.nan, 0, 0], np.float32), "'conv1.bias' has 1 of 4 values that are not finite"),
        ("conv1.bias", np.array([0, np.nan, -np.inf, 0]), "'conv1.bias' has 2 of 4 values that are not finite"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(name: str, tensor: Any, words: str) -> None:
    found: Tensors = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    checkpoint.check_against(found, SHAPES, "RUN")
    if tensor is None:
        del found[name]
    else:
        found[name] = tensor
    with pytest.raises(CheckpointError, match=words):
        checkpoint.check_against(found, SHAPES, "RUN")


def test_the_dtype_may_be_asked_for() -> None:
    found: Tensors = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    checkpoint.check_against(found, SHAPES, "RUN", dtype="float32")
    with pytest.raises(CheckpointError, match=r"tensor 'conv1\.weight' is float32, should be float64"):
        checkpoint.check_against(found, SHAPES, "RUN", dtype=np.dtype(np.float64))


# ---------------------------------------------------------------- saves that fail


def test_a_full_disk_leaves_the_checkpoints_that_were_there(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    for step in (10, 20):
        save(folder, step, best=step == 10)
    before = sorted(folder.rglob("*"))
    large = {"fc6.weight": np.zeros(150_000, np.float32)}
    with pytest.raises(ResourceError) as caught:
        checkpoint.save(folder, 30, large, large, {}, keep=2)
    assert str(caught.value).startswith(f"cannot write '{folder}/step-00000030': the disk is full: 1.2 MB needed, ")
    assert " 1.0 MB free; make room there, or choose another disk" in str(caught.value)
    assert sorted(folder.rglob("*")) == before
    assert_is(checkpoint.latest(folder, no_warning), 20)
    save(folder, 30, keep=2)  # a small one fits, since nothing of the large one is left
    assert_is(checkpoint.latest(folder, no_warning), 30)


def test_a_disk_that_is_full_at_every_possible_place(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    weights = {"a": np.arange(3000, dtype=np.float32)}
    checkpoint.save(folder, 10, weights, weights, {})
    outcomes = set()
    for free in range(0, 60_000, 4096):
        available = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        (small_disk / "ballast").write_bytes(bytes(max(0, available - free)))
        outcome = "saved"
        try:
            checkpoint.save(folder, 20, weights, weights, {})
        except ResourceError as error:
            said = str(error)
            outcome = re.sub(r"^.*: (the disk is full): .* free; .*$", r"\1", said)
            figures = re.findall(r"([\d.]+) (kB|bytes) (?:needed|free)", said)
            needed, left = (float(number) * {"kB": 1000, "bytes": 1}[unit] for number, unit in figures)
            assert needed > left, "what is said to be free is not enough"
        outcomes.add(outcome)
        (small_disk / "ballast").unlink()
        found = checkpoint.latest(folder, no_warning)
        assert found is not None
        np.testing.assert_array_equal(found.weights["a"], weights["a"])
        if (folder / "step-00000020").exists():
            shutil.rmtree(folder / "step-00000020")
            atomic.write_text(folder / "latest", "step-00000010\n")
    assert outcomes == {"saved", "the disk is full"}


def calls_of_a_save(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, fail_at: int) -> int:
    """Save with the n-th of one kind of call failing with an I/O error; return how many calls there were."""
    count = 0
    original = getattr(io.FileIO if call == "write" else os, call)

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == fail_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        if call == "write":
            kind = type("Counted", (io.FileIO,), {"write": counted})
            patch.setattr(atomic, "open", lambda path, mode, buffering: kind(path, mode), raising=False)
        else:
            patch.setattr(os, call, counted)
        save(folder, 30, keep=2)
    return count


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "replace"])
def test_an_io_error_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def prepared() -> Path:
        folder = tmp_path / "checkpoints"
        shutil.rmtree(folder, ignore_errors=True)
        for step in (10, 20, 30):
            save(folder, step, best=step == 10)
        return folder

    total = calls_of_a_save(prepared(), monkeypatch, call, 0)
    assert total >= 1
    for number in range(1, total + 1):
        folder = prepared()
        with pytest.raises(
            ResourceError, match=r"the disk reports an error \(Input/output error\): .* free; check the disk"
        ):
            calls_of_a_save(folder, monkeypatch, call, number)
        assert not [name for name in os.listdir(folder) if name.startswith(".tmp-") and "removed" not in name]
        assert_is(checkpoint.latest(folder, no_warning), 30)
        assert_is(checkpoint.best(folder, no_warning), 10)
        save(folder, 40, keep=2)
        assert steps(folder) == [10, 30, 40]


def test_ctrl_c_within_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 10)

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 20)
    assert steps(tmp_path) == [10]
    assert_is(checkpoint.latest(tmp_path, no_warning), 10)


def test_everything_is_synced_in_the_order_that_a_power_cut_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    for step in (10, 20):
        save(folder, step)
    events: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        original = getattr(os, name)

        def wrapper(first: Any, *rest: Any, **options: Any) -> Any:
            path = Path(os.readlink(f"/proc/self/fd/{first}")) if name == "fsync" else Path(first)
            events.append(f"{name} {path.relative_to(folder)}")
            return original(first, *rest, **options)

        return wrapper

    for name in ("fsync", "rename", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    save(folder, 30, keep=2, best=True)
    temporary = ".tmp-0-step-00000030"
    assert events == [
        *(f"fsync {temporary}/{part}" for part in PARTS),
        f"fsync {temporary}",
        f"rename {temporary}",
        "fsync .",
        "fsync .tmp-0-best",
        "replace .tmp-0-best",
        "fsync .",
        "fsync .tmp-0-latest",
        "replace .tmp-0-latest",
        "fsync .",
        "rename step-00000010",  # what is old goes last
    ]


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(CheckpointError, MinialexError)
    assert (CheckpointError.exit_code, ResourceError.exit_code, ConfigurationError.exit_code) == (4, 6, 2)

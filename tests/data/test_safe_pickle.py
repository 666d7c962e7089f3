"""The pickle reader: what data needs is read as Python reads it, everything else is refused and nothing is run."""

import codecs
import contextlib
import os
import pickle
import pickletools
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minialex.data.sets import safe_pickle
from minialex.errors import DataError

PLAIN = {b"labels": [0, 9, 255, 256, 70000, -5], b"text": b"\x00\xff\x80", "words": ("a", "é", None, True, 1.5), 3: {}}


def same(a, b):
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


def python_2_batch(pixels, labels):
    """The bytes that Python 2 with an old NumPy writes for a batch: how the official archive was made."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    content = pixels.tobytes()
    shape = b"".join(b"J" + struct.pack("<i", n) for n in pixels.shape) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01" + shape
        + b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(content)) + content + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([n]) for n in labels) + b"e"
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"training batch 1 of 5") + text(b"labels") + numbers
        + text(b"data") + array + b"u."
    )  # fmt: skip


def test_plain_values_are_read_as_python_reads_them():
    assert safe_pickle.loads(pickle.dumps(PLAIN, 2), "test") == PLAIN


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(order):
    array = np.asarray(np.arange(60, dtype=np.uint8).reshape(5, 12) * 4, order=order)
    values = {b"data": array, b"empty": np.zeros((0, 3), np.uint8), b"n": 1}
    read = safe_pickle.loads(pickle.dumps(values, 2), "test")
    assert read.keys() == values.keys()
    assert all(same(read[key], values[key]) for key in values)


def test_a_batch_of_python_2():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    data = python_2_batch(pixels, [1, 2, 3])
    read = safe_pickle.loads(data, "test")
    assert {key: value for key, value in read.items() if key != b"data"} == {
        b"batch_label": b"training batch 1 of 5", b"labels": [1, 2, 3]}  # fmt: skip
    assert same(read[b"data"], pixels)
    oracle = pickle.loads(data, encoding="bytes")
    assert same(oracle[b"data"], read[b"data"])
    assert oracle[b"labels"] == read[b"labels"]


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.binary(), inner),
))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_any_plain_value(value):
    assert safe_pickle.loads(pickle.dumps(value, 2), "test") == value


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments, state)

    def __reduce__(self):
        return self.parts if self.parts[2] is not None else self.parts[:2]


def touch(path):
    """What a hostile pickle does; the test looks for the file."""
    open(path, "w").close()


def hostile(marker):
    """Name -> pickle that creates the file `marker` (or would do harm) when Python's own reader loads it."""
    code = f"open({marker!r}, 'w').close()"
    calls = {
        "os.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, code),
        "builtins.exec": Call(exec, code),
        "builtins.open": Call(open, marker, "w"),
        "os.mkdir": Call(os.mkdir, marker),
        "a function of a module": Call(touch, marker),
        "nested in a value": {b"data": [({"deep": Call(eval, code)},)]},
        "nested in an argument": Call(codecs.encode, Call(eval, code), "latin1"),
        "getattr": Call(getattr, "".__class__, "__mro__"),
        "an array's state": Call(np.zeros(1).__reduce__()[0], np.ndarray, (0,), b"b", state=(Call(eval, code),)),
        "an array of objects": np.array([Call(eval, code)], object),
        "a codec of its own": Call(codecs.encode, "abc", "rot13"),
        "numpy.load": Call(np.load, marker, None, True),
        "an array without bounds": Call(np.zeros, (1 << 40,)),
        "a big ndarray": Call(np.ndarray, (1 << 40,)),
        "a big reconstruct": Call(np.zeros(1).__reduce__()[0], np.ndarray, (1 << 40,), b"b"),
        "a long integer": 1 << 70,
        "a very long integer": 1 << 3000,
        "bytearray": Call(bytearray, 1 << 40),
    }
    by_hand = {
        "INST": b"(S'%s'\nios\nsystem\n." % f"touch {marker}".encode(),
        "OBJ": b"(cos\nsystem\nU\x05touch" + b"o.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05touch\x85R.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n)\x81.",
        "PERSID": b"Pabc\n.",
        "BINPERSID": b"K\x01Q.",
        "EXT1": b"\x82\x01.",
        "a call of what a call returns": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1tR)R.",
        "REDUCE of text": b"U\x02os)R.",
        "BUILD of a dictionary": b"}}b.",
        "unhashable key": b"}](K\x01eK\x02s.",
        "deep tuple as a key": b"})" + b"\x85" * 200_000 + b"K\x01s.",
        "dotted name": b"c_codecs\nencode.__self__\nU\x02os\x85R.",
        "protocol 5": pickle.dumps(PLAIN, 5),
        "an escape in a name": b"c_codecs\n\\u\n.",
        "text number": b"I" + b"9" * 4000 + b"\n.",
    }
    # Modules' real names (os is posix) are what pickle writes; both are refused.
    return {**{name: pickle.dumps(value, 2) for name, value in calls.items()}, **by_hand}


@pytest.mark.parametrize("name", hostile("x"))
def test_hostile_pickles_are_refused_and_run_nothing(name, tmp_path, capfd):
    marker = tmp_path / "ran"
    with pytest.raises(DataError, match="some file"):
        safe_pickle.loads(hostile(str(marker))[name], "some file")
    assert not marker.exists()
    assert capfd.readouterr() == ("", "")


def test_the_hostile_pickles_are_truly_hostile(tmp_path):
    # With Python's own reader the markers appear: the test above would notice a reader that runs them.
    for name in ("os.system", "builtins.eval", "nested in an argument", "an array of objects"):
        marker = tmp_path / name.replace(" ", "-")
        try:
            pickle.loads(hostile(str(marker))[name])
        except Exception as error:  # the call has been made all the same
            assert not isinstance(error, pickle.UnpicklingError)  # noqa: PT017
        assert marker.exists()


BOMBS = {
    "memo index": b"]r\xff\xff\xff\x7f.",
    "text longer than the file": b"X\xff\xff\xff\x7fabc.",
    "bytes longer than the file": b"T\xff\xff\xff\x7fabc.",
    "negative length": b"T\xff\xff\xff\xffabc.",
    "bytes of 8 bytes' length": b"\x8e" + b"\xff" * 7 + b"\x7fabc.",
    "one text encoded again and again": (
        b"\x80\x02(X\x00\x00\x10\x00" + b"a" * (1 << 20) + b"q\x00c_codecs\nencode\nq\x01X\x06\x00\x00\x00latin1q\x02"
        + b"h\x01h\x00h\x02\x86R" * 1000 + b"t."
    ),
    "an array without its bytes": pickle.dumps(np.zeros((1, 8), np.uint8), 2).replace(b"K\x08", b"K\xff"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(name):
    tracemalloc.start()
    try:
        try:
            safe_pickle.loads(BOMBS[name], "test")
        except DataError:
            pass
        else:
            assert name == "memo index"  # harmless here: the memo is a dictionary
        assert tracemalloc.get_traced_memory()[1] < 20 * len(BOMBS[name]) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_pickle_cut_short_anywhere_is_an_error():
    data = pickle.dumps({b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2, 300]}, 2)
    safe_pickle.loads(data, "test")
    for length in range(len(data)):
        with pytest.raises(DataError):
            safe_pickle.loads(data[:length], "test")
    with pytest.raises(DataError):
        safe_pickle.loads(data + b"x", "test")


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_pickle_gives_plain_values_or_an_error(data):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 12)
    whole = python_2_batch(pixels, [1, 2]) if data.draw(st.booleans()) else pickle.dumps({b"d": pixels, b"l": [1]}, 2)
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = safe_pickle.loads(bytes(damaged), "test")
    except DataError:
        return
    assert type(value).__module__ in ("builtins", "numpy", "minialex.data.sets.safe_pickle")


@given(
    st.lists(st.sampled_from([bytes([i]) for i in range(256)] + [b"cos\nsystem\n", b"K\x01", b"(", b"]", b"}", b")"]))
)
@settings(max_examples=400, deadline=None)
def test_random_programs_give_plain_values_or_an_error(pieces):
    with contextlib.suppress(DataError):
        safe_pickle.loads(b"".join(pieces) + b".", "test")


def test_instructions_that_data_needs_are_the_only_ones():
    needed = {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1",
              "BINFLOAT", "BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "EMPTY_DICT",
              "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM",
              "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "GLOBAL", "REDUCE", "BUILD"}  # fmt: skip
    for opcode in pickletools.opcodes:
        argument = b"I1\n" if opcode.code == "I" else b"1\n1\n" + bytes(16)
        with pytest.raises(DataError) as caught:
            safe_pickle.loads(opcode.code.encode("latin-1") + argument + b".", "test")
        if f"instruction {opcode.name};" in str(caught.value):
            assert opcode.name not in needed
        else:
            assert opcode.name in needed or "not a complete pickle" in str(caught.value)

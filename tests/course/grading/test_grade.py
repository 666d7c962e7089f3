"""`minialex grade` as a teacher runs it: a command, its table, its exit code, its JSON file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from minialex.cli.app import run as minialex

GOOD = """
import numpy as np

def relu(x):
    return np.maximum(x, 0)

def relu_backward(dy, y):
    return np.where(y > 0, dy, np.zeros_like(dy))
"""


@pytest.fixture
def grade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Writes files, grades one in a folder of its own, and returns the exit code, what was printed, and the JSON."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def graded(files: dict[str, str], *options: str, examples: int = 20) -> tuple[int, str, dict[str, Any]]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        target = [] if options and not options[0].startswith("--") else [next(iter(files))]
        code = minialex(["grade", *target, *options, "--examples", str(examples), "--json", "grade.json"])
        told = json.loads((tmp_path / "grade.json").read_text()) if (tmp_path / "grade.json").exists() else {}
        captured = capsys.readouterr()
        return code, captured.out + captured.err, told

    return graded


def statuses(told: dict[str, Any]) -> dict[str, str]:
    return {row["operation"]: row["status"] for row in told["operations"] if row["status"] != "not theirs"}


# ---- what passes ----------------------------------------------------------------------------------------------


def test_a_file_with_two_right_operations_passes(grade: Any) -> None:
    code, text, told = grade({"anna.py": GOOD}, "--points", "5")
    assert code == 0
    assert statuses(told) == {"relu": "passed", "relu_backward": "passed"}
    assert "2 of 2 operations passed: 5 of 5 points" in text
    assert "not theirs (filled in by the NumPy reference): conv2d, conv2d_backward" in text
    assert told["good"] is True
    assert told["completed_by"] == "numpy"
    assert (told["points"], told["of_points"]) == (5, 5)
    assert all(row["examples"] >= 30 for row in told["operations"] if row["status"] == "passed")
    assert next(row for row in told["operations"] if row["operation"] == "relu")["place"] == "anna.py:4"


@pytest.mark.parametrize("name", ["numpy", "minialex_numpy", "minialex_numpy:NumpyBackend"])
def test_the_reference_passes_under_any_of_its_names(grade: Any, name: str) -> None:
    code, text, told = grade({}, name, "--only", "relu,conv2d,to_device", examples=10)
    assert code == 0, text
    assert statuses(told) == {"relu": "passed", "conv2d": "passed", "to_device": "passed"}
    assert told["completed_by"] is None


def test_a_whole_backend_is_asked_everything(grade: Any) -> None:
    code, text, told = grade({}, "numpy", examples=3)
    assert code == 0, text
    assert {"signatures", "memory_in_use", "sgd_update", "compile_step"} <= set(statuses(told))
    assert set(statuses(told).values()) == {"passed"}


@pytest.mark.parametrize(
    "text",
    [
        "class Mine:\n    def relu(self, x):\n        return np.maximum(x, 0)\n",
        "class Mine:\n    @staticmethod\n    def relu(x):\n        return np.maximum(x, 0)\n",
        "class Mine:\n    relu = operation(lambda x: np.maximum(x, 0))\n",
        "class Mine(Backend):\n    name = 'mine'\n    def relu(self, x):\n        return np.maximum(x, 0)\n",
    ],
    ids=["method", "static method", "operation", "of the protocol"],
)
def test_a_class_with_one_operation(grade: Any, text: str) -> None:
    head = "import numpy as np\nfrom minialex.backend.protocol import Backend\n"
    head += "from minialex.backend.pretend import operation\n"
    code, out, told = grade({"ben.py": head + text})
    assert code == 0, out
    assert statuses(told) == {"relu": "passed"}


def test_what_is_inherited_from_a_backend_is_not_theirs(grade: Any) -> None:
    text = "import numpy as np\nfrom minialex_numpy import NumpyBackend\n\n"
    text += "class Mine(NumpyBackend):\n    def relu(self, x):\n        return np.maximum(x, 0)\n"
    code, out, told = grade({"ben.py": text})
    assert code == 0, out
    assert statuses(told) == {"relu": "passed"}
    assert told["completed_by"] == "numpy"


def test_a_folder_of_files_without_an_init(grade: Any) -> None:
    tanh = "import numpy as np\nfrom helpers import square\n\ndef tanh(x):\n    return np.tanh(x)\n"
    tanh += "\ndef tanh_backward(dy, y):\n    return dy * (1 - square(y))\n"
    files = {"carla/relu.py": GOOD, "carla/tanh.py": tanh, "carla/helpers.py": "def square(x):\n    return x * x\n"}
    code, text, told = grade(files, "carla")
    assert code == 0, text
    assert statuses(told) == dict.fromkeys(("relu", "relu_backward", "tanh", "tanh_backward"), "passed")
    assert {row["place"] for row in told["operations"] if "tanh" in row["operation"]} == {"tanh.py:4", "tanh.py:7"}


def test_an_importable_package_in_the_current_folder(grade: Any) -> None:
    files = {"theirs/__init__.py": "from theirs.rectifier import relu\n", "theirs/rectifier.py": GOOD}
    code, text, told = grade(files, "theirs.rectifier", "--only", "relu")
    assert code == 0, text
    assert statuses(told) == {"relu": "passed"}


def test_a_file_called_like_a_library_takes_nobodys_place(grade: Any) -> None:
    code, text, told = grade({"numpy.py": "import numpy as np\nassert np.zeros\n" + GOOD}, "./numpy.py")
    assert code == 0, text
    assert statuses(told) == {"relu": "passed", "relu_backward": "passed"}


def test_grades_do_not_change(grade: Any) -> None:
    def without_time(told: dict[str, Any]) -> Any:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in told["operations"]]

    files = {"dora.py": GOOD.replace("np.maximum(x, 0)", "np.where(x > -1, x, 0 * x)")}
    first, again, other = grade(files), grade(files), grade(files, "--seed", "7")
    assert without_time(first[2]) == without_time(again[2])
    assert other[0] == first[0] == 1
    assert other[2]["seed"] == 7


# ---- what fails -----------------------------------------------------------------------------------------------


def test_the_smallest_failing_call_is_shown(grade: Any) -> None:
    code, text, told = grade({"eve.py": GOOD.replace("np.maximum(x, 0)", "np.abs(x)")})
    assert code == 1
    row = next(row for row in told["operations"] if row["operation"] == "relu")
    assert row["status"] == "failed"
    example = row["example"]
    assert example["arguments"]["x"]["shape"] == [1]
    (x,) = example["arguments"]["x"]["values"]
    assert x < 0
    assert example["expected"]["values"] == [0]
    assert example["got"]["values"] == [-x]
    assert example["differs_at"] == [[0]]
    for words in ("relu(x)", f"float32 (1,)  [{x:.0f}.]", "expected", "got", "differs at  [0]"):
        assert words in text
    assert "1 of 2 operations passed" in text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("raise NotImplementedError", "stub", "stub"),
        ("pass", "stub", "stub"),
        ("return None", "stub", "stub"),
        ("return x", "failed", "'y' differs from the reference"),
        ("return np.zeros_like(x)", "failed", "'y' differs from the reference"),
        ("x[x < 0] = 0\n    return x", "failed", "wrote into its argument 'x'"),
        ("return np.maximum(x, 0).astype('complex128')", "failed", "complex128"),
        ("return [][1]", "failed", "at work.py:4"),
        ("return np.random.default_rng().random(x.shape).astype(x.dtype)", "failed", "'y' differs"),
        ("import sys\n    sys.exit(0)", "failed", "raised SystemExit: 0"),
        ("import os\n    os._exit(0)", "crashed", "ended the process (exit code 0)"),
        ("import os\n    os.abort()", "crashed", "ended the process (SIGABRT)"),
        ("return relu(x)", "failed", "RecursionError"),
        ("return np.zeros(2**40, np.float32)[:0]", "failed", "MemoryError"),
    ],
)
def test_wrong_operations(grade: Any, body: str, status: str, words: str) -> None:
    code, text, told = grade({"work.py": f"import numpy as np\n\ndef relu(x):\n    {body}\n"})
    assert code == 1
    assert statuses(told) == {"relu": status}
    assert words in text
    assert "Traceback" not in text
    assert "0 of 1 operations passed" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def relu(x:\n", "work.py:1: SyntaxError"),
        ("import math\n\nx = 1 / 0\n", "work.py:3: ZeroDivisionError: division by zero"),
        ("import no_such_library\n", "work.py:1: ModuleNotFoundError: No module named 'no_such_library'"),
        ("import sys\nsys.exit('bye')\n", "work.py:2: SystemExit: bye"),
        ("while True:\n    pass\n", "importing it did not end within 3 s"),
        ("import os\nos._exit(9)\n", "importing it ended the process (exit code 9)"),
    ],
)
def test_what_cannot_be_imported(grade: Any, text: str, words: str) -> None:
    code, out, told = grade({"work.py": text}, "--timeout", "3")
    assert code == 1
    assert words in " ".join(out.split())
    assert "Traceback" not in out
    assert told["good"] is False


def test_a_class_that_cannot_be_built(grade: Any) -> None:
    text = "class Mine:\n    def __init__(self, device): pass\n    def relu(self, x): return x\n"
    code, out, told = grade({"work.py": text})
    assert code == 1
    assert "cannot be used: TypeError: Mine.__init__() missing 1 required positional argument: 'device'" in out
    assert statuses(told) == {}


def test_one_bad_file_of_a_folder_does_not_hide_the_others(grade: Any) -> None:
    code, text, told = grade({"fred/relu.py": GOOD, "fred/tanh.py": "def tanh(x)\n"}, "fred")
    assert code == 1
    assert "cannot be used: tanh.py:1: SyntaxError" in text
    assert statuses(told) == {"relu": "passed", "relu_backward": "passed"}


def test_an_endless_loop_costs_one_operation(grade: Any) -> None:
    loop = "import numpy as np\n\ndef relu(x):\n    while x.size:\n        pass\n" + GOOD.partition("0)\n")[2]
    began = time.monotonic()
    code, text, told = grade({"gus.py": loop}, "--timeout", "2")
    assert time.monotonic() - began < 30
    assert code == 1
    assert statuses(told) == {"relu": "out of time", "relu_backward": "passed"}
    assert "did not end within 2 s of processor time in example 1" in " ".join(text.split())


def test_when_the_time_is_up_while_the_example_is_made_smaller_it_is_shown_as_it_is(grade: Any) -> None:
    slow = "import time\n\ndef relu(x):\n    end = time.process_time() + 0.3\n"
    slow += "    while time.process_time() < end:\n        pass\n    return 2 * x\n"
    code, text, told = grade({"hal.py": slow}, "--timeout", "0.5")
    assert code == 1
    row = next(row for row in told["operations"] if row["operation"] == "relu")
    assert row["status"] == "failed"
    assert row["example"]["got"]["values"]
    assert "the example could be smaller: the calls were too slow to search for one" in text


def test_a_slow_operation_that_is_right_passes_with_fewer_examples_of_all_kinds(grade: Any) -> None:
    slow = "import time\nimport numpy as np\n\ndef relu(x):\n    end = time.process_time() + 0.1\n"
    slow += "    while time.process_time() < end:\n        pass\n    return np.maximum(x, 0)\n"
    code, text, told = grade({"hal.py": slow}, "--timeout", "0.3")
    assert code == 0
    row = next(row for row in told["operations"] if row["operation"] == "relu")
    assert 8 <= row["examples"] <= 20
    (remark,) = row["remarks"]
    assert remark.startswith(f"slow: {row['examples']} of ")
    assert remark in " ".join(text.split())


def test_a_result_of_another_float_is_rounded_and_said_but_not_to_a_backends_author(grade: Any) -> None:
    files = {"wide.py": GOOD.replace("np.maximum(x, 0)", "np.maximum(x, 0).astype('float64')")}
    code, text, told = grade(files)
    assert code == 0
    assert "relu: a result of dtype float64 was taken as float32, the dtype of the arguments" in " ".join(text.split())
    code, text, told = grade(files, "--strict")
    assert statuses(told) == {"relu": "failed", "relu_backward": "passed"}


def test_closed_streams_and_empty_input_are_the_students_matter(grade: Any) -> None:
    text = GOOD.replace("    return np.maximum", "    import sys\n    sys.stdout.close()\n    return np.maximum")
    text = text.replace("    return np.where", "    input()\n    return np.where")
    code, out, told = grade({"jo.py": text})
    assert code == 1
    assert statuses(told) == {"relu": "passed", "relu_backward": "failed"}
    assert "EOFError" in out


def test_what_is_printed_is_kept_apart(grade: Any) -> None:
    noisy = GOOD.replace(
        "    return np.maximum", '    print(\'{"kind": "result"}\', flush=True)\n    return np.maximum'
    )
    code, text, told = grade({"ida.py": noisy, "x": ""})
    assert code == 0
    (remark,) = next(row for row in told["operations"] if row["operation"] == "relu")["remarks"]
    assert remark.startswith("printed ")
    assert remark in text


@pytest.mark.parametrize(
    "text",
    [
        "from minialex_numpy.relu import relu\n",
        "from minialex_numpy.relu import relu as theirs\n\ndef relu(x):\n    return theirs(x)\n",
        "from minialex.backend import registry\nb = registry.load('numpy')\n\n"
        "def relu(x):\n    return b.to_numpy(b.relu(b.to_device(x, 'cpu:0')))\n",
        "from minialex_numpy import NumpyBackend\n\nclass Mine:\n    relu = vars(NumpyBackend)['relu']\n",
    ],
    ids=["imported", "called", "through the registry", "in a class"],
)
def test_what_is_borrowed_is_said_and_does_not_pass(grade: Any, text: str) -> None:
    code, out, told = grade({"kim.py": text})
    assert code == 1
    assert statuses(told) == {"relu": "borrowed"}
    assert "minialex_numpy.relu" in out


def test_another_library_is_named(grade: Any) -> None:
    text = "from PIL import Image\n" + GOOD.replace("return np.max", "Image.new('L', (1, 1))\n    return np.max")
    code, out, _ = grade({"lea.py": text})
    assert code == 0
    assert "relu: uses PIL" in out


def test_the_parameters_are_the_protocols(grade: Any) -> None:
    code, text, told = grade({"max.py": "def linear(x, weights, b):\n    return x @ weights.T + b\n"})
    assert code == 1
    assert statuses(told) == {"linear": "failed"}
    assert "'linear' takes (x, weights, b), expected (x, w, b)" in text


def test_an_operation_that_is_asked_for_and_not_there_is_missing(grade: Any) -> None:
    code, text, told = grade({"nina.py": GOOD}, "--only", "relu,conv2d", "--points", "10")
    assert code == 1
    assert statuses(told) == {"relu": "passed", "conv2d": "missing"}
    assert "1 of 2 operations passed: 5 of 10 points" in text


def test_nothing_in_it(grade: Any) -> None:
    code, text, _ = grade({"olga.py": "def rectifier(x):\n    return x\n"})
    assert code == 1
    assert "no operation found" in text


# ---- usage ----------------------------------------------------------------------------------------------------

TWO = "class A:\n    def relu(self, x): ...\n\nclass B:\n    def relu(self, x): ...\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("nothing.py",), "'nothing.py' is neither a folder nor a .py file"),
        (("numppy",), "Did you mean 'numpy'?"),
        (("numpy", "--only", "rellu"), "the protocol has no operation 'rellu'. Did you mean 'relu'?"),
        (("minialex_numpy:Nothing",), "minialex_numpy has no class 'Nothing'"),
        (("./two.py",), "several classes have operations (A, B)"),
        (("numpy", "--new", "folder"), "give one of these"),
    ],
)
def test_usage_errors(grade: Any, options: tuple[str, ...], words: str) -> None:
    code, text, _ = grade({"two.py": TWO}, *options)
    assert code == 2
    assert words in text
    assert text.startswith("error: ")


def test_without_hypothesis_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("minialex.cli.grade.find_spec", lambda name: None)
    assert minialex(["grade", "numpy"]) == 2
    assert 'pip install "minialex[conformance]"' in capsys.readouterr().err

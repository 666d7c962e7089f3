"""Source code that pages show: whole functions, and the lines of a function that belong to one equation."""

from __future__ import annotations

import pytest

from minialex.course.sources import source
from minialex.errors import ConfigurationError


def copy(x: list[int], out: list[int]) -> None:
    out[:] = x


def example(x: list[int], out: list[int]) -> int:
    total, kept = 0, [0]
    for value in x:
        total += value  # a remark
        kept[0] = max(
            value,
            total,
        )
    copy(x, out=out)
    return total + kept[0]


def test_the_statements_that_set_a_variable_in_order_without_loops_and_remarks() -> None:
    where = f"{__name__}.example"
    assert source(f"{where}.total") == "total, kept = 0, [0]\ntotal += value\n"
    assert source(f"{where}.kept").startswith("total, kept = 0, [0]\nkept[0] = max(\n")
    assert source(f"{where}.out") == "copy(x, out=out)\n"
    assert source(f"{where}.return") == "return total + kept[0]\n"


@pytest.mark.parametrize("name", ["example.value", "example.nothing", "nothing", "nothing.total", "pytest.x", "return"])
def test_what_is_not_there_is_said(name: str) -> None:
    with pytest.raises(ConfigurationError, match="nothing has that name"):
        source(f"{__name__}.{name}")


def test_the_gradients_that_chapters_derive() -> None:
    backward = "minialex_numpy.conv2d.conv2d_backward"
    assert source(f"{backward}.db") == "db = dy.sum(axis=(0, 2, 3))\n"
    assert source(f"{backward}.dx").endswith("+= back[:, r, s]\n")

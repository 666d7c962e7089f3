"""Operations that a submission registers are graded beside the protocol's: values, rules, and the gradient."""

from pathlib import Path

from minialex.course.grading.process import Limits, grade
from minialex.course.grading.result import PASSED

ANNA = """
from minialex.backend.operations import register

def leaky(xp, x, *, slope):
    return xp.where(x > 0, x, slope * x)

def leaky_backward(xp, dy, x, *, slope):
    return xp.where(x > 0, dy, 0 * dy)

def square(xp, x):
    return x * x

def square_backward(xp, dy, x):
    return 2 * x * dy

def written(xp, x):
    x += 1
    return x

register("leaky", leaky, leaky_backward, examples=[([(2, 3)], {"slope": 0.1})])
register("square", square, square_backward, examples=[([(2, 3)], {})])
register("written", written, square_backward, examples=[([(2, 3)], {})])
register("untried", square, square_backward)
"""


def test_they_are_graded(tmp_path: Path) -> None:
    (tmp_path / "anna.py").write_text(ANNA, encoding="utf-8")
    found = grade(str(tmp_path / "anna.py"), limits=Limits(examples=10))
    results = {result.operation: result for result in found.counted}
    assert list(results) == ["leaky", "leaky_backward", "square", "square_backward", "written", "written_backward"]
    passed = [name for name, result in results.items() if result.status == PASSED]
    assert passed == ["leaky", "square", "square_backward"]
    assert "its gradient of 'x' (2, 3) is" in results["leaky_backward"].message
    assert "wrote into its argument 'x'" in results["written"].message
    assert results["leaky"].place == "anna.py:4"

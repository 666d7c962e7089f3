"""The exercises: right answers pass, wrong ones fail with words that help, placeholders are no answer."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from minialex.course import checks as check
from minialex.course.checks import feedback
from minialex.course.checks.feedback import Feedback, NotAnswered, NotYet

HERE = Path(__file__).parent
NOTEBOOKS = HERE.parents[2] / "notebooks"
SOURCES = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
CHECKS = {name for name in vars(check) if not name.startswith("_") and callable(getattr(check, name))} - {"Feedback"}


def solutions(name):
    path = NOTEBOOKS / "solutions" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"solutions_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOLVED = {path.stem: solutions(path.stem) for path in SOURCES}
EXERCISES = [(notebook, name) for notebook, module in SOLVED.items() for name in module.RIGHT]


def placeholders(source):
    """The code cells marked as exercises."""
    return re.findall(r'# %% tags=\["exercise"\]\n(.*?)(?=\n# %%|\Z)', source, re.DOTALL)


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_the_right_answer_passes(notebook, name):
    found = getattr(check, name)(SOLVED[notebook].RIGHT[name])
    assert found.state == "right", found
    assert found.message


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
def test_wrong_answers_fail_with_words_that_help(notebook, name):
    wrong = SOLVED[notebook].WRONG[name]
    assert len(wrong) >= 3
    for number, (answer, words) in enumerate(wrong):
        found = getattr(check, name)(answer)
        assert found.state == "not yet", (number, found)
        assert words in found.message, (number, found)
        assert "cannot be checked" not in found.message, (number, found)


@pytest.mark.parametrize(("notebook", "name"), EXERCISES)
@pytest.mark.parametrize("placeholder", [..., None, lambda *arguments, **named: ..., [..., 1]])
def test_a_placeholder_is_no_answer(notebook, name, placeholder):
    found = getattr(check, name)(placeholder)
    if callable(placeholder) and not callable(SOLVED[notebook].RIGHT[name]):
        assert found.state == "not yet"
    else:
        assert found.state == "not answered", found


@pytest.mark.parametrize("name", sorted(CHECKS))
@pytest.mark.parametrize("nonsense", ["text", [[1], [1, 2]], {"a": object()}, float("nan"), np.zeros((3, 1)), int])
def test_nonsense_never_raises(name, nonsense):
    found = getattr(check, name)(nonsense)
    assert isinstance(found, Feedback)
    assert not found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_each_notebook_has_two_or_three_exercises_with_solutions(source):
    text = source.read_text(encoding="utf-8")
    called = re.findall(r"^check\.(\w+)\(", text, re.MULTILINE)
    module = SOLVED[source.stem]
    assert called == list(module.RIGHT) == list(module.WRONG)
    assert 2 <= len(called) <= 3
    cells = placeholders(text)
    assert len(cells) == len(called)
    assert all("..." in cell for cell in cells)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_each_notebook_has_two_open_exercises_and_what_to_expect_of_them(source):
    _, _, after = source.read_text(encoding="utf-8").partition("# ## Two harder ones: predict, then run\n")
    open_ones, _, _ = after.partition("# ## ")
    assert re.findall(r"^# \*\*(★+) ", open_ones, re.MULTILINE) == ["★★", "★★★"]
    assert "two open ones" in " ".join(SOLVED[source.stem].__doc__.split())


def test_every_check_belongs_to_a_notebook():
    assert {name for _, name in EXERCISES} == CHECKS


def test_a_number_says_which_mistake_it_is():
    with pytest.raises(NotYet, match="doubled"):
        feedback.same_number(20, 10, mistakes=[(20, "doubled")])
    with pytest.raises(NotYet, match="too small"):
        feedback.same_number(3, 10, mistakes=[(20, "doubled")])
    with pytest.raises(NotYet, match=r"too large\. Think"):
        feedback.same_number(12, 10, hint="Think.")
    feedback.same_number(10 + 1e-9, 10)


def test_an_array_says_where_it_differs():
    truth = np.arange(12.0).reshape(3, 4)
    wrong = truth.copy()
    wrong[1, 2] = 70
    with pytest.raises(NotYet, match=r"at i = 1, j = 2 it is 70, the library has 6; 1 of 12 numbers differ"):
        feedback.same_array(wrong, truth, axes="ij")
    with pytest.raises(NotYet, match=r"the shape \[4, 3\], it should be \[3, 4\]"):
        feedback.same_array(truth.T, truth)
    with pytest.raises(NotYet, match="turned"):
        feedback.same_array(truth.T, truth, mistakes=[(truth.T, "turned")])
    with pytest.raises(NotYet, match="not finite"):
        feedback.same_array(truth / 0 if False else np.full((3, 4), np.nan), truth)
    feedback.same_array(truth + 1e-9, truth)


def test_a_function_that_writes_into_its_argument_is_told():
    def clear(x):
        x[:] = 0
        return x

    with pytest.raises(NotYet, match="writes into its arguments"):
        feedback.call(clear, np.ones(3))


def test_a_function_that_is_not_written_is_not_answered():
    def unwritten(x):
        raise NotImplementedError

    with pytest.raises(NotAnswered):
        feedback.call(unwritten, 1)


def test_feedback_is_shown_as_text_and_as_html_without_markup_of_others():
    found = Feedback("not yet", "<script>3 < 4</script>\nnext")
    assert "not yet" in repr(found)
    assert "<script>" not in found._repr_html_()
    assert "<br>" in found._repr_html_()
    assert not found
    assert Feedback("right", "")

"""The bank of questions: each computed answer is right, and the page has them all."""

from __future__ import annotations

import math

import pytest

from minialex.site import ROOT, quiz

QUESTIONS = quiz.questions()
CHAPTERS = sorted(path.stem for path in (ROOT / "docs" / "tutorial").glob("[0-9]*.md"))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.text[:40])
def test_an_answer_is_right(question: quiz.Question) -> None:
    assert question.text.endswith(("?", "."))
    assert question.why.endswith(".")
    assert bool(question.choices) != bool(question.answer)
    if question.choices:
        assert len(set(question.choices)) == 4
    else:
        computed = eval(question.compute, {"math": math, "__builtins__": {"round": round, "len": len}})
        assert float(question.answer.replace(",", "")) == computed


def test_every_chapter_has_questions_in_order() -> None:
    asked = list(dict.fromkeys(question.chapter for question in QUESTIONS))
    assert asked == CHAPTERS


def test_the_page_folds_every_answer_away() -> None:
    page = quiz.page()
    assert page.count("<details markdown>") == len(QUESTIONS)
    for question in QUESTIONS:
        assert question.text in page
        assert f"**{question.right}.** {question.why}" in page
        for choice in question.choices:
            assert f"- {choice}\n" in page
    first = [q.choices.index(min(q.choices, key=str.casefold)) for q in QUESTIONS if q.choices]
    assert len(set(first)) > 1  # the right one is not always at the same place

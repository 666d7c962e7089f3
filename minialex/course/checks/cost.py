"""Checks of notebook 19: what it costs."""

from __future__ import annotations

import math
from typing import Any

from minialex.course.checks.feedback import call, exercise, same_number
from minialex.engine.summary import summarise
from minialex.recipe.toml import load
from minialex.speed.plan import IMAGENET


@exercise
def answers_for_a_training(answer: Any) -> str:
    """How many pictures can be answered with the multiply-adds of the paper's 90 epochs."""
    paper = load("alexnet-2012")
    summary = summarise(paper)
    learning, asking = summary.training_multiply_adds * IMAGENET * paper.epochs, summary.multiply_adds
    truth = learning / asking
    mistakes = [
        (truth / paper.epochs, "that is one epoch's: the paper made 90."),
        (IMAGENET * paper.epochs, "learning from a picture takes nearly three times as much as answering it."),
        (3 * IMAGENET * paper.epochs, "nearly: nobody needs the gradient of the image, so that it is a little less "
         "than three times; `training_multiply_adds` has it."),
        (learning, "those are the multiply-adds of learning; divide by those of one answer."),
        (1 / truth, "the other way round: learning divided by one answer."),
    ]  # fmt: skip
    hint = "training_multiply_adds · 1,281,167 · 90, divided by the multiply_adds of one picture."
    same_number(answer, truth, "the number of pictures", mistakes, hint=hint, tolerance=1e-4)
    return f"{truth:,.0f} pictures: whoever serves a network to many pays for answers, not for learning."


@exercise
def months_to_double(answer: Any) -> str:
    """A function (factor, years) -> after how many months something doubles that grows by a factor in some years."""
    for factor, years in ((8.0, 3.0), (300_000.0, 5.5)):
        truth = 12 * years / math.log2(factor)
        mistakes = [
            (truth / 12, "that is in years; give months."),
            (12 * years / math.log(factor), "that is how long it takes to grow by e = 2.718…: take log2."),
            (12 * years / math.log10(factor), "that is how long it takes to grow by 10: take log2."),
            (12 * years / factor, "growth multiplies: how many doublings are there in the factor?"),
            (24 * years / factor, "growth multiplies: how many doublings are there in the factor?"),
        ]
        hint = "A factor of 8 is log2(8) = 3 doublings."
        same_number(call(answer, factor, years), truth, f"months_to_double({factor:g}, {years:g})", mistakes, hint=hint)
    return f"{truth:.1f} months: so fast grew the largest training runs after AlexNet."

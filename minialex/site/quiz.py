"""The questions of ``quiz.toml`` as a page with collapsed answers, chapter by chapter."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from minialex.site import ROOT


@dataclass(frozen=True)
class Question:
    """A question: its chapter, and either choices, the first of which is right, or an answer that can be computed."""

    chapter: str
    text: str
    why: str
    choices: Sequence[str] = ()
    answer: str = ""
    compute: str = ""

    @property
    def right(self) -> str:
        """The right answer, as text."""
        return self.choices[0] if self.choices else self.answer


def questions() -> list[Question]:
    """All questions, in the file's order."""
    text = (resources.files("minialex.site") / "quiz.toml").read_text(encoding="utf-8")
    return [Question(**found) for found in tomllib.loads(text)["question"]]


def title(chapter: str) -> str:
    """A chapter's heading."""
    text = (ROOT / "docs" / "tutorial" / f"{chapter}.md").read_text(encoding="utf-8")
    return next(line[2:].strip() for line in text.splitlines() if line.startswith("# "))


def page() -> str:
    """The page."""
    parts = [
        "# Questions\n\nA bank of questions for a quiz or for oneself, by chapter. Every answer that is a number is "
        "computed by a test of this library. The file behind this page is `minialex/site/quiz.toml`: take from it what "
        "you need, and change the numbers.\n"
    ]
    before = ""
    for number, question in enumerate(questions(), 1):
        if question.chapter != before:
            before = question.chapter
            parts.append(f"## [{title(before)}](../tutorial/{before}.md)\n")
        choices = "".join(f"- {choice}\n" for choice in sorted(question.choices, key=str.casefold))
        computed = f" `{question.compute}`" if question.compute else ""
        parts.append(
            f"**{number}.** {question.text}\n\n{choices}\n<details markdown><summary>Answer</summary>\n\n"
            f"**{question.right}.** {question.why}{computed}\n\n</details>\n"
        )
    return "\n".join(parts)

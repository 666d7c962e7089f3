"""A deck of slides in Chromium: what is too much for the screen is made smaller, and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from minialex.site import slides

SCREEN = "1280,720"


@pytest.fixture(scope="module")
def deck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    [file] = slides.write(tmp_path_factory.mktemp("slides"), ["03-convolution"])
    return file


def size(chromium: str, deck: Path, number: int) -> float:
    """The share of its full size at which a slide is shown."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={SCREEN}", "--timeout=20000",
               "--dump-dom", f"{deck.as_uri()}#s{number}"]  # fmt: skip
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(rf'<section id="s{number}" class="now" style="--fit: ([\d.]+);">', page)
    assert found, page[:500]
    return float(found[1])


def test_a_listing_that_is_too_wide_is_made_smaller_until_it_fits(chromium: str, deck: Path) -> None:
    sections = deck.read_text(encoding="utf-8").split("<section")[1:]
    listing = next(n for n, text in enumerate(sections, 1) if "def conv2d_backward" in text)
    assert 0.5 < size(chromium, deck, listing) < 0.95
    assert size(chromium, deck, 1) == 1

"""Moving shapes: clips are what they say, one frame tells nothing of the way, and the table says what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minialex.course import video


def test_clips_move_as_they_say() -> None:
    frames, figures, ways = video.clips(40, seed=3, part="train")
    assert frames.shape == (40, 3, 32, 32)
    assert set(figures) <= set(range(10))
    assert set(ways) == set(range(4))
    for clip, way in zip(frames > 0.6 * 255, ways, strict=True):  # the figure is brighter, the ground darker
        for first, second in ((0, 1), (1, 2)):
            differ = [
                np.count_nonzero(clip[second] != np.roll(clip[first], np.multiply(video.PACE, shift), (0, 1)))
                for shift in video.WAYS.values()
            ]
            assert int(np.argmin(differ)) == way


def test_clips_are_functions_of_seed_part_and_number() -> None:
    first, again = (video.clips(6, seed=1, part="test")[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, video.clips(6, seed=1, part="train")[0])
    assert np.array_equal(first[:3], video.clips(3, seed=1, part="test")[0])


def test_a_single_frame_tells_nothing_of_the_way() -> None:
    """The figure is everywhere equally often in every frame of every way: mean frames are alike."""
    frames, _, ways = video.clips(2000, seed=0, part="train")
    means = np.stack([frames[ways == way].mean(axis=(0, 1)) for way in range(4)])
    bright = means - means.mean(axis=(1, 2), keepdims=True)
    assert np.abs(bright).max() < 20  # a figure that were always at one place would stand out by 100


def test_frames_become_channels_or_pictures_of_their_own() -> None:
    frames, _, ways = video.clips(2, seed=0, part="test")
    fused, single = (video.pictures(frames, ways, shown) for shown in video.SHOWN)
    assert np.array_equal(fused.images, frames)
    assert len(single) == 6
    assert np.array_equal(single.images[4], np.stack([frames[1, 1]] * 3))
    assert list(single.labels) == [ways[0]] * 3 + [ways[1]] * 3


def test_the_command_trains_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--seeds", "1", "--train-clips", "64", "--test-clips", "8", "--steps", "2"]
    assert video.main([*small, "--json", str(tmp_path / "v.json")]) == 0
    found = json.loads((tmp_path / "v.json").read_text())
    assert {q: set(arms) for q, arms in found["errors"].items()} == {q: set(video.SHOWN) for q in video.QUESTIONS}
    assert "which way" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        video.main(["--seeds", "0"])


def test_the_recorded_experiment_shows_what_the_page_says() -> None:
    root = Path(__file__).resolve().parents[2]
    found = json.loads((root / "benchmarks/results/video.json").read_text())
    assert len(found["seeds"]) >= 3
    errors = {q: {shown: np.array(e) for shown, e in arms.items()} for q, arms in found["errors"].items()}
    assert errors["which way"]["mean over frames"].min() > 65  # chance is 75
    assert errors["which way"]["frames as channels"].max() < 40

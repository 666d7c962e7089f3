"""Checks of notebook 18: films."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, random, same_array


@exercise
def frames_as_channels(answer: Any) -> str:
    """A function (clips [N,T,3,H,W]) -> pictures [N,3T,H,W], the colours of the first frame first."""
    for frames, size in ((3, 4), (5, 3)):
        clips = random(f"films/{frames}", 2, frames, 3, size, size)
        truth = clips.reshape(2, 3 * frames, size, size)
        mistakes = [
            (clips.swapaxes(1, 2).reshape(truth.shape), "that has red of all frames first; a frame's three colours "
             "belong together."),
            (clips.reshape(2 * frames, 3, size, size), "those are the single frames; make one picture of each clip."),
            (clips.mean(axis=1), "that is the mean frame: nothing can be seen of the order any more."),
            (clips[:, ::-1].reshape(truth.shape), "that begins with the last frame."),
        ]  # fmt: skip
        hint = "The numbers already stand in the right order: only the shape changes."
        same_array(call(answer, clips), truth, "the pictures", mistakes, hint=hint, axes=("n", "c", "i", "j"))
    return "so a clip of 10 frames is a picture of 30 channels, and conv1 has kernels of 30 channels."


@exercise
def mean_over_frames(answer: Any) -> str:
    """A function (probs [N·T,K], frames T; clip by clip) -> a clip's probabilities, [N,K]."""
    for clips, frames, classes in ((4, 3, 5), (2, 6, 3)):
        logits = 2 * random(f"films/answers/{frames}", clips * frames, classes)
        probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        truth = probs.reshape(clips, frames, classes).mean(axis=1)
        interleaved = probs.reshape(frames, clips, classes).mean(axis=0)
        mistakes = [
            (interleaved, "that takes frames of different clips together: a clip's frames follow one another."),
            (frames * truth, "that is the sum; divide by the number of frames, so that it adds up to 1."),
            (probs[::frames], "those are the answers to the first frames alone."),
            (probs.mean(axis=1).reshape(clips, frames), "that is the mean over classes: take it over frames."),
        ]
        hint = "Give frames an axis of their own with reshape, then take the mean along it."
        same_array(call(answer, probs, frames), truth, "the probabilities", mistakes, hint=hint, axes=("n", "k"))
    return "a film backwards gives the same numbers: this way cannot see time."

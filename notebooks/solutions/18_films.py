"""Answers to the exercises of notebook 18.

What to expect of the two open ones: with the frames in disorder the single frames lose nothing, and frames
as channels can only guess between opposite ways. Two figures (not run; what we expect): frames as channels
learn it too, with more clips, since it is enough to compare how far each has moved.
"""


def frames_as_channels(clips):
    N, T, C, H, W = clips.shape
    return clips.reshape(N, T * C, H, W)


def mean_over_frames(probs, frames):
    return probs.reshape(-1, frames, probs.shape[1]).mean(axis=1)


RIGHT = {"frames_as_channels": frames_as_channels, "mean_over_frames": mean_over_frames}
WRONG = {
    "frames_as_channels": [
        (lambda clips: frames_as_channels(clips.swapaxes(1, 2)), "belong together"),
        (lambda clips: clips.reshape(-1, *clips.shape[2:]), "single frames"),
        (lambda clips: clips.mean(axis=1), "mean frame"),
        (lambda clips: frames_as_channels(clips[:, ::-1]), "last frame"),
    ],
    "mean_over_frames": [
        (
            lambda probs, frames: probs.reshape(frames, -1, probs.shape[1]).mean(axis=0),
            "different clips",
        ),
        (lambda probs, frames: frames * mean_over_frames(probs, frames), "the sum"),
        (lambda probs, frames: probs[::frames], "first frames alone"),
        (lambda probs, frames: probs, "shape"),
    ],
}

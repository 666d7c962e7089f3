# %% [markdown]
# # 18 · Films
#
# > "Ultimately we would like to use very large and deep convolutional nets on video sequences where the temporal structure
# > provides very helpful information that is missing or far less obvious in static images." (section 7)
#
# That is how the paper ends. A network takes pictures; how does one give it a film? Two simple ways, and a question that
# only one of them can answer.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course import video
from minialex.course.notebooks import experiment, show
from minialex.data import DataSet
from minialex.recipe import toml as recipe

# %% [markdown]
# ## Clips
#
# The library makes clips of three grey frames. A figure stands in one of ten shapes over a ground and moves three pixels
# from frame to frame: right, left, down or up. What leaves the picture on one side comes back on the other.

# %% alt="Four clips in rows of three frames: a small bright figure over a grey ground, which moves by three pixels from frame to frame."
frames, figures, ways = video.clips(2000, seed=1, part="train")
names = list(video.WAYS)
some = [int(np.flatnonzero(ways == way)[2]) for way in range(4)]
show.images(
    [frame for n in some for frame in frames[n]],
    [f"{names[ways[n]]}: {t}" for n in some for t in range(3)],
    columns=6,
    size=1.1,
    headline="Which way does it go? One frame does not say",
)

# %% [markdown]
# ## Frames as channels
#
# A colour picture is three channels. So three grey frames can be one picture, too: kernels of the first layer that reach
# through colours now reach through time.
#
# ### Exercise 1: clips in colour
#
# With $T$ frames *in colour* there are $3T$ channels. Make pictures $[N, 3T, H, W]$ of `clips` $[N, T, 3, H, W]$, the three
# colours of the first frame first.


# %% tags=["exercise"]
def frames_as_channels(clips):
    return ...


# %%
check.frames_as_channels(frames_as_channels)

# %% [markdown]
# ## The mean over frames
#
# Or the network is asked about every frame by itself, and a clip's answer is the mean of its frames' answers.
#
# ### Exercise 2: the mean
#
# Given `probs` $[N \cdot T, K]$, the answers to the `frames` $T$ frames of the first clip, then of the second, and so on,
# give those to the clips, $[N, K]$.


# %% tags=["exercise"]
def mean_over_frames(probs, frames):
    return ...


# %%
check.mean_over_frames(mean_over_frames)

# %% [markdown]
# ## An experiment: which way?
#
# This is how the library makes pictures of clips in the one way and in the other:

# %%
show.source(video.pictures)

# %% tags=["not-in-browser"]
tested, _, test_ways = video.clips(400, seed=1, part="test")
base = recipe.load("small").replace(
    epochs=8,
    schedule="constant",
    colour=0,
    reflect=False,  # in a mirror what goes right goes left
    classes=0,
    kernel_sizes=(7, 5, 3, 3, 3),
    init="gaussian",  # conv1 begins small: what you will see of it is learned
    std=0.05,
    std_middle=0.08,
    std_full=0.1,
)
networks = {}
for shown in video.SHOWN:
    parts = [video.pictures(*part, shown) for part in ((frames, ways), (tested, test_ways))]
    networks[shown] = experiment.train(
        base, DataSet("clips", *parts, tuple(names)), validate=False, steps=300
    )


def answers(shown, clips):
    """The probabilities of the four ways, one row a clip."""
    split = video.pictures(clips, np.zeros(len(clips), np.int64), shown)
    data = DataSet("clips", split, split, tuple(names))
    probs = experiment.validation(networks[shown].session, data).probs
    each = len(probs) // len(clips)
    return probs.reshape(len(clips), each, -1).mean(axis=1)


# %% alt="Four bars, errors of the clips' way: with frames as channels nearly none when the film runs forwards, nearly all when it runs backwards; with the mean over frames about three in four either way, as guessing."
errors = {}
for shown in video.SHOWN:
    for name, clips in (("forwards", tested), ("backwards", tested[:, ::-1])):
        guessed = answers(shown, clips).argmax(axis=1)
        errors[f"{shown}, {name}"] = 100 * float((guessed != test_ways).mean())
show.bars(errors, "wrong ways, %", headline="Guessing would be 75 %", form="{:.1f}")

# %%
together, single = (
    errors["frames as channels, forwards"],
    errors["mean over frames, forwards"],
)
opposite = np.array([1, 0, 3, 2])  # right and left, down and up
turned = answers(video.SHOWN[0], tested[:, ::-1]).argmax(axis=1) == opposite[test_ways]
same = np.allclose(
    answers(video.SHOWN[1], tested), answers(video.SHOWN[1], tested[:, ::-1]), atol=1e-6
)
show.text(f"""
With frames as channels {together:.1f} % are wrong, after {
    networks[video.SHOWN[0]].steps
} steps. Run the film backwards, and for {100 * turned.mean():.0f} % of the clips the
network says the opposite way: it is right about what it sees. The mean over frames is wrong {
    single:.0f} % of the time, which is guessing, and
its answers to a film and to the same film backwards are {
    "the same numbers" if same else "different"
}: the sum does not know in which order it was added up.
""")

# %% [markdown]
# ## What a kernel must be like
#
# A kernel that is the same in all three frames cannot tell what has moved: it sees their sum. So what the network needs is
# in the *difference* of a kernel's three parts. The kernels of conv1 in which it is largest:

# %% alt="Four kernels of conv1, each as three small grey squares, its parts for the three frames: light and dark halves with an edge between them, which moves or turns over from one frame to the next."
kernels = networks[video.SHOWN[0]].session.weights()["conv1.weight"]
change = ((kernels - kernels.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2, 3))
most = np.argsort(-change)[:4]
show.images(
    [part for k in most for part in kernels[k]],
    [f"{k}: frame {t}" for k in most for t in range(3)],
    columns=6,
    size=1.1,
    headline="The four kernels that change most from frame to frame",
)

# %% [markdown]
# An edge that is in one place in one frame and in another in the next: nobody asked for it, as nobody asked for the edges of
# figure 3.
#
# And *what* is it? There the single frames win: asked for the figure, frames as channels make several times as many
# mistakes, since the network has to know a star that moves to the left and one that moves down as the same thing. The
# chapter *Films* has the table of both questions, with several seeds; `python -m minialex.course.video` makes it.
#
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Frames in disorder.** Put the three frames of every training and test clip in an order that is drawn for each clip
# anew. Predict the error on *which way* with frames as channels: is it still below 75 %, and why not 0? Think of what two
# orders of a film have in common.
#
# **★★★ Two figures.** Add a second figure to the clips that moves twice as far (a mean of two clips will do for a
# beginning), and ask which of them is the faster one. Predict whether conv1 alone can know, or which layer must.

# %% [markdown]
# ## What became of it
#
# - **2014.** A million films of 487 sports: a network of AlexNet's kind with several frames as channels is hardly better than
#   the mean over single frames (Karpathy and others). A second network that sees *motion*, computed beforehand, helps much more
#   (Simonyan and Zisserman).
# - **2015–17.** Kernels in three dimensions, in every layer (Tran and others), begun from a network for pictures whose kernels are
#   repeated along time (Carreira and Zisserman).
# - **2021.** Attention over patches and moments (Bertasius and others).
#
# Next: **notebook 19**, what it costs.

# %% [markdown]
# # 6 · Overlapping pooling
#
# A pooling layer looks at small windows of a map and keeps one number of each: the largest. The map shrinks, and where
# exactly in the window something was is forgotten. That is the point: a cat two pixels to the left is still a cat.
#
# Windows of $z \times z$ places, $s$ apart. Usually $s = z$, and the windows lie side by side.
#
# > "If we set s < z, we obtain overlapping pooling. This is what we use throughout our network, with s = 2 and z = 3."
# > (section 3.4)
#
# Compared with $z = 2$, $s = 2$, the paper says, this takes 0.4 points off the top-1 error and 0.3 off the top-5 error; and
# networks with overlapping pooling "find it slightly more difficult to overfit".

# %%
import numpy as np

from minialex.backend.rules import pool_size
from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.recipe import toml as recipe
from minialex_numpy.conv2d import conv2d
from minialex_numpy.max_pool2d import corners, extend, max_pool2d, max_pool2d_backward
from minialex_numpy.relu import relu

# %% [markdown]
# ## The operation
#
# The reference does not visit windows one by one. It takes the first place of *all* windows, then the second of all, and
# so on, and keeps the larger each time:

# %%
show.source(corners, extend, max_pool2d)

# %% alt="A photograph of a horse, whole and made smaller by pooling: 2/2 and 3/2 give a coarser horse, 3/2 twice and 8/8 a few coloured blocks."
data = experiment.images(train=1200, validation=600)
photo = data.validation.read(np.array([11]))[0]
x = photo[None].astype(np.float64)


def pooled(size, stride):
    return max_pool2d(x, size=size, stride=stride, ceil=True)[0]


shown = {
    "32 × 32": x[0],
    "2/2: 16 × 16": pooled(2, 2),
    "3/2: 16 × 16": pooled(3, 2),
    "3/2 twice": max_pool2d(pooled(3, 2)[None], size=3, stride=2, ceil=True)[0],
    "8/8": pooled(8, 8),
}
show.images(
    [image.astype(np.uint8) for image in shown.values()], list(shown), columns=5, size=1.7
)

# %% [markdown]
# (Pooling pixels is not what a network does, it pools maps of features; but you see how it works. Bright spots grow.)
#
# ### Exercise 1: pool
#
# Write max-pooling for one map `x` of shape $[H, W]$. Only whole windows count.


# %% tags=["exercise"]
def max_pool(x, size, stride):
    return ...


# %%
check.max_pool(max_pool)

# %% [markdown]
# ### Exercise 2: overlap
#
# With windows of 3 × 3 at stride 2, how many windows does the luckiest pixel belong to?

# %% tags=["exercise"]
windows = ...

# %%
check.windows_of_a_pixel(windows)

# %% [markdown]
# ## What happens at the edge
#
# The paper's sizes fit without a remainder: windows of 3 at stride 2 make 27 of 55, 13 of 27 and 6 of 13. Others do not.
# The 2012 program rounded *up* and let the last windows hang over the edge; most libraries round down. For the ablation
# without overlap this decides everything that follows:

# %%
rows = [
    (f"{size}/{stride}", side, pool_size(side, size, stride, True), pool_size(side, size, stride, False))
    for size, stride in ((3, 2), (2, 2))
    for side in (55, 27, 13)
]  # fmt: skip
show.table(rows, ("size/stride", "rows", "windows, rounded up (2012)", "rounded down"))

# %% [markdown]
# ## Does it make the network forget where things are?
#
# We can measure that without any training. Take the maps of edges in a photograph, move the photograph by some pixels,
# and ask how much the pooled maps change, compared with how much they change for a *different* photograph. Zero would be
# perfect indifference to the move, 1 would be as bad as another picture.

# %% alt="Three rising curves, how much feature maps change when the photograph is moved by 0 to 8 pixels: most without pooling, less with windows of 2, least with overlapping windows of 3."
gradients = np.zeros((4, 1, 3, 3))
gradients[0, 0] = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
gradients[1], gradients[2] = -gradients[0], gradients[0].swapaxes(1, 2)
gradients[3] = -gradients[2]


def edge_maps(images):
    """Rectified maps of four directions of edges, [N,4,h,w]."""
    grey = images.mean(axis=1, keepdims=True)
    return relu(conv2d(grey, gradients, np.zeros(4), stride=1, padding=((0, 0), (0, 0))))


def features(images, size, stride):
    maps = edge_maps(images)
    for _ in range(2):
        maps = max_pool2d(maps, size=size, stride=stride, ceil=False) if size else maps
    return maps.reshape(len(maps), -1)


photos = data.validation.read(np.arange(200)).astype(np.float64)
moves = np.arange(0, 9)
change = {}
for name, size, stride in (("no pooling", 0, 1), ("2/2 twice", 2, 2), ("3/2 twice", 3, 2)):
    here = features(photos[:, :, :, :24], size, stride)
    other = np.linalg.norm(here - np.roll(here, 1, axis=0), axis=1).mean()
    change[name] = [
        np.linalg.norm(features(photos[:, :, :, m : m + 24], size, stride) - here, axis=1).mean() / other
        for m in moves
    ]  # fmt: skip
show.curves(
    {name: (moves, values) for name, values in change.items()},
    "pixels that the photograph is moved",
    "change (another photograph = 1)",
    limits=(0, 1.15),
    headline="How much maps mind a move",
)

# %%
at_one = {name: values[1] for name, values in change.items()}
show.text(
    "Moved by a single pixel, the maps change by "
    + ", ".join(f"**{value:.2f}** ({name})" for name, value in at_one.items())
    + " of what another photograph would."
)

# %% [markdown]
# ## Backwards
#
# A window gives its gradient to the pixel that was its maximum, and nothing to the others. Where windows overlap, a
# pixel may get several.

# %%
show.source(max_pool2d_backward)

# %% [markdown]
# `ties` is there for a case that sounds rare and is not: after ReLU, many windows are zero everywhere. Which zero is
# *the* maximum? Here the first one in row order is; cuda-convnet, the authors' program before that of 2012, gave the gradient
# to every one of them.
#
# ### Exercise 3: who gets what?
#
# An image of 5 × 5 is zero everywhere but for a 7 in the middle. It is pooled with $z = 3$, $s = 2$ (four windows), and each
# window is given the gradient `dy` = 1. What is `dx`, as an array of 5 × 5?

# %% tags=["exercise"]
dx = ...

# %%
check.pool_gradient(dx)

# %% [markdown]
# ## A small experiment
#
# 0.4 points is not much. To see a difference of 0.4 points between two networks you need either very many test images or
# very many pairs of networks. How many? Let us train three pairs and look at how much the *pairs* differ among
# themselves. The mean of $n$ pairs scatters $\sqrt{n}$ times less than single pairs do, and a 95% interval reaches about 1.96
# of such standard deviations to either side. Both networks must be of one size: with crops of 24 × 24 either window leaves
# maps of 24, 12, 6 and 3 rows.

# %% tags=["not-in-browser"]
print(experiment.about(data))
small = recipe.load("small").replace(
    crop=24, epochs=4, schedule="constant", colour=0, reflect=False
)
arms = {"3/2": {}, "2/2": {"pool_size": 2}}
errors = {name: [] for name in arms}
for seed in range(3):
    for name, changes in arms.items():
        run = experiment.train(small.replace(seed=seed, **changes), data, validate=False)
        errors[name].append(100 * experiment.validation(run.session, data).error(1))
gaps = np.array(errors["3/2"]) - np.array(errors["2/2"])
rows = [(seed, errors["3/2"][seed], errors["2/2"][seed], gaps[seed]) for seed in range(3)]
show.table(rows, ("seed", "error with 3/2, %", "with 2/2, %", "difference, points"))

# %%
spread = gaps.std(ddof=1)
needed = int(np.ceil((2 * 1.96 * spread / 0.4) ** 2))
show.text(f"""
{experiment.few_pairs(gaps, "overlapping pooling")}

The differences scatter by {spread:.1f} points from pair to pair. With such pairs, an interval of
±0.2 points, half the paper's effect, would take about **{needed:,} pairs**. So if a notebook on a
laptop tells you that overlapping pooling "works", ask how many networks it trained.
""")

# %% [markdown]
# And the paper's own 0.4? In the notes of 2012 it is *one* pair of runs (numbers 145 and 147: 40.66% and 41.06%) on 50,000
# validation images. Even with both networks given, the images are a sample. If the two disagree in being right on a quarter
# of them, the difference has a standard error of $\sqrt{0.25 / 50{,}000} = 0.22$ points, and its 95% interval is 0.4 ± 0.44. The
# claim stands at the edge of what its validation set can show, before anybody has asked about the seed.

# %% [markdown]
# ## The recorded study

# %%
show.ablation("pooling")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ The mean instead.** Pool with the mean of a window instead of the largest number (a `conv2d` of each map with equal
# weights does it). Will maps mind a move by one pixel more or less than with max-pooling 3/2, and by eight pixels? Guess
# both, then put it into `features`.
#
# **★★★ Five over two.** Predict the curve of windows of 5 × 5 at stride 2, twice. If it lies lower still, why does nobody
# pool like that? Find a measure of what is *lost*, something that two different images should not share, and draw it beside
# the curve.

# %% [markdown]
# ## What became of it
#
# - **2013–14.** Max-pooling over 3 × 3 at stride 2 stays on in GoogLeNet; VGG goes back to 2 × 2. Global average pooling (Lin,
#   Chen, Yan) replaces the last pooling layer and the full layers behind it.
# - **2014.** "Striving for simplicity" (Springenberg and others): a convolution with stride 2 can do the same work.
#   ResNet (2015) keeps a single max-pooling, 3/2, after its first layer.
# - **2017.** Hinton, who thought that pooling works *too* well at losing positions, proposes capsules (Sabour, Frosst, Hinton).
# - **2019.** Zhang shows that taking every other value is what breaks indifference to small moves, and blurs before it
#   ("Making convolutional networks shift-invariant again"): more overlap, in other words.
#
# Next: **notebook 7**, which makes 2,048 images of one.

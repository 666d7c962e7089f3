# %% [markdown]
# # 5 · Local response normalisation
#
# In the retina a receptor that is lit strongly silences its neighbours: *lateral inhibition*. AlexNet borrows the idea.
# At each place of a map, channels that are neighbours in number compete, and one that is large makes the others smaller:
#
# > "This sort of response normalization implements a form of lateral inhibition inspired by the type found in real
# > neurons, creating competition for big activities amongst neuron outputs computed using different kernels."
# > (section 3.3)
#
# With $a^i$ the activity (today one says *activation*) of channel $i$, and $n = 5$ neighbouring channels:
#
# $$b^{i} = a^{i} \Big/ \Big(k + \alpha \sum_{j=\max(0,\,i-n/2)}^{\min(N-1,\,i+n/2)} (a^{j})^2\Big)^{\beta}$$
#
# with $k = 2$, $\alpha = 10^{-4}$, $\beta = 0.75$, "determined using a validation set". The paper credits it with 1.4
# points of top-1 error. A few years later hardly anybody used it. Both are worth understanding.

# %%
import numpy as np

from minialex.backend import registry
from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.network.layers import Context, LocalResponseNorm
from minialex.recipe import toml as recipe
from minialex_numpy.local_response_norm import local_response_norm, window_sum

# %%
show.source(window_sum, local_response_norm)

# %% [markdown]
# ### Exercise 1: the window
#
# Which channels take part in normalising channel `channel`, if there are `channels` of them and the window has `size`?


# %% tags=["exercise"]
def window(channel, size, channels):
    return ...


# %%
check.window(window)

# %% [markdown]
# ### Exercise 2: normalise
#
# `a` has the activities of the channels at one place, an array $[C]$. Use `alpha` as it is given.


# %% tags=["exercise"]
def normalise(a, size, k, alpha, beta):
    return ...


# %%
check.normalise(normalise)

# %% [markdown]
# ## What it does to a profile
#
# Here are 32 channels at one place: a strong group, a loner, and a weak pair. The normalised activities are scaled to the
# same greatest value, so that you see what *changes*: relief, not size.

# %% alt="The activity of 32 channels before and after normalisation: with a large α a lone loud channel is left standing out and a group of loud channels is pressed down; with the α of 2012 the profile keeps its form."
generator = np.random.default_rng(3)
a = np.full(32, 3.0)
a[6:11] = (90, 140, 170, 120, 100)
a[18] = 110
a[25:27] = (40, 60)


def normalised(values, alpha, k=2.0, beta=0.75, size=5):
    y, _ = local_response_norm(
        values[None, :, None, None], size=size, k=k, alpha=alpha, beta=beta
    )
    return y[0, :, 0, 0]


profile = {"before": (np.arange(32), a / a.max())}
for alpha, note in ((2e-5, ", as in 2012"), (1e-3, "")):
    b = normalised(a, alpha)
    profile[f"after, with {alpha:g}{note}"] = (np.arange(32), b / b.max())
show.curves(
    profile,
    "channel",
    "activity (greatest = 1)",
    limits=(-0.05, 1.5),
    headline="A larger α lets loners stand out and presses groups down",
)

# %% [markdown]
# With the paper's constants the effect is mild, and it depends on the *size* of the activities. One channel with all its
# neighbours at the same level:

# %% alt="Four rising curves that flatten, a channel's activity after normalisation against that before: the louder its four neighbours, the lower the curve."
levels = np.linspace(0, 400, 200)
response = {}
for neighbour in (0, 100, 200, 400):
    five = np.full((len(levels), 5, 1, 1), float(neighbour))
    five[:, 2, 0, 0] = levels
    y, _ = local_response_norm(five, size=5, k=2.0, alpha=2e-5, beta=0.75)
    response[f"four neighbours at {neighbour}"] = (levels, y[:, 2, 0, 0])
show.curves(
    response,
    "activity before",
    "after",
    headline="The paper's constants: a gentle brake, stronger when neighbours are loud",
)

# %%
tiny = normalised(np.array([0.0, 0.5, 1.0, 1.5, 1.0, 0.5]), 2e-5)[3] / 1.5
show.text(f"""
And a trap: in a network whose pixels are scaled to about −2 … 2, activities are around 1, the sum
is nothing beside $k = 2$, and the "normalisation" only multiplies by {tiny:.4f}
($2^{{-0.75}} = {2**-0.75:.4f}$). The constants belong to raw pixels, as the initial weights of
notebook 4 do.
""")

# %% [markdown]
# ## The α trap
#
# The formula above multiplies the sum by $\alpha$. The authors' program divided $\alpha$ by $n$ first, and Caffe, PyTorch
# and ONNX have followed it; TensorFlow does not divide, and counts the window by its *half*. So "α = 1e-4, n = 5" means
# two different things, and each has been ported wrongly. In minialex it is a field, and the default is what was run in
# 2012:

# %%
show.table(
    [
        (
            "the formula in section 3.3",
            "α",
            LocalResponseNorm("n", alpha_over_n=False).coefficient,
        ),
        (
            "the 2012 program, Caffe, PyTorch, ONNX",
            "α / n",
            LocalResponseNorm("n").coefficient,
        ),
    ],
    ("who", "what multiplies the sum", "with α = 1e-4, n = 5"),
)

# %%
literal, program = normalised(a, 1e-4), normalised(a, 2e-5)
loudest = int(np.argmax(a))
show.text(f"""
For the loudest channel of our profile that is {literal[loudest]:.1f} against
{program[loudest]:.1f}, from {a[loudest]:.0f}.
""")

# %% [markdown]
# ### Exercise 3: translate α
#
# You want the formula *as printed*, with $\alpha = 10^{-4}$ and $n = 5$, from a library that divides by $n$. Which `alpha` do
# you give it?

# %% tags=["exercise"]
alpha_for_torch = ...

# %%
check.alpha_for_torch(alpha_for_torch)

# %% [markdown]
# ## Within a column, or across?
#
# The formula's sum runs over "adjacent" kernel maps. In 2012 the 96 maps of the first layer lay on two cards, 48 on each,
# and a card normalised among its own. Later ports with all 96 maps in one place normalise across the border. Where do
# the two differ? We ask the library's layer for both.

# %% alt="One curve over 96 channels, the difference between normalising within columns and across all: it is 0 but for a peak at the four channels beside the border of the columns."
backend = registry.load("numpy")
x = np.abs(generator.normal(0, 100, (1, 96, 4, 4)))
halves = [
    backend.to_device(np.ascontiguousarray(x[:, h]), "cpu:0")
    for h in (slice(0, 48), slice(48, 96))
]
found = {}
for scope in ("own", "all"):
    first = LocalResponseNorm("norm1", sees=scope)
    if scope == "own":
        pieces = [first.forward(backend, {}, half, Context())[0] for half in halves]
    else:
        whole = backend.concat(halves)
        pieces = [
            first.forward(backend, {}, whole, Context(column=column, columns=2))[0]
            for column in (0, 1)
        ]
    found[scope] = np.concatenate([backend.to_numpy(piece) for piece in pieces], axis=1)
difference = np.abs(found["own"] - found["all"]).max(axis=(0, 2, 3))
differing = np.flatnonzero(difference > 0)
show.curves(
    {"largest difference": (np.arange(96), difference)},
    "channel",
    "activity",
    height=2.6,
    headline="Normalised within columns of 48, or across all 96",
)

# %%
show.text(f"""
They differ in the channels {", ".join(map(str, differing))} and nowhere else: those whose window of
five reaches over the border between 47 and 48. A test that looks at other channels would call
both implementations the same.
""")

# %% [markdown]
# ## A small experiment
#
# The paper: a four-layer network on CIFAR-10 has a test error of 13% without and 11% with normalisation. Here a small
# network, with and without, from three seeds that both share. Its pixels are scaled, so the paper's α would do nothing
# (see above); we take a larger one, so that neighbours can hear each other.

# %% tags=["not-in-browser"]
data = experiment.images(train=1200, validation=600)
print(experiment.about(data))
small = recipe.load("small").replace(epochs=4, schedule="constant", colour=0, reflect=False)
arms = {
    "with": {"norm_alpha": 1.0},
    "without": {"norm_layers": ()},
}
errors = {name: [] for name in arms}
for seed in range(3):
    for name, changes in arms.items():
        run = experiment.train(small.replace(seed=seed, **changes), data, validate=False)
        errors[name].append(100 * experiment.validation(run.session, data).error(1))

# %%
gaps = np.array(errors["with"]) - np.array(errors["without"])
rows = [
    (seed, errors["with"][seed], errors["without"][seed], gaps[seed]) for seed in range(3)
]
show.table(rows, ("seed", "error with, %", "without, %", "difference, points"))

# %%
show.text(experiment.few_pairs(gaps, "normalisation"))

# %% [markdown]
# ## The recorded studies
#
# With and without, within columns and across:

# %%
show.ablation("norm")

# %% [markdown]
# And the constants:

# %%
show.ablation("norm-constants")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Too loud.** All channels are equally loud, at $c$. For which $c$ does the layer give the most, and what becomes of
# its output if $c$ grows without end? Derive it from the formula with $k = 2$, $\alpha = 2 \cdot 10^{-5}$ (what multiplies
# the sum) and $\beta = 0.75$, then draw it.
#
# **★★★ A layer of today.** With which `size`, `k`, `alpha` and `beta` does `local_response_norm` divide 32 channels by the
# root of their mean square (RMSNorm)? Predict what this layer does to an input that is ten times as large, and to one that
# is shifted by 1. Then try both.

# %% [markdown]
# ## What became of it
#
# - **2014.** VGG (Simonyan, Zisserman) tries it and reports that it does not help, and costs memory and time. GoogLeNet
#   of the same year still has it.
# - **2015.** Batch normalisation (Ioffe, Szegedy) normalises each channel over the batch instead of over its neighbours,
#   learns a scale, and lets networks train many times faster. It replaced everything else within a year or two.
# - **2016–18.** Layer normalisation (Ba, Kiros, Hinton) and group normalisation (Wu, He) are closer to this notebook:
#   they normalise over the channels of one example, whatever the batch.
# - **2018.** Progressive GANs (Karras and others) normalise each pixel's channels, and call it a variant of AlexNet's.
# - **2019.** RMSNorm (Zhang, Sennrich) divides by the root of the mean square of all channels: this formula with a window
#   of all $N$ channels, $k \to 0$, $\beta = \tfrac12$ and $\alpha = 1/N$. It sits in many of today's language models.
#
# Next: **notebook 6**, on throwing away where things are.

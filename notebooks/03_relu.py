# %% [markdown]
# # 3 · The rectified linear unit
#
# A convolution is linear, and two linear layers in a row are no better than one. So something bent, an *activation
# function*, must stand between them. For decades that was $\tanh$ or the sigmoid. AlexNet takes the simplest bend there
# is:
#
# $$f(x) = \max(0, x).$$
#
# > "Deep convolutional neural networks with ReLUs train several times faster than their equivalents with tanh units."
# > (section 3.1)
#
# The paper's figure 1 shows a network of four layers that reaches a training error of 25% on CIFAR-10 six times sooner
# with ReLU than with tanh.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.recipe import toml as recipe
from minialex_numpy.relu import relu, relu_backward
from minialex_numpy.tanh import tanh, tanh_backward

# %% [markdown]
# ## The operation
#
# This is the whole of it, forward and backward, beside what it replaced:

# %%
show.source(relu, relu_backward, tanh, tanh_backward)

# %% alt="Three curves over x from −5 to 5: ReLU is 0 and then rises without end, tanh bends from −1 to 1, the sigmoid from 0 to 1."
x = np.linspace(-5, 5, 401)
sigmoid = 1 / (1 + np.exp(-x))
bends = {"ReLU": (x, relu(x)), "tanh": (x, tanh(x)), "sigmoid": (x, sigmoid)}
show.curves(bends, "x", "f(x)", limits=(-1.2, 3), headline="Three bends …")

# %% alt="Slopes of the three: that of ReLU jumps from 0 to 1, that of tanh is a bell as high as 1, that of the sigmoid a flat bell as high as a quarter."
ones = np.ones_like(x)
slopes = {
    "ReLU": (x, relu_backward(ones, relu(x))),
    "tanh": (x, tanh_backward(ones, tanh(x))),
    "sigmoid": (x, sigmoid * (1 - sigmoid)),
}
show.curves(
    slopes, "x", "slope of f", headline="… and how much of a gradient each lets through"
)

# %% [markdown]
# The second picture is the reason. Going backwards, a layer multiplies the gradient by its slope. Where tanh or the
# sigmoid is far from zero it is *saturated*: its slope is nearly nothing, and so is what the layers before it can
# learn. ReLU lets the gradient through whole, or not at all.
#
# ### Exercise 1: backwards through ReLU
#
# `y` is the layer's *output*. (Look away from the source above; what happens where `y` is exactly 0?)


# %% tags=["exercise"]
def relu_gradient(dy, y):
    return ...


# %%
check.relu_gradient(relu_gradient)

# %% [markdown]
# ### Exercise 2: five sigmoids
#
# Suppose five sigmoids follow one another, with weights of 1 between them. What fraction of a gradient reaches the beginning
# *at best*, that is, if each of them stands where it is steepest?

# %% tags=["exercise"]
fraction = ...

# %%
check.sigmoid_chain(fraction)

# %% [markdown]
# ## How deep does a gradient get?
#
# Let us look at it without any training. We send random numbers through 20 layers of 256 neurons, then a gradient of
# size 1 back, and ask how much of it arrives at each layer. Weights are drawn so that the *forward* signal keeps its size
# as well as it can (for ReLU that is He's rule, notebook 4); the last line takes weights three times as large.


# %% alt="Five lines, the size of a gradient over twenty layers on a logarithmic axis: through sigmoids it shrinks by many powers of ten, with weights three times as large through ReLUs it explodes; plain ReLU and tanh stay near 1."
def gradient_sizes(bend, slope, scale, layers=20, width=256):
    generator = np.random.default_rng(0)
    weights = [
        generator.normal(0, scale / width**0.5, (width, width)) for _ in range(layers)
    ]
    y, outputs = generator.normal(size=(64, width)), []
    for w in weights:
        y = bend(y @ w)
        outputs.append(y)
    dy, sizes = np.ones_like(y), []
    for w, out in zip(weights[::-1], outputs[::-1], strict=True):
        dy = slope(dy, out) @ w.T
        sizes.append(dy.std())
    return np.arange(layers, 0, -1), np.array(sizes) / sizes[0]


def sigmoid_of(z):
    return 1 / (1 + np.exp(-z))


deep = {
    "ReLU": gradient_sizes(relu, relu_backward, 2**0.5),
    "tanh": gradient_sizes(tanh, tanh_backward, 1.0),
    "sigmoid": gradient_sizes(sigmoid_of, lambda dy, y: dy * y * (1 - y), 1.0),
    "ReLU, weights × 3": gradient_sizes(relu, relu_backward, 3 * 2**0.5),
    "tanh, weights × 3": gradient_sizes(tanh, tanh_backward, 3.0),
}
show.curves(
    deep,
    "layer (the gradient travels from right to left)",
    "size of the gradient",
    log_y=True,
    headline="What is left of a gradient on its way back",
)

# %%
left = {name: sizes[-1] for name, (_, sizes) in deep.items()}
show.text(
    "At the first of 20 layers there is left: "
    + ", ".join(f"{name} {size:.2g}" for name, size in left.items())
    + ". Weights of the wrong size hurt every bend; the sigmoid is lost in any case."
)

# %% [markdown]
# ## Figure 1, small
#
# Now the paper's experiment at the size of a coffee break: three convolutional layers with small fully connected layers
# on top, few images, and, as in the paper, no regularisation of any kind: no dropout, no weight decay, no crops, no
# normalisation. The paper says that the learning rates "were chosen independently to make training as fast as possible",
# and that matters: one rate for both would favour one of them. So each bend gets four rates and keeps its best. It must not be
# the least or the greatest of them: then nobody knows what the next one would have given.

# %% tags=["not-in-browser"]
data = experiment.images(train=1200, validation=500)
print(experiment.about(data))
plain = recipe.load("small").replace(
    omit=("conv4", "conv5"), norm_layers=(), dropout=0, weight_decay=0, crops="centre",
    reflect=False, colour=0, epochs=8, schedule="constant",
)  # fmt: skip
runs = {}
for bend in ("relu", "tanh"):
    for rate in (0.0025, 0.005, 0.01, 0.02):
        arm = plain.replace(activation=bend, learning_rate=rate)
        runs[bend, rate] = experiment.train(arm, data, validate=False)

# %% alt="Two falling curves, the training error of a small network with ReLU and with tanh, each at its best learning rate; a dashed line marks the 25% of the paper's figure 1."
window = len(data.train) // plain.batch_size
best = {}
for bend in ("relu", "tanh"):
    rates = [rate for kind, rate in runs if kind == bend]
    best[bend] = min(rates, key=lambda rate: runs[bend, rate].training_error(window))
curves = {}
for (bend, rate), run in runs.items():
    name = f"{bend}, rate {rate:g}" + (" (best)" if best[bend] == rate else "")
    errors = 100 * experiment.smoothed(run.step_errors, window)
    epochs = np.arange(1, run.steps + 1) / window
    if best[bend] == rate:
        curves[name] = (epochs, errors)
show.curves(
    curves,
    "epochs",
    "training error, %",
    level=(25, "25%, the paper's level"),
    headline="Training error, each at the best of four learning rates",
)

# %%
rows = [
    (bend, rate, 100 * run.training_error(window), "best" if best[bend] == rate else "")
    for (bend, rate), run in runs.items()
]
show.table(rows, ("neurons", "learning rate", "training error in the last epoch, %", ""))

# %% [markdown]
# ### Exercise 3: when is a level reached?
#
# Figure 1 compares *when* each network gets down to 25%. Write the function that finds the first place at which an array
# of errors is at or below a level; -1 if there is none.


# %% tags=["exercise"]
def steps_to(errors, level):
    return ...


# %%
check.steps_to(steps_to)

# %%
finals = {bend: runs[bend, best[bend]].training_error(window) for bend in best}
ahead = "ReLU" if finals["relu"] < finals["tanh"] else "tanh"
show.text(f"""
In this run **{ahead}** is ahead at the end ({finals["relu"]:.1%} for ReLU, {finals["tanh"]:.1%}
for tanh). One run of each proves nothing, in either direction: at small sizes the order depends on
how long one trains, on the initial weights and on the seed.
""")

# %% [markdown]
# ## The recorded study
#
# What can be said with some confidence needs several seeds and a regime in which the networks get far enough. That takes
# longer than a coffee break, so it has been run once and recorded:

# %%
show.ablation("relu")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Rescue tanh.** With `scale` 1 about a fifth of the gradient is left after twenty layers of tanh. Should the weights
# be larger or smaller to keep it? Guess the scale at which as much arrives as was sent, then find it with `gradient_sizes`.
# What would happen at twice that scale?
#
# **★★★ Make ReLU lose.** Find a setting (`pixel_scale`, `init`, `bias`, the learning rates that each of the two is allowed)
# in which tanh arrives at 25% clearly sooner, and one in which ReLU does. Predict which field decides. How would you report
# both, so that a reader is not misled?

# %% [markdown]
# ## What became of it
#
# - **Before.** Rectification was not new: Fukushima used it around 1970, Jarrett and others (2009) found that it helps
#   recognition, Nair and Hinton (2010) used it in Boltzmann machines, Glorot, Bordes and Bengio (2011) in deep networks.
#   AlexNet showed that it matters when the network is big.
# - **2013–15.** A silent unit learns nothing, so variants leak: leaky ReLU (Maas and others, 2013), PReLU (He and others,
#   2015), ELU (Clevert and others, 2015).
# - **2015.** Batch normalisation (Ioffe, Szegedy) keeps signals where bends have slopes, whatever the bend.
# - **2016.** GELU (Hendrycks, Gimpel) rounds the corner off; BERT and GPT use it. Swish (Ramachandran and others, 2017) is
#   nearly the same curve, found by search. Many language models now use gated kinds (Shazeer, 2020).
# - In convolutional networks plain ReLU is still the usual choice, as in 2012.
#
# Next: **notebook 4**, where a network refuses to learn anything.

# %% [markdown]
# # 4 · Initial weights, and the plateau at 6.9
#
# You build AlexNet from the paper, start training, and the loss says 6.908. An hour later: 6.908. Hundreds of people have
# asked in forums what this number means. In this notebook you will be able to answer them: why it is this number, why
# the network sits there, and how to get it going.
#
# What the paper does:
#
# > "We initialized the weights in each layer from a zero-mean Gaussian distribution with standard deviation 0.01."
# > (section 5)
#
# and the biases of conv2, conv4, conv5 and the hidden fully connected layers are 1, which "accelerates the early stages
# of learning by providing the ReLUs with positive inputs". The other biases are 0.

# %%
import math

import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.data import load
from minialex.network.parameters import initial_parameters
from minialex.recipe import toml as recipe
from minialex.training import guards
from minialex_numpy.softmax_cross_entropy import softmax_cross_entropy

# %% [markdown]
# ## The operation
#
# The loss is minus the logarithm of the probability that the network gives to the true class, averaged over the batch:
#
# $$L = -\frac{1}{N} \sum_n \ln p_{n,\,\text{label}_n}, \qquad p_{n,k} = \frac{e^{z_{n,k}}}{\sum_j e^{z_{n,j}}}$$

# %%
show.source(softmax_cross_entropy)

# %% [markdown]
# ### Exercise 1: the loss of a guess
#
# A network that knows nothing gives each class the same probability. What is its loss, for any number of classes?


# %% tags=["exercise"]
def guessing_loss(classes):
    return ...


# %%
check.guessing_loss(guessing_loss)

# %% [markdown]
# So a loss that stays at this value says: *the network gives the same answer to every image*. It has not begun to look.
#
# ## What reaches the end?
#
# If all images look alike to the last layer, it cannot learn to tell them apart. So let us measure how much of the
# *difference between images* survives on the way through an untrained AlexNet: how much the value of a neuron varies from
# image to image, on average, layer by layer. Initial weights are drawn here:

# %%
show.source(initial_parameters)

# %% tags=["not-in-browser"] alt="Five curves on a logarithmic axis, how much the layers' outputs vary from image to image, conv1 to fc8: with weights of 0.01 it falls by several powers of ten, with He's weights it stays nearly level."
images = load("shapes", size=256, train_images=32, validation_images=12)
sixteen = images.train.read(np.arange(16))
paper = recipe.load("alexnet-2012").replace(
    batch_size=8, features=(512, 512), image_size=256
)
raw, scaled = 1.0, 1 / 64
variants = {
    "σ = 0.01, raw pixels (the paper's)": {"pixel_scale": raw},
    "the same, biases 0": {"pixel_scale": raw, "bias": 0},
    "σ = 0.01, pixels −2 … 2": {"pixel_scale": scaled},
    "He, pixels −2 … 2": {"pixel_scale": scaled, "init": "he", "bias": 0, "std": 0.05},
    "He, raw pixels": {"pixel_scale": raw, "init": "he", "bias": 0, "std": 0.05},
}
layers = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
survives = {}
for name, changes in variants.items():
    untrained = experiment.start(paper.replace(**changes), images)
    outputs = untrained.activations(sixteen, layers)
    survives[name] = (np.arange(8), [outputs[layer].std(axis=0).mean() for layer in layers])
show.curves(
    survives,
    "",
    "variation from image to image",
    log_y=True,
    ticks=layers,
    height=3.8,
    headline="How much of the difference between images gets through",
)

# %%
show.table(
    [(name, show.rounded(values[0], 2), show.rounded(values[-1], 2))
     for name, (_, values) in survives.items()],
    ("initial weights", "in conv1", "in fc8"),
)  # fmt: skip

# %% [markdown]
# One thing explains many failed runs: **the paper's 0.01 belongs to the paper's pixels**, whole numbers from 0 to 255
# with only the mean subtracted. Scale the pixels to about −2 … 2, as is usual today, keep 0.01, and the signal drowns on
# its way. (The full layers are narrower here than in the paper, so that the cell takes seconds.)
#
# He's rule (2015) makes no such assumption. A sum of $n$ products with weights of deviation $\sigma$ is $\sqrt{n}\,\sigma$
# times as large as its inputs, and ReLU throws away half of what it gets. To keep the size, take
#
# $$\sigma = \sqrt{\frac{2}{n}}, \qquad n = \text{number of inputs of one neuron}.$$
#
# ### Exercise 2: He's rule for a convolution


# %% tags=["exercise"]
def he_std(channels, size):
    return ...


# %%
check.he_std(he_std)

# %% [markdown]
# ## Does it learn?
#
# Now the small network, ten classes, a few epochs. Only the beginning differs. (The small network has far fewer inputs
# per neuron than the paper's. A sum of fewer products is smaller, so 0.01 is too little for it even with raw pixels.)

# %% tags=["not-in-browser"]
data = experiment.images(train=1200, validation=300)
print(experiment.about(data))
small = recipe.load("small").replace(epochs=3, schedule="constant", colour=0, dropout=0)
gaussian = {"init": "gaussian", "std": 0.01}
beginnings = {
    "σ = 0.01, pixels −2 … 2, biases 0": {**gaussian, "bias": 0},
    "σ = 0.01, pixels −2 … 2, biases 1": {**gaussian, "bias": 1},
    "σ = 0.01, raw pixels, biases 1": {**gaussian, "bias": 1, "pixel_scale": 1},
    "He, pixels −2 … 2, biases 0.1": {},
    "He, pixels −2 … 2, biases 1": {"bias": 1},
}
runs = {}
for name, changes in beginnings.items():
    runs[name] = experiment.train(small.replace(**changes), data, validate=False)

# %% alt="Five curves of the loss over the first steps: four stay on the dashed line of guessing, ln 10; only that with He's weights, small pixels and biases of 0.1 goes below it."
chance = math.log(len(data.class_names))
curves = {
    name: (np.arange(1, run.steps + 1), experiment.smoothed(run.losses, 12))
    for name, run in runs.items()
}
show.curves(
    curves,
    "steps",
    "loss",
    level=(chance, f"ln {len(data.class_names)} = {chance:.3f}: guessing"),
    limits=(0, max(3.2, 1.4 * chance)),
    headline="The same network, data and learning rate",
)

# %%
rows = []
for name, run in runs.items():
    last = float(np.mean(run.losses[-20:]))
    stuck = run.stopped_at or abs(last - chance) < 0.03 * chance
    verdict = (
        "values not finite" if run.stopped_at else "still guesses" if stuck else "learns"
    )
    rows.append((name, f"{last:.3f}", verdict))
show.table(rows, ("beginning", "loss over the last 20 steps", "verdict"))

# %% [markdown]
# `minialex train` watches for this. Its guard sees every loss; give it the losses of a network that is stuck, and it says
# what is wrong and what to try:

# %%
guard = guards.LossGuard(small.replace(classes=1000, init="gaussian"))
said = [guard.see(6.9078 + 0.001 * math.sin(step)) for step in range(600)]
show.text("> " + next((words for words in said if words), "(nothing)"))

# %% [markdown]
# ## Units that are dead
#
# There is a second way not to learn. A ReLU that is zero for *every* image passes no gradient back, so nothing ever
# changes its weights: it is dead. Biases of 1 guard against that at the beginning. A learning rate that is too high
# kills units later.
#
# ### Exercise 3: count the dead
#
# `activations` is the output of a ReLU layer, $[N, C, H, W]$. Return the fraction of its $C$ channels that are zero for
# all images and places.


# %% tags=["exercise"]
def dead_share(activations):
    return ...


# %%
check.dead_share(dead_share)

# %% tags=["not-in-browser"]
relus = ["relu1", "relu2", "relu3", "relu4", "relu5", "relu6", "relu7"]
batch = data.train.read(np.arange(200))
shares = {}
for rate in (0.01, 0.1):
    run = experiment.train(
        small.replace(learning_rate=rate), data, validate=False, steps=60
    )
    found = {}
    if not run.stopped_at:
        for name, output in run.session.activations(batch, relus).items():
            on = (output > 0).any(axis=tuple(i for i in range(output.ndim) if i != 1))
            found[name] = float(1 - on.mean())
    shares[rate] = found
show.table(
    [(name, *(f"{found[name]:.0%}" if found else "not finite" for found in shares.values()))
     for name in relus],
    ("layer", *(f"dead after 60 steps at rate {rate:g}" for rate in shares)),
)  # fmt: skip

# %% [markdown]
# ## The recorded study
#
# What are the paper's biases of 1 worth? Several seeds each:

# %%
show.ablation("bias")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Surer than it should be.** Draw logits of 1,000 classes from a Gaussian of deviation 1, 3 and 10, with labels that
# have nothing to do with them. Is the loss below $\ln 1000$, above it, or the same? Guess three numbers, then ask
# `softmax_cross_entropy`. Why is 0 a good beginning for fc8?
#
# **★★★ Where is the border?** Between σ = 0.01, which never begins, and He's rule, which does, the small network must begin
# to learn somewhere. Multiply $\sigma\sqrt{n/2}$ over its layers and predict at which σ; then try `init="gaussian"` with
# `std` in factors of two. Do biases of 1 move the border?

# %% [markdown]
# ## What became of it
#
# - **2010.** Glorot and Bengio had asked the same question for tanh, and found $\sigma^2 = 2/(n_\text{in} + n_\text{out})$.
# - **2013.** Saxe and others start from orthogonal matrices. Caffe's authors, rebuilding AlexNet, found that biases of 1
#   "gave flat loss" and took 0.1.
# - **2015.** He's rule for ReLU (He, Zhang, Ren, Sun), and batch normalisation (Ioffe, Szegedy), which rescales signals
#   in every step and made the question far less urgent.
# - **2015–19.** In residual networks (He and others) a block can begin as nothing at all, and the signal goes around it
#   (Goyal and others, 2017; Fixup by Zhang, Dauphin, Ma, 2019).
#
# Next: **notebook 5**, in which neighbours compete.

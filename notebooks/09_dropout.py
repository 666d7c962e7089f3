# %% [markdown]
# # 9 · Dropout: train a thousand networks at once
#
# A large network can memorise its training images. The two hidden fully connected layers of AlexNet hold 54 of its 61
# million parameters; with 1.2 million images to learn from, they would.
#
# The cure is odd. At every step, a coin is tossed for every neuron of these layers, which is silent half of the time.

# %%
import itertools

import numpy as np

from minialex import philox
from minialex.course import checks as check
from minialex.course.notebooks import draw, experiment, show
from minialex.recipe import toml as recipe
from minialex_numpy.dropout import dropout, dropout_backward
from minialex_numpy.linear import linear
from minialex_numpy.relu import relu
from minialex_numpy.softmax_cross_entropy import softmax_cross_entropy

# %% [markdown]
# ## What the paper says
#
# > "The neurons which are "dropped out" in this way do not contribute to the forward pass and do not participate in
# > back-propagation. So every time an input is presented, the neural network samples a different architecture, but all
# > these architectures share weights." (section 4.2)
#
# The reason that it gives: "a neuron cannot rely on the presence of particular other neurons". And what it costs:
# "Dropout roughly doubles the number of iterations required to converge."
#
# This is all of it, forward and backward:

# %%
show.source(dropout, dropout_backward)

# %% [markdown]
# `stream` says where the coins come from (chapter 15 tells how). Here is a layer of 144 neurons at two steps, for six
# images each. White neurons speak.

# %% alt="Twelve black and white patterns, the dropout masks of six images at two steps: about half of each is black, and no two are alike."
masks, titles = [], []
for step in (0, 1):
    stream = philox.Stream(seed=0, purpose=philox.purpose("dropout6"), step=step)
    _, mask = dropout(np.ones((6, 144), np.float32), rate=0.5, factor=1.0, stream=stream)
    masks += [m.reshape(12, 12).astype(float) for m in mask]
    titles += [f"step {step}, image {n}" for n, m in enumerate(mask)]
show.images(
    masks, titles, columns=6, size=1.2, headline="No two images meet the same network"
)

# %% [markdown]
# ### Exercise 1: two neurons that rely on each other
#
# At the paper's rate, in what fraction of the steps do two given neurons of a layer both speak?

# %% tags=["exercise"]
both_speak = ...

# %%
check.silent_pairs(both_speak)

# %% [markdown]
# ## The average of all of them
#
# With 4,096 neurons there are $2^{4096}$ such networks. At test time one would like to ask them all and average their
# answers.
#
# > "At test time, we use all the neurons but multiply their outputs by 0.5, which is a reasonable approximation to
# > taking the geometric mean of the predictive distributions produced by the exponentially-many dropout networks."
#
# How reasonable? With ten neurons there are 1,024 networks, and a computer can ask each one.
#
# ### Exercise 2: the geometric mean
#
# Given the probabilities `probs` $[M, K]$ of $M$ networks for $K$ classes, give their geometric mean, made to add up to 1
# again, $[K]$.


# %% tags=["exercise"]
def geometric_mean(probs):
    return ...


# %%
check.geometric_mean(geometric_mean)


# %% [markdown]
# The library's answer, so that the notebook goes on without yours, and the experiment: ten hidden neurons, then a softmax
# over five classes.


# %%
def mean_of_all(probabilities):
    logarithms = np.log(probabilities).mean(axis=0)
    return np.exp(logarithms) / np.exp(logarithms).sum()


random = np.random.default_rng(0)
neurons, classes = 10, 5
hidden = relu(random.normal(0, 1, (1, neurons)))
weights, biases = random.normal(0, 1, (classes, neurons)), random.normal(0, 1, classes)
label = np.array([0])


def answer(activity, weights, biases):
    return softmax_cross_entropy(linear(activity, weights, biases), label)[1][0]


every_mask = np.array(list(itertools.product((0, 1), repeat=neurons)))
asked = np.array([answer(hidden * mask, weights, biases) for mask in every_mask])
halved = answer(hidden / 2, weights, biases)
one_layer = np.abs(mean_of_all(asked) - halved).max()

# %%
second, second_biases = (
    random.normal(0, 0.6, (neurons, neurons)),
    random.normal(0, 1, neurons),
)
some = every_mask[random.permutation(len(every_mask))[:128]]
deep = []
for first_mask in every_mask:
    inner = relu(linear(hidden * first_mask, second, second_biases))
    deep += [answer(inner * mask, weights, biases) for mask in some]
deep_mean = mean_of_all(np.array(deep))
deep_halved = answer(relu(linear(hidden / 2, second, second_biases)) / 2, weights, biases)
two_layers = np.abs(deep_mean - deep_halved).max()
rounding = "that is rounding. It is no approximation, it is exact"
verdict = rounding if one_layer < 1e-12 else "more than rounding"
show.text(f"""
**One layer of dropout, {len(asked):,} networks:** the geometric mean of all answers and the
answer of the one network with halved neurons differ by {one_layer:.1e}: {verdict}. (The logarithm
of a softmax is linear in its logits, up to a constant that the normalisation takes away.)

**Two layers with a ReLU between them, {len(deep):,} networks:** they differ by
{two_layers:.3f}. Here the paper's word *approximation* is right.
""")

# %% alt="For networks with one and with two dropout layers, the probabilities of five classes under every mask as small marks. Halving the neurons, a cross, meets the geometric mean, a circle, exactly with one layer and nearly with two."
draw.mask_answers(
    {
        "one layer": (asked, mean_of_all(asked), halved),
        "two layers": (deep, deep_mean, deep_halved),
    }
)

# %% [markdown]
# ### Exercise 3: the other way round
#
# Most libraries today scale in training instead, so that nothing has to be done at test time (*inverted* dropout; here
# `--dropout-mode inverted`). Write it: `mask` is 1 where a neuron speaks, `rate` the probability that it does not.


# %% tags=["exercise"]
def inverted_dropout(x, mask, rate):
    return ...


# %%
check.inverted_dropout(inverted_dropout)

# %% [markdown]
# ## An experiment: overfitting
#
# We give a network too few images and no other help (no random crops, no reflections, no change of colour), and train it
# until it could have memorised them. Once without dropout and once with the paper's.

# %%
few = experiment.images(train=2000, validation=1000)
few.name, len(few.train)

# %% tags=["not-in-browser"]
base = recipe.load("small").replace(
    epochs=16,
    features=(256, 256),
    crops="centre",
    reflect=False,
    colour=0.0,
    schedule="constant",
)
plain = experiment.train(base.replace(dropout=0.0), few)
dropped = experiment.train(base.replace(dropout=0.5), few)
show.text(experiment.about(few))

# %% alt="Four curves over the epochs: without dropout the training error falls far below the validation error, with dropout the two stay together."
per_epoch = plain.steps // base.epochs
epochs = np.arange(1, base.epochs + 1)
lines = {}
for name, run in (("without dropout", plain), ("with dropout", dropped)):
    training = 100 * np.array(run.step_errors).reshape(base.epochs, per_epoch).mean(axis=1)
    lines[f"{name}: training"] = (epochs, training)
    lines[f"{name}: validation"] = (epochs, 100 * np.array(run.validation_errors))
show.curves(
    lines,
    "epoch",
    "error, %",
    headline="What is memorised is not understood",
    limits=(0, 100),
)

# %%
last = per_epoch
gaps = {
    name: (100 * run.training_error(last), 100 * run.validation_errors[-1])
    for name, run in (("without", plain), ("with", dropped))
}
wider = gaps["without"][1] - gaps["without"][0]
narrower = gaps["with"][1] - gaps["with"][0]
gain = gaps["without"][1] - gaps["with"][1]
interval = 196 * np.sqrt(2 * 0.5 * 0.5 / len(few.validation))
if abs(gain) < interval:
    verdict = "no effect on new images is shown here"
else:
    verdict = f"on new images dropout {'helps' if gain > 0 else 'hurts'} in this run"
show.text(f"""
Without dropout the network ends at {gaps["without"][0]:.1f} % training error and {gaps["without"][1]:.1f} % validation
error: {wider:.1f} points apart. With dropout it is {gaps["with"][0]:.1f} % and {gaps["with"][1]:.1f} %:
{narrower:.1f} points. The gap is {"smaller" if narrower < wider else "not smaller"} with dropout. (With dropout, the
training error is that of the half-silent networks, so that a part of the difference is the coins'.)

On the {len(few.validation):,} images that it has not seen, the error with dropout differs by {-gain:+.1f} points. With so
few images, differences below about {interval:.0f} points mean nothing: {verdict}.
""")

# %% [markdown]
# One run with one seed shows how it works; it proves little. This is the full study, with several seeds for each arm and
# the learning rate chosen for each:

# %%
show.ablation("dropout")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ An uneven coin.** Let a neuron be silent with probability 0.1, or 0.9. The 1,024 masks are then no longer equally
# probable. With what must the neurons be multiplied at test time, and is the one pass still *exactly* the (weighted)
# geometric mean? Decide with the argument above, then compute it.
#
# **★★★ How much is too much?** Train `base.replace(dropout=0.9)` on the same images. Predict its training error, its
# validation error and the gap, beside the two runs above. Is there a rate with a better validation error than 0 and 0.5?
# How many seeds would you need to say so?

# %% [markdown]
# ## What became of it
#
# - **2012–14.** The idea is of Hinton, Srivastava, Krizhevsky, Sutskever and Salakhutdinov (2012); the long paper came in
#   2014. DropConnect (Wan and others, 2013) silences weights instead of neurons.
# - **2015.** Batch normalisation (Ioffe and Szegedy) makes noise of another kind. ResNets have no large full layers and
#   no dropout.
# - **2016.** Leave it on at test time and ask many times: the spread says how sure the network is (Gal and Ghahramani).
# - **2017.** The Transformer (Vaswani and others) drops a tenth of its activations. Networks that see each text only once
#   often drop none: who reads everything once cannot memorise it.
#
# Next: **notebook 10**, the step itself.

# %% [markdown]
# # 20 · Against the conventional wisdom
#
# The network has 61 million numbers, and was fitted to 1.2 million labels. Anything with more numbers than examples can fit
# *anything*, says the textbook, and predicts nothing. The authors knew:
#
# > "Although the 1000 classes of ILSVRC make each training example impose 10 bits of constraint on the mapping from image to
# > label, this turns out to be insufficient to learn so many parameters without considerable overfitting." (section 4)
#
# They fought it with augmentation (notebook 7) and dropout (notebook 9). In 2017 somebody asked what happens without a fight,
# and with labels that mean nothing.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.data import dataset
from minialex.engine.summary import summarise
from minialex.recipe import toml as recipe

# %% [markdown]
# ### Exercise 1: bits
#
# How many bits does it take to write down the labels of so many images? (For one of ImageNet's: "10 bits".)


# %% tags=["exercise"]
def label_bits(images, classes):
    return ...


# %%
check.label_bits(label_bits)

# %% [markdown]
# ## An experiment: labels at random
#
# Zhang and others (2017) drew a label for every training image by lot, once, and trained as before. In minialex that is
# `--labels random`:

# %%
show.source(dataset.with_random_labels)

# %% [markdown]
# Nothing stands against memorising here: few images, no crops or reflections, no dropout, no weight decay.

# %% tags=["not-in-browser"]
images = experiment.images(train=400, validation=1000)
base = recipe.load("small").replace(
    epochs=40,
    schedule="steps",
    steps=(31,),
    crops="centre",
    reflect=False,
    colour=0.0,
    dropout=0.0,
    weight_decay=0.0,
    features=(256, 256),
)
runs = {}
for labels in ("own", "random"):
    train = images.train
    if labels == "random":
        train = dataset.with_random_labels(train, len(images.class_names), seed=1)
    data = dataset.DataSet(images.name, train, images.validation, images.class_names)
    runs[labels] = experiment.train(base, data, validate=False)
parameters = summarise(runs["own"].session.recipe).parameters
show.text(
    f"{experiment.about(images)} The network has {parameters:,} numbers, "
    f"{parameters / len(images.train):.0f} for each training image."
)

# %% alt="Two curves over the epochs, the error on the training images: with the images' own labels it falls nearly to zero, and with random labels, some epochs later, too."
per_epoch = runs["own"].steps // base.epochs
epochs = np.arange(1, base.epochs + 1)
lines = {}
for labels, run in runs.items():
    of_epochs = np.array(run.step_errors).reshape(base.epochs, per_epoch).mean(axis=1)
    lines[f"{labels} labels"] = (epochs, 100 * of_epochs)
show.curves(
    lines,
    "epoch",
    "error on the training images, %",
    headline="Own labels, and labels drawn by lot",
)

# %%
found = {labels: experiment.validation(run.session, images) for labels, run in runs.items()}
ends = {labels: 100 * run.training_error(per_epoch) for labels, run in runs.items()}
guess = 100 - 100 / len(images.class_names)
first = {
    labels: next(
        (int(n) for n, e in zip(*lines[f"{labels} labels"], strict=True) if e < 5), 0
    )
    for labels in runs
}
show.text(f"""
| | on the training images, at the end | below 5 % after | on new images |
|---|---:|---:|---:|
| own labels | {ends["own"]:.1f} % | {
    f"{first['own']} epochs" if first["own"] else "never"
} | {found["own"].words(1)} |
| random labels | {ends["random"]:.1f} % | {
    f"{first['random']} epochs" if first["random"] else "never"
} | {found["random"].words(1)} |

{
    "The same network, with the same settings, fits labels that mean nothing as well as labels that mean something: nothing about "
    "it *prevents* memorising. That it generalises must come from the labels, and from what gradient descent finds first"
    if max(ends.values()) < 5
    else "In this run the network did not fit both sets of labels"
}. Guessing
would be wrong on {guess:.0f} % of new images. After random labels the network is wrong on {
    100 * found["random"].error(1):.0f} %, and after their own on {
    100 * found["own"].error(1):.0f} %.
""")

# %% [markdown]
# The recorded study does the same with more images and several seeds:

# %%
show.ablation("random-labels")

# %% [markdown]
# ## Beyond the point where everything fits
#
# Twenty noisy points of a sine, and a model whose size we can turn: random ReLU units, of which only the last layer is
# fitted. With more units than points there are many weights that fit every point. Which of them does one take?
#
# ### Exercise 2: the smallest that fits
#
# Given `A` $[N, D]$ with $D > N$ and `y` $[N]$, give the weights $w$ $[D]$ with $A w = y$ whose norm is the least. (Gradient
# descent from zero finds the same ones.)


# %% tags=["exercise"]
def smallest_fit(A, y):
    return ...


# %%
check.smallest_fit(smallest_fit)

# %%
random = np.random.default_rng(0)
x, new = np.linspace(-1, 1, 20), np.linspace(-1, 1, 200)
y = np.sin(3 * x) + random.normal(0, 0.2, x.size)


def units(x, count, seed):
    drawn = np.random.default_rng(seed)
    w, b = drawn.choice([-1.0, 1.0], count), drawn.uniform(-1, 1, count)
    return np.maximum(np.outer(x, w) + b, 0) / np.sqrt(count)


sizes = (3, 5, 8, 11, 14, 17, 20, 24, 30, 40, 60, 100, 200, 500, 1000)
own, others = [], []
for count in sizes:
    squares = []
    for seed in range(40):
        weights = np.linalg.pinv(units(x, count, seed)) @ y
        here = np.mean((units(x, count, seed) @ weights - y) ** 2)
        there = np.mean((units(new, count, seed) @ weights - np.sin(3 * new)) ** 2)
        squares.append((here, there))
    own.append(np.mean(squares, axis=0)[0])
    others.append(np.mean(squares, axis=0)[1])

# %% alt="Two curves over the number of units on logarithmic axes: the error on the twenty points falls to nothing at twenty units; the error on new points falls, rises to a peak near twenty, and falls again, below its first valley."
show.curves(
    {
        "on new points": (sizes, others),
        "on the 20 points": (sizes, np.maximum(own, 1e-5)),
    },
    "numbers that are fitted",
    "squared error, mean of 40 draws",
    headline="Double descent: the worst is in the middle",
    log_x=True,
    log_y=True,
)

# %%
valley = min(o for s, o in zip(sizes, others, strict=True) if s < 20)
peak = max(others)
show.text(f"""
The least error with fewer numbers than points is {valley:.3f}. At {
    sizes[int(np.argmax(others))]
} numbers it is {peak:.2g}, and with
{sizes[-1]:,} it is {others[-1]:.3f}: {
    "better than the best small model"
    if others[-1] < valley
    else "no better than the best small model"
}, though it fits the noise of all twenty points exactly.
The textbook's picture ends where the second descent begins.
""")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Half of them wrong.** Give random labels to half of the training images and leave the others their own. Predict the
# training error at the end, and the error on new images: nearer to which of the two? And is it better if training is stopped
# early?
#
# **★★★ What stops it?** Switch on, one at a time: weight decay of 0.0005, dropout of 0.5, random crops with reflections.
# Predict which of them keeps the network from memorising random labels, and which of them helps with true labels. Is it the
# same one?

# %% [markdown]
# ## What became of it
#
# - **2017.** Networks fit random labels, and even random pixels; the usual measures of a model's size do not explain why they
#   generalise (Zhang, Bengio, Hardt, Recht, Vinyals). They learn simple patterns first, and memorise afterwards (Arpit and
#   others).
# - **2019–20.** Double descent gets its name (Belkin and others), and is found in ResNets and Transformers, over size and over the length
#   of training (Nakkiran and others).
# - **2022.** A small network that has memorised everything begins to generalise much later, all of a sudden ("grokking", Power and
#   others).
# - **Today** it is an open question why large networks generalise as well as they do.
#
# That is the last notebook. What now? Take one of the five guided projects of the tutorial (`minialex docs`), write a backend
# (notebook 14), or go on to the last chapter, for those who have many machines.

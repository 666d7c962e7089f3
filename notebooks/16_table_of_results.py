# %% [markdown]
# # 16 · Tables 1 and 2
#
# The paper's fame rests on two small tables. What do they say, how certain is it, and what would it take to get the same
# numbers today, with this library?

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.evaluation.errors import Evaluation, evaluate, wilson
from minialex.network.variants import build
from minialex.recipe import toml as recipe
from minialex.speed.plan import IMAGENET, floor, lay_out
from minialex.speed.rates import KNOWN

# %% [markdown]
# ## What the paper says
#
# Table 1: errors on the 150,000 test images of ILSVRC-2010, of which the labels are known. "Our network achieves top-1 and
# top-5 test set error rates of 37.5% and 17.0%" (section 6). A top-5 error: the right class is not among the five most
# probable ones.

# %% alt="Three bars, the top-5 errors of table 1: sparse coding, SIFT with Fisher vectors, and the network, whose bar is by far the shortest."
TABLE_1 = {
    "sparse coding, six models averaged (2010)": (47.1, 28.2),
    "SIFT + Fisher vectors (2011)": (45.7, 25.7),
    "the network": (37.5, 17.0),
}
show.bars(
    {name: top5 for name, (_, top5) in TABLE_1.items()},
    "top-5 error, %",
    headline="Table 1, as the paper has it",
    form="{:.1f}",
)

# %% [markdown]
# Table 2: ILSVRC-2012. The stars are networks with a sixth convolutional layer, trained on all of ImageNet first.

# %%
TABLE_2 = [
    ("1 CNN", "40.7", "18.2", "alexnet-2012"),
    ("5 CNNs, averaged", "38.1", "16.4", "alexnet-2012, five seeds"),
    ("1 CNN*", "39.0", "16.6", "conv6, then --init"),
    ("7 CNNs*, averaged", "36.7", "15.4", "five of the first and two of the third"),
]
show.table(
    TABLE_2, ("model", "top-1, validation, %", "top-5, validation, %", "recipe here")
)

# %% [markdown]
# ### Exercise 1: how sure is a number in the table?
#
# The test images are a sample. One image is a coin, wrong with probability $p$, and its variance is $p(1 - p)$; the error is
# the mean of many coins. In 95 % of cases a mean is within 1.96 of its own standard deviations. Give that distance, half the
# width of the 95 % interval, of an error that was measured on so many images (both are fractions of 1).


# %% tags=["exercise"]
def error_interval(error, images):
    return ...


# %%
check.error_interval(error_interval)


# %%
def sure(percent, images):
    low, high = wilson(percent / 100, images)
    return 100 * (high - low) / 2


rows = [
    (name, top1, sure(top1, 150_000), top5, sure(top5, 150_000))
    for name, (top1, top5) in TABLE_1.items()
]
show.table(rows, ("table 1", "top-1, %", "±", "top-5, %", "±"))

# %% [markdown]
# These intervals are of the *images* alone. How far another seed would have moved the numbers, the paper does not
# say.
#
# The error itself is counted like this; where classes tie, the tie is decided against the network. The interval is
# Wilson's, which for so many images is the one that you have written:

# %%
show.source(Evaluation.right, Evaluation.error, wilson)

# %% [markdown]
# ## What it would take
#
# Each row of the tables is a recipe and a few commands. These are the costs that can be computed beforehand: the size of the
# prepared images, and the time at least (notebook 15) on one card of today, in bfloat16 with a batch of 128.

# %%
cards = ("rtx4090", "a100", "h100")
paper = recipe.load("alexnet-2012")
trainings = {
    "1 CNN": ("alexnet-2012", 1),
    "5 CNNs": ("alexnet-2012", 5),
    "the 2012 program's settings": ("code145", 1),
}
rows = []
for name, (recipe_name, count) in trainings.items():
    plan = recipe.load(recipe_name)
    layout = lay_out(build(plan), (0, 0))
    floors = [
        floor(layout, [KNOWN[card]], "bfloat16", 128).training_seconds(epochs=plan.epochs)
        / 3600
        for card in cards
    ]
    rows.append((name, recipe_name, plan.epochs, *[count * hours for hours in floors]))
show.table(
    rows,
    (
        "row",
        "recipe",
        "epochs",
        *[
            f"hours on one {KNOWN[card].name.removeprefix('NVIDIA ')}, at least"
            for card in cards
        ],
    ),
)

# %%
store = IMAGENET * paper.image_size**2 * 3
steps = paper.epochs * (IMAGENET // paper.batch_size)
show.text(f"""
{IMAGENET:,} training images of {paper.image_size} × {paper.image_size} pixels are {store / 1e9:.0f} GB. {paper.epochs} epochs
are {steps:,} steps. And this is all there is to type (ImageNet itself must be asked for at image-net.org):

```bash
minialex prepare ./ilsvrc ./imagenet
minialex train --recipe alexnet-2012 --data ./imagenet --out runs/one
minialex evaluate runs/one --views 10
minialex train --recipe alexnet-2012 --data ./imagenet --seed 1 --out runs/two
minialex evaluate runs/one runs/two --views 10
```

A run that is killed goes on, bit for bit, with `minialex train --resume runs/one`.
""")

# %% [markdown]
# **We have not done it**: no run of the whole ImageNet is recorded in this project yet. What is recorded are the studies at small
# scale that you have seen in the notebooks before, and their machines, seeds and commands stand below each.
#
# ## The rows of table 2, in miniature
#
# One network; the same network asked ten times (four corners and the centre, each also reflected; section 4.1); three networks
# averaged.

# %% tags=["not-in-browser"]
images = experiment.images(train=4000, validation=1500)
base = recipe.load("small").replace(epochs=4, schedule="steps", steps=(4,))
three = [
    experiment.train(base.replace(seed=seed), images, validate=False).session
    for seed in range(3)
]
show.text(experiment.about(images))

# %% alt="Four bars, the validation error of one network and of three averaged, with one view and with ten: each step lowers it a little."
asked = {
    "one network, one view": evaluate(three[:1], images.validation),
    "one network, ten views": evaluate(three[:1], images.validation, views=10),
    "three networks, one view": evaluate(three, images.validation),
    "three networks, ten views": evaluate(three, images.validation, views=10),
}
show.bars(
    {name: 100 * found.error(1) for name, found in asked.items()},
    "validation error, %",
    headline="The same steps as in table 2",
    form="{:.1f}",
)

# %%
first = asked["one network, one view"]
lines = []
for name, found in asked.items():
    if found is first:
        continue
    better = int((found.right(1) & ~first.right(1)).sum())
    worse = int((~found.right(1) & first.right(1)).sum())
    gain = 100 * (better - worse) / len(first.labels)
    spread = 196 * np.sqrt(better + worse) / len(first.labels)
    verdict = (
        "better" if gain > spread else "worse" if gain < -spread else "no difference shown"
    )
    lines.append((name, better, worse, gain, spread, verdict))
show.table(
    lines,
    (
        "against one network, one view",
        "newly right",
        "newly wrong",
        "points won",
        "±",
        "verdict",
    ),
)

# %% [markdown]
# The two errors are of the *same* images, so that only those count whose answer has changed: a paired comparison, much sharper
# than two separate intervals. (The interval is of these images and these three networks. The studies below have more of both.)
#
# ### Exercise 2: average them
#
# Given the probabilities `probs` $[M, N, K]$ of $M$ networks for $N$ images, and the labels, give the top-1 error of their
# average.


# %% tags=["exercise"]
def averaged_error(probs, labels):
    return ...


# %%
check.averaged_error(averaged_error)

# %%
show.ablation("views")

# %%
show.ablation("ensemble")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ A tenth of a point.** How many test images would it take to tell 15.3% from 15.4%, if each network were tested on
# images of its own? Guess, then use your `error_interval`. Why do fewer suffice if both answer the *same* images?
#
# **★★★ Which mean?** Average the three networks geometrically (the mean of logarithms, made to add up to 1 again) instead
# of arithmetically. Predict whether the error rises, falls, or stays within its interval; and how much a fourth, fifth and
# sixth network would still bring.

# %% [markdown]
# ## What became of it
#
# - **2012.** With the seven networks of table 2 the authors win ILSVRC-2012: 15.3 % top-5 error on the test set, "compared to 26.2%
#   achieved by the second-best entry" (abstract).
# - **2013–15.** 11.7 % (Clarifai), 6.7 % (GoogLeNet), 3.6 % (ResNet): the competition is decided by networks of this kind, and a
#   careful human makes about 5 % (Russakovsky and others, 2015).
# - **2017 on.** The challenge ends. The network of 2012 stays what it was: small enough to be understood whole.
# - **2019.** New test images, gathered in the same way, are harder for every network, and the order of the networks hardly changes
#   (Recht and others).
# - **2020.** The labels themselves are looked at again (Beyer and others): many images have several right answers.
#
# Next: **notebook 17**, the first of four on what the paper ends with: more pictures.

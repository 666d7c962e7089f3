# %% [markdown]
# # 17 · More pictures, fewer errors
#
# ImageNet was new in 2009, and it was large: 1.2 million labelled photographs where others had tens of thousands. The
# paper's first page says why that matters, and its last sentence on results says what would help more: the results "can
# be improved simply by waiting for faster GPUs and bigger datasets to become available" (section 1).
#
# How much *is* a picture worth? The chapter *Why ImageNet* has the history; here you measure.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.data import dataset
from minialex.recipe import toml as recipe

# %% [markdown]
# ## AlexNet on a part of ImageNet
#
# Mishkin, Sergievskiy and Matas (2017) trained a smaller AlexNet on parts of ImageNet's training set. With the number of
# pictures counted in *doublings*, their errors lie nearly on a straight line:

# %% alt="The validation error of a smaller AlexNet over doublings of the number of training pictures: it falls nearly straight, from 69.5 % with 200,000 to 52.9 % with 1.2 million."
pictures = np.array([200_000, 400_000, 600_000, 800_000, 1_200_000])
errors = np.array([69.5, 60.7, 57.5, 56.2, 52.9])
show.curves(
    {"a smaller AlexNet": (np.log2(pictures / 200_000), errors)},
    "doublings of 200,000 training pictures",
    "validation error, %",
    headline="Each doubling takes off some points",
)

# %% [markdown]
# ### Exercise 1: what a doubling is worth
#
# Given numbers of `pictures` and the `errors` in percent, give by how many points the error falls at each doubling: fit a
# straight line to the errors over $\log_2$ of the numbers.


# %% tags=["exercise"]
def points_per_doubling(pictures, errors):
    return ...


# %%
check.points_per_doubling(points_per_doubling)

# %% [markdown]
# ## An experiment
#
# The small network, on less and less of the same training set. One thing needs care: with a tenth of the pictures an epoch
# has a tenth of the steps. Whoever keeps the number of *epochs* compares short training with long training. So we keep the
# number of *steps*, and a smaller set is gone through more often.
#
# Which pictures are left is drawn, and a smaller part is a part of the larger one:

# %%
show.source(dataset.some)

# %% tags=["not-in-browser"]
parts, steps = (250, 1000, 4000), 600
everything = experiment.images(train=max(parts), validation=1000)
base = recipe.load("small").replace(
    schedule="constant", crop=24, kernels=(16, 24, 32, 32, 24), features=(64, 64)
)
new, own = {}, {}
for count in parts:
    data = experiment.images(train=count, validation=1000)
    epochs = -(-steps * base.batch_size // count)
    run = experiment.train(base.replace(epochs=epochs), data, validate=False, steps=steps)
    new[count] = experiment.validation(run.session, data)
    seen = dataset.some(data.train, 1000, seed=0, purpose="seen before")
    own[count] = experiment.validation(run.session, experiment.with_validation(data, seen))
show.text(experiment.about(everything))

# %% alt="Two curves over the number of training pictures, 250 to 4,000: the error on new pictures falls, and the error on the training pictures rises to meet it."
lines = {
    name: (range(len(parts)), np.array([100 * found[count].error(1) for count in parts]))
    for name, found in (("on new pictures", new), ("on the training pictures", own))
}
show.curves(
    lines,
    "training pictures",
    "error, %",
    headline=f"The same network, {steps} steps each",
    ticks=[f"{count:,}" for count in parts],
)

# %%
on_new, on_own = (errors for _, errors in lines.values())
gaps = dict(zip(parts, on_new - on_own, strict=True))
few, many = parts[0], parts[-1]
falls = -float(np.polyfit(np.log2(parts), on_new, 1)[0])
low, high = (100 * end for end in new[many].interval(1))
show.text(f"""
From {few:,} to {many:,} pictures the error on new ones falls by {
    on_new[0] - on_new[-1]:.0f} points, some {falls:.1f} at each doubling. The
gap between the two curves goes from {gaps[few]:.0f} points to {
    gaps[many]:.0f}: what more pictures mainly do is to {
    "keep the network from memorising the ones it has"
    if gaps[few] > gaps[many] + 5
    else "change something else than the gap, in this run"
}. (One run each; from the number of validation images alone the last point is uncertain
between {low:.1f} and {high:.1f}.)
""")

# %% [markdown]
# With longer training and several seeds:

# %%
show.ablation("data")

# %% [markdown]
# ## The competition
#
# With so many pictures came a yardstick that everyone could use. In the ImageNet competition a team sent in five guesses for
# each test picture, and never saw the labels. The chapter has all entries; this is how the error was counted.
#
# ### Exercise 2: five guesses
#
# Given `guesses` $[N, 5]$ (numbers of classes) and the true `labels` $[N]$, give the share of pictures of which none of the
# five guesses is right.


# %% tags=["exercise"]
def competition_error(guesses, labels):
    return ...


# %%
check.competition_error(competition_error)

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Twice the pictures or twice the steps?** Train each of the three parts for 1,200 steps instead of 600. Predict for
# each whether the error on new pictures rises or falls. Which of the two doublings is worth more, and from which number of
# pictures on does the answer change?
#
# **★★★ One rare class.** Leave only a tenth of one class's training pictures (`dataset.Subset` takes a list of places).
# Predict by how much that class's own error rises, and what happens to the classes that it is confused with. Is the overall
# error a good measure of what you did?

# %% [markdown]
# ## What became of it
#
# - **2015.** The competition is described as a whole, with how the labels were made and what people achieve (Russakovsky and
#   others).
# - **2017.** On 300 million pictures with noisy labels the accuracy still rises with the logarithm of their number (Sun,
#   Shrivastava, Singh, Gupta). For many tasks the error falls as a *power* of the number of examples (Hestness and others).
# - **2019.** Somebody gathers new test pictures for ImageNet in the same way as the old ones, and every network is worse on
#   them by about as much as five years of progress (Recht and others).
# - **2020–22.** The same straight lines on logarithmic axes say in advance how good a language model will be (Kaplan and others),
#   and that many had been trained on too little text for their size (Hoffmann and others).
#
# Next: **notebook 18**, films.

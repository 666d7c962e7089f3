# %% [markdown]
# # 8 · The colour of the light
#
# A tomato at noon and a tomato at sunset are the same tomato. The pixels are not: all reds, greens and blues of the
# photograph have moved, and they have moved together. The paper's second augmentation imitates that.
#
# > "Specifically, we perform PCA on the set of RGB pixel values throughout the ImageNet training set." (section 4.1)
#
# and in every use of an image, all its pixels get the same shift
#
# $$[\mathbf{p}_1, \mathbf{p}_2, \mathbf{p}_3]\,[\alpha_1\lambda_1,\; \alpha_2\lambda_2,\; \alpha_3\lambda_3]^T,$$
#
# where $\mathbf{p}_i$ and $\lambda_i$ are the eigenvectors and eigenvalues of the covariance of the pixels' colours, and
# the $\alpha_i$ are drawn from a Gaussian with standard deviation 0.1. The idea is that "object identity is invariant to
# changes in the intensity and color of the illumination"; it is worth "over 1%" of top-1 error.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.data import ArraySplit, training_draws
from minialex.data.dataset import statistics_of
from minialex.data.statistics import Statistics
from minialex.recipe import toml as recipe

# %% [markdown]
# ## How colours vary
#
# Take all pixels of all training images, as points in a space whose axes are red, green and blue. Which way is the cloud
# longest? Its covariance knows:

# %%
show.source(Statistics)

# %%
data = experiment.images(train=1500, validation=800)
print(experiment.about(data))
found = statistics_of(data.train)
print("covariance of red, green, blue:")
print(found.covariance.round())

# %% [markdown]
# ### Exercise 1: the covariance
#
# Compute it yourself, for `pixels` of shape $[N, 3]$: the mean over all pixels of the products of two channels, each with
# its own mean subtracted.


# %% tags=["exercise"]
def covariance(pixels):
    return ...


# %%
check.covariance(covariance)

# %% [markdown]
# ### Exercise 2: how long is the cloud?
#
# What share of the whole variance lies along the longest direction alone? Write it as a function of the covariance.


# %% tags=["exercise"]
def first_share(cov):
    return ...


# %%
check.first_share(first_share)

# %%
rows = []
for i in range(3):
    r, g, b = found.eigenvectors[:, i]
    share = found.eigenvalues[i] / found.eigenvalues.sum()
    deviation = found.eigenvalues[i] ** 0.5
    rows.append(
        (f"{i + 1}", f"{r:+.2f}  {g:+.2f}  {b:+.2f}", f"{deviation:.0f}", f"{share:.1%}")
    )
show.table(
    rows,
    ("component", "red, green, blue", "standard deviation, of 255", "share of variance"),
)

# %% [markdown]
# In photographs the first component is nearly grey, (+, +, +): most of what varies is *how bright* it is. The second runs
# from blue to orange, the colour of daylight from shade to sunset; the third from green to magenta, and is small.
# (Generated shapes have other colours, so you may see something else here.)
#
# Let us walk along the components, up to 1½ standard deviations each way, with one image. The paper's draws, with a
# deviation of 0.1, stay in the middle three columns two times out of three, and within ±0.3 nearly always.

# %% alt="A photograph of a dog in three rows of nine, shifted along each principal component: the first makes it darker or brighter, the second more orange or blue, the third more purple or green."
photo = data.train.read(np.array([8]))[0].astype(np.float64)
walk, titles = [], []
for i in range(3):
    for step in (-1.5, -0.6, -0.3, -0.1, 0, 0.1, 0.3, 0.6, 1.5):
        shift = found.eigenvectors[:, i] * found.eigenvalues[i] ** 0.5 * step
        walk.append(np.clip(photo + shift[:, None, None], 0, 255).astype(np.uint8))
        titles.append(f"{i + 1}: {step:+g}" if step else "as it is")
show.images(
    walk,
    titles,
    columns=9,
    size=0.86,
    headline="Along each component, in standard deviations",
)

# %% [markdown]
# ## Eigenvalue or its root?
#
# There is a trap in the formula above. An eigenvalue is a *variance*, in squared units: on the scale of 0 to 255 it is in
# the thousands, and 0.1 times that is more than any pixel can bear. The 2012 program multiplied by the square root, the
# *standard deviation*. (On the scale of 0 to 1 one can take the formula at its word, and gets a milder shift.) In
# minialex that is the field `colour_scale`. Eight draws of each:

# %% alt="Eight photographs in four rows: as they are, shifted with the root of the eigenvalue, with the eigenvalue on a scale of 0 to 1, and on a scale of 0 to 255. The first three rows look alike, the last is nearly all black or white."
few = data.train.read(np.arange(8))


def shifted(shift):
    return np.clip(few + shift[:, :, None, None], 0, 255).astype(np.uint8)


def drawn(how):
    return training_draws(
        8, seed=1, step=0, size=32, crop=28, statistics=found, colour_scale=how
    ).shift


stream = np.random.default_rng(1).normal(0, 0.1, (8, 3))
literal = stream * found.eigenvalues @ found.eigenvectors.T
rows = [few, shifted(drawn("stdev")), shifted(drawn("eigenvalue")), shifted(literal)]
labels = ["as it is", "root (2012)", "λ on 0 … 1", "λ on 0 … 255"]
titles = [labels[i // 8] if i % 8 == 0 else "" for i in range(32)]
show.images(
    [image for row in rows for image in row], titles, headline="The same images, shifted"
)

# %% [markdown]
# ### Exercise 3: the shift
#
# Compute what is added to red, green and blue as the 2012 program did. `vectors` has the components as *columns*, `values`
# the eigenvalues, `alpha` the three draws.


# %% tags=["exercise"]
def colour_shift(vectors, values, alpha):
    return ...


# %%
check.colour_shift(colour_shift)

# %% [markdown]
# ## Does it help when the light changes?
#
# On ordinary test images the effect is about a point, too little for a notebook. But the idea makes a sharper prediction:
# a network that was trained with shifted colours should suffer *less when the light of the test images changes*. That we
# can test: train once without and once with colour shifts (also with stronger ones than the paper's), then shift the
# colours of all validation images along the components, more and more.

# %% tags=["not-in-browser"]
small = recipe.load("small").replace(
    epochs=8, schedule="constant", dropout=0, learning_rate=0.008
)
arms = {"none": 0.0, "0.1, the paper's": 0.1, "0.5": 0.5}
runs = {
    name: experiment.train(small.replace(colour=c), data, validate=False)
    for name, c in arms.items()
}

# %% alt="Three rising curves, the error as the colours of the test images are shifted further: the network trained with strong colour noise begins worst and rises least."
pixels = data.validation.read(np.arange(len(data.validation)))
directions = np.random.default_rng(0).choice([-1, 1], size=(len(pixels), 3))
amounts = (0, 0.25, 0.5, 0.75, 1.0, 1.5)
errors = {name: [] for name in runs}
for amount in amounts:
    moves = (directions * amount * found.eigenvalues**0.5) @ found.eigenvectors.T
    light = np.clip(pixels + moves[:, :, None, None], 0, 255).astype(np.uint8)
    under = experiment.with_validation(data, ArraySplit(light, data.validation.labels))
    for name, run in runs.items():
        errors[name].append(100 * experiment.validation(run.session, under).error(1))
show.curves(
    {f"trained with colour {name}": (amounts, values) for name, values in errors.items()},
    "shift of the test images, standard deviations along each component",
    "error, %",
    headline="Error as the light changes",
)

# %%
worse = {name: values[-1] - values[0] for name, values in errors.items()}
order = sorted(worse, key=worse.get)
half = 100 * 1.96 * (0.25 / len(pixels)) ** 0.5
show.text(f"""
From the light as it is to the strongest shift, the error rises by
{", ".join(f"**{worse[name]:+.1f}** points (colour {name})" for name in errors)}. The network that
minds least was trained with colour {order[0]}. It is one run each; from the number of test images
alone, each error is known to ±{half:.1f} points.
""")

# %% [markdown]
# ## The recorded study
#
# Augmentation none, crops and reflections, and colour on top:

# %%
show.ablation("augmentation")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Grey.** Make all training images grey: every channel their mean. What are the three eigenvalues, and the first
# direction, now? And for noise in which red, green and blue are drawn independently? Write both down, then use
# `statistics_of(ArraySplit(grey, labels))`.
#
# **★★★ One direction.** The last curve shifts the test images along all three components. Shift them along the *third*
# alone (`directions * (0, 0, 1)`), by as many of its deviations. Predict the order of the three networks, and whether the
# noise of training still helps. Why might it not?

# %% [markdown]
# ## What became of it
#
# - **2013–14.** Howard, in the next ImageNet competitions, adds random changes of contrast, brightness and colour balance; this
#   "colour jitter" is simpler, needs no eigenvectors, and became the more common choice.
# - **2015.** ResNets (He and others) are trained with the shift of this notebook, "the standard color augmentation". Some toolkits called it "lighting".
# - **2019.** Hendrycks and Dietterich measure what we have just measured, on a large scale: how errors rise when images
#   are corrupted (ImageNet-C). Robustness became a field of its own.
# - **2020.** In SimCLR (Chen and others) strong changes of colour turn out to be what contrastive learning needs most
#   besides crops: without them a network recognises two crops of one image by their colours alone.
#
# Next: **notebook 9**, in which half of the neurons are silenced.

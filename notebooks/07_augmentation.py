# %% [markdown]
# # 7 · Crops, reflections, ten views
#
# Sixty million parameters and 1.2 million images: such a network can memorise its training images. "The easiest and
# most common method to reduce overfitting on image data", the paper says, "is to artificially enlarge the dataset using
# label-preserving transformations" (section 4.1). A photograph of a leopard, moved a little or seen in a mirror, is still
# a photograph of a leopard. So the network never sees whole images of 256 × 256, but a random part of 224 × 224, half
# of the time reflected.
#
# > "This increases the size of our training set by a factor of 2048, though the resulting training examples are, of
# > course, highly interdependent." (section 4.1)
#
# Without it, the paper adds, the network "suffers from substantial overfitting".

# %%
import numpy as np

from minialex.backend.program import PROBS
from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.data import load, ten_crop_offsets, training_draws
from minialex.data.dataset import statistics_of
from minialex.recipe import toml as recipe
from minialex_numpy.augment import augment

# %% [markdown]
# ## The operation
#
# One operation does it all: cut, reflect, shift the colour (notebook 8), subtract the mean image. Bytes go in, floating
# point numbers come out. It runs where the network runs, while the next batch is being read.

# %%
show.source(augment)

# %% [markdown]
# *Which* crop an image gets is drawn anew each time that it is used. Here are five of the same image:

# %% alt="A drawn triangle on a blue ground, whole and in five random crops; some are reflected, and all are cut at other places."
big = load("shapes", size=256, train_images=8, validation_images=8)
figure = big.train.read(np.array([4]))
found = statistics_of(big.train)
draws = training_draws(5, seed=0, step=0, size=256, crop=224, statistics=found, colour=0)
crops = augment(
    np.repeat(figure, 5, axis=0), np.zeros((3, 256, 256), np.float32), draws.shift,
    draws.top, draws.left, draws.flip, crop=224, factor=1.0, mean_follows=True,
)  # fmt: skip
titles = [
    f"{top}, {left}{', reflected' if flip else ''}"
    for top, left, flip in zip(draws.top, draws.left, draws.flip, strict=True)
]
show.images([figure[0], *crops.astype(np.uint8)], ["256 × 256", *titles])

# %% [markdown]
# ### Exercise 1: how many?
#
# How many different images of `crop` × `crop` can be made of one of `size` × `size`, reflections included? Your function will
# not agree with the paper's 2048, and the check will tell you why.


# %% tags=["exercise"]
def count_views(size, crop):
    return ...


# %%
check.count_views(count_views)

# %% [markdown]
# ### Exercise 2: the mirror
#
# Reflect a batch of images $[N, 3, H, W]$ left to right.


# %% tags=["exercise"]
def reflect(images):
    return ...


# %%
check.reflect(reflect)

# %% [markdown]
# ## What overfitting looks like
#
# We train the small network twice on *few* images, once on their centres alone and once with crops and reflections, and
# draw the error on the training images beside the error on others.

# %% tags=["not-in-browser"]
data = experiment.images(train=800, validation=1000)
print(experiment.about(data))
small = recipe.load("small").replace(
    epochs=24, schedule="constant", colour=0, dropout=0, learning_rate=0.005
)
arms = {
    "centres only": {"crops": "centre", "reflect": False},
    "crops and reflections": {},
}
runs = {
    name: experiment.train(small.replace(**changes), data) for name, changes in arms.items()
}

# %% alt="Four curves over the epochs: with centres alone the training error falls far below the validation error, with crops and reflections the two stay near each other."
per_epoch = len(data.train) // small.batch_size
epochs = np.arange(1, small.epochs + 1)
curves = {}
for name, run in runs.items():
    training = np.array(run.step_errors).reshape(-1, per_epoch).mean(axis=1)
    curves[f"{name}: training"] = (epochs, 100 * training)
    curves[f"{name}: validation"] = (epochs, 100 * np.array(run.validation_errors))
show.curves(
    curves, "epochs", "error, %", height=3.9, headline="Training and validation error"
)

# %%
gap = {}
for name, run in runs.items():
    gap[name] = 100 * (
        np.mean(run.validation_errors[-3:]) - run.training_error(3 * per_epoch)
    )
show.text(f"""
Over the last three epochs the validation error exceeds the training error by
**{gap["centres only"]:.0f} points** with centres only, and by
**{gap["crops and reflections"]:.0f} points** with crops and reflections. (The training error with
crops is that on cropped images, which are harder.)
""")

# %% [markdown]
# Note what this does *not* say. A smaller gap is less overfitting; whether the validation error itself is lower depends on
# how long one trains, since there is more to learn. At small budgets crops can even hurt. The recorded study has trained
# longer:

# %%
show.ablation("augmentation")

# %% [markdown]
# ## Ten looks at test time
#
# At test time there is no reason to be content with one crop. The network
#
# > "makes a prediction by extracting five 224 × 224 patches (the four corner patches and the center patch) as well as
# > their horizontal reflections (hence ten patches in all), and averaging the predictions made by the network's softmax
# > layer on the ten patches." (section 4.1)

# %%
show.source(ten_crop_offsets)

# %% [markdown]
# ### Exercise 3: ten views
#
# Return the ten views of an image $[3, S, S]$, in any order, as an array $[10, 3, \text{crop}, \text{crop}]$.


# %% tags=["exercise"]
def ten_views(image, crop):
    return ...


# %%
check.ten_views(ten_views)

# %% alt="Ten views of a photograph of a deer, four corners and the centre, each also reflected. Above each stands the network's answer with its probability, and the answers differ."
session = runs["crops and reflections"].session
some = data.validation.read(np.arange(60))
some_labels = data.validation.labels[:60]
opinions = []  # of each view: probabilities [60, classes]
for top, left, flip in ten_crop_offsets(32, 28):
    feed = session.view_feed(some, some_labels, top, left, flip)
    opinions.append(session.backend.to_numpy(session.step("infer", 60)(feed)[PROBS]))
opinions = np.stack(opinions)
torn = int(np.argmax(opinions.std(axis=0).max(axis=1)))  # where the views disagree most
views = []
for top, left, flip in ten_crop_offsets(32, 28):
    cut = some[torn, :, top : top + 28, left : left + 28]
    views.append(cut[:, :, ::-1] if flip else cut)
names = [f"{data.titles[o.argmax()]} {o.max():.0%}" for o in opinions[:, torn]]
truth = data.titles[int(some_labels[torn])]
show.images(
    views,
    names,
    columns=5,
    size=1.3,
    headline=f"Ten views of one image ({truth}), and what the network takes each for",
)

# %% [markdown]
# The same weights, one view against ten, on all validation images. Since both are the *same* network on the *same* images,
# this can be told apart much more sharply than two networks: only the images on which the two disagree count.

# %%
one = experiment.validation(session, data, views=1)
ten = experiment.validation(session, data, views=10)
better = int((ten.right(1) & ~one.right(1)).sum())
worse = int((one.right(1) & ~ten.right(1)).sum())
half = 100 * 1.96 * (better + worse) ** 0.5 / len(one.labels)
difference = 100 * (ten.error(1) - one.error(1))
shown = "shown" if abs(difference) > half else "not shown"
show.text(f"""
One view: **{one.error(1):.1%}** top-1 error. Ten views: **{ten.error(1):.1%}**. On {better} images
ten views are right and one view is wrong, on {worse} it is the other way around: a difference of
{difference:+.1f} ± {half:.1f} points (95%), so on these {len(one.labels):,} images a difference is
**{shown}**. In the paper: 39.0% with one view, 37.5% with ten (section 6, footnote).
""")

# %%
show.ablation("views")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Seen before?** In 90 epochs a network sees each image 90 times, each time one of 33 · 33 · 2 views. How probable is
# it that it never sees the very same view of it twice? Guess first; then compute or simulate it.
#
# **★★★ Upside down.** Turn all validation images upside down (`images[:, :, ::-1]`) and ask the network that was trained
# with crops and reflections. Predict its error, and the classes that suffer most and least. Would training with such
# reflections be *label-preserving*? For which classes of ImageNet would it not?

# %% [markdown]
# ## What became of it
#
# - **2014.** GoogLeNet (Szegedy and others) cuts crops of any size and shape and stretches them: the "random resized
#   crop" that nearly all training since has used.
# - **2017.** Cutout (DeVries, Taylor) blacks out a square; mixup (Zhang and others) adds two images up, with their
#   labels. CutMix (Yun and others, 2019) does both.
# - **2018–19.** AutoAugment and RandAugment (Cubuk and others) search for the transformations, or just draw them.
# - **2020.** SimCLR (Chen and others) and its kin learn from the crops *themselves*: two crops of one image should look
#   alike to the network, without any label.
# - Averaging over views has a name by now, test-time augmentation, and is still what one does to win a competition.
#
# Next: **notebook 8**, the paper's other augmentation, which plays with the light.

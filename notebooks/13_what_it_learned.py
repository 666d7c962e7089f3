# %% [markdown]
# # 13 · The whole network, and what it learned
#
# Now everything is together: convolutions, ReLU, normalisation, pooling, two columns, augmentation, dropout, the update. We
# send an image through the paper's own network, train its small sibling, and then look inside: what does it answer, where
# does it look, what does it find alike?

# %%
import time

import numpy as np

from minialex.course import checks as check
from minialex.course import notebooks
from minialex.course.notebooks import experiment, show
from minialex.data import load
from minialex.evaluation.errors import evaluate
from minialex.figures import look as closer
from minialex.figures import pictures
from minialex.look.neighbours import feature_layer, nearest, pixel_ranks
from minialex.look.sensitivity import occlusion
from minialex.recipe import toml as recipe
from minialex.runs.weights_file import read

# %% [markdown]
# ## All 61 million parameters
#
# The full network, untrained, on one image. `session.probabilities` is all that a user calls; a *session* is a network with
# its weights in its place, and one step of it is recorded as a program of operations:

# %%
full = recipe.load("alexnet-2012").replace(batch_size=1, image_size=256)
shapes = load("shapes", size=256, train_images=16, validation_images=4)
session = experiment.start(full, shapes)
image = shapes.validation.read(np.array([0]))
session.probabilities(image)  # the first time, the fast backend compiles
began = time.perf_counter()
probabilities, _ = session.probabilities(image)
seconds = time.perf_counter() - began
weights = session.weights()
show.text(f"""
{sum(w.size for w in weights.values()):,} parameters in {len(weights)} arrays, one image, {
    probabilities.size:,}
probabilities that add up to {probabilities.sum():.4f}: in {
    "less than a tenth of a second"
    if seconds < 0.1
    else "less than a second"
    if seconds < 1
    else "some seconds"
} on this machine's processor. In 2012 two cards needed five to
six days for 90 passes over 1.2 million images: it is the *learning* that costs.
""")

# %%
show.source(type(session).probabilities)

# %% [markdown]
# ## A network of our own
#
# A hundredth of the work, the same parts; trained here and now.

# %% tags=["not-in-browser"]
images = experiment.images(train=8000, validation=1000)
run = experiment.train(
    recipe.load("small").replace(epochs=6, schedule="steps", steps=(6,)), images
)
trained = run.session
found = evaluate([trained], images.validation)
show.text(f"""
{experiment.about(images)} After {run.steps:,} steps the validation error is {found.words(1)}; for {found.words(5)} the right
class is not among the five most probable ones. (The intervals are from the number of images alone.)
""")

# %% [markdown]
# ## What it answers
#
# > "Notice that even off-center objects, such as the mite in the top-left, can be recognized by the net. Most of the top-5
# > labels appear reasonable." (section 6.1)
#
# Figure 4 of the paper, left, on our images. Are the wrong answers reasonable?

# %% alt="Eight photographs, each with the network's five most probable classes as bars: the true class is blue and ticked, and not always the longest."
chosen = np.arange(8)
some = images.validation.read(chosen)
show.figure(
    pictures.predictions(
        some, found.probs[chosen], images.class_names, found.labels[chosen]
    )
)

# %%
confused = pictures.most_confused(found.confusion, 3)
show.text(
    "Most often confused: "
    + "; ".join(
        f"{images.class_names[a]} taken for {images.class_names[b]} ({count} of {found.confusion[a].sum()})"
        for a, b, count, _ in confused
    )
    + "."
)

# %% [markdown]
# ### Exercise 1: the five most probable
#
# Give the numbers of the `count` most probable classes, the most probable first.


# %% tags=["exercise"]
def top_classes(probs, count):
    return ...


# %%
check.top_classes(top_classes)

# %% [markdown]
# ## The kernels
#
# Figure 3 of the paper shows 96 kernels of the first layer after 90 epochs: edges in all directions, blobs of colour. Five
# pixels and some minutes are too few for that. A network with larger kernels that was trained for longer comes with the
# library (recipe `figure3`). Its kernels after 24 epochs of 20,000 photographs of CIFAR-10:

# %% tags=["not-in-browser"] alt="The kernels of conv1 of the trained network in two blocks, one a column, as squares of 7 × 7 coloured pixels: light and dark bars in several directions, mostly grey, and blobs of green, blue, red and magenta."
grown = read(notebooks.trained())
show.figure(pictures.kernels(grown.tensors["conv1.weight"], grown.recipe.columns))

# %% [markdown]
# Nobody asked for edges or for colours: they are what lowers the loss. And the kernels that were trained above? The norm of
# what they have learned, against what they began with, says how far they have come.

# %% alt="The kernels of conv1 in two rows, one a column, as squares of 5 × 5 coloured pixels: mostly noise, since the network is small and was trained for minutes."
kernels = trained.weights()["conv1.weight"]
began_with = experiment.start(run.session.recipe, images).weights()["conv1.weight"]
moved = np.linalg.norm(kernels - began_with) / np.linalg.norm(began_with)
show.figure(pictures.kernels(kernels, trained.recipe.columns))

# %%
seen = (
    "Much of what you see is still the random beginning."
    if moved < 1
    else "What you see is learned."
)
show.text(f"""
The kernels have moved by {100 * moved:.0f} % of the length that they began with. {seen} `minialex look kernels RUN` shows those of any run.
""")

# %% [markdown]
# ## Where it looks
#
# Cover a small square of the image, ask again, and move on. Where the right class loses most, the network was looking.
# (Zeiler and Fergus, 2013.) We take an image that it answers rightly, but not with certainty.

# %% alt="Left a photograph of the front of a car with a small square that covers it place by place; right a map of how far the probability of automobile falls where the square is: bluest on the bonnet, in the middle, and at one place of the lower edge."
right = np.flatnonzero(found.right(1))
sure = int(right[np.argmin(np.abs(found.probs[right].max(axis=1) - 0.7))])
picture = images.validation.read(np.array([sure]))[0]
covered = occlusion(trained, picture, label=int(found.labels[sure]), size=6, stride=2)
middle = (trained.recipe.image_size - trained.recipe.crop) // 2
inside = picture[
    :, middle : middle + trained.recipe.crop, middle : middle + trained.recipe.crop
]
show.figure(closer.occlusion(inside, covered, images.class_names))

# %%
fall = covered.drop(trained.recipe.crop)
row, column = np.unravel_index(int(np.nanargmax(fall)), fall.shape)
flips = float((covered.answers != covered.label).mean())
show.text(f"""
Covering the surroundings of row {row}, column {column} costs the class "{images.class_names[covered.label]}"
{100 * np.nanmax(fall):.0f} points of its {100 * covered.whole:.0f} %. With {100 * flips:.0f} % of the squares the answer becomes
another class.
""")

# %% [markdown]
# ## What it finds alike
#
# > "If two images produce feature activation vectors with a small Euclidean separation, we can say that the higher levels of
# > the neural network consider them to be similar. […] Notice that at the pixel level, the retrieved training images are
# > generally not close in L2 to the query images" (section 6.1)
#
# Figure 4 of the paper, right: for some images, the training images whose activity in the last hidden layer is nearest.

# %% alt="Four photographs, each in a row with its six nearest training images in the features: the horse and the automobile find mostly their own kind, the deer other animals too, and the dog even an airplane and a truck."
layer = feature_layer(trained.network)
library = np.arange(2000)
known = np.concatenate(
    [
        trained.activations(images.train.read(library[begin : begin + 100]), [layer])[layer]
        for begin in range(0, len(library), 100)
    ]
)
queries = np.array([int(np.flatnonzero(found.right(1))[n]) for n in range(4)])
asked = trained.activations(images.validation.read(queries), [layer])[layer]
near = nearest(known, asked, count=6)
labels = np.asarray(images.train.labels)[near.images]
neighbours = [images.train.read(row) for row in near.images]
names = [images.class_names[k] for k in found.labels[queries]]
show.figure(
    closer.neighbours(
        images.validation.read(queries), names, neighbours, near, labels, images.class_names
    )
)

# %%
everyone = np.arange(len(images.validation))
features = np.concatenate(
    [
        trained.activations(images.validation.read(everyone[begin : begin + 100]), [layer])[
            layer
        ]
        for begin in range(0, len(everyone), 100)
    ]
)
by_features = nearest(known, features, count=1).images[:, 0]
flat_train = images.train.read(library).reshape(len(library), -1).astype(np.float32)
flat_validation = (
    images.validation.read(everyone).reshape(len(everyone), -1).astype(np.float32)
)
by_pixels = nearest(flat_train, flat_validation, count=1).images[:, 0]
truth = np.asarray(images.validation.labels)
train_labels = np.asarray(images.train.labels)
features_right = 100 * float((train_labels[by_features] == truth).mean())
pixels_right = 100 * float((train_labels[by_pixels] == truth).mean())
ranks = pixel_ranks(
    images.validation.read(queries), np.stack(neighbours), images.train.read(library)
)
show.text(f"""
Is the nearest training image of the same class? For {features_right:.0f} % of the {len(everyone):,} validation images if
distances are taken in `{layer}`, for {pixels_right:.0f} % if they are taken between pixels (by chance it would be
{100 / len(images.class_names):.0f} %). And as images? On average {100 * ranks.mean():.0f} % of the training images are nearer to the
query in pixels than its neighbours above (for neighbours chosen at random it would be half).
""")

# %% [markdown]
# ### Exercise 2: the nearest
#
# Find the row of `features` $[N, D]$ that is nearest to `query` $[D]$, and give its index.


# %% tags=["exercise"]
def nearest_image(features, query):
    return ...


# %%
check.nearest_image(nearest_image)

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ How late?** Take the nearest training image by the numbers of conv1, pool2, pool5, fc6 and fc7 (flatten the maps
# first). Predict the order of the five, from the share of neighbours that are of the same class, and where pixels stand
# among them.
#
# **★★★ The same mistakes?** Train the network again with `seed=1`. If two networks erred independently, how many images
# would both get wrong? Predict how many really are, and in how many of those both give the *same* wrong answer. What does
# it say about averaging networks?

# %% [markdown]
# ## What became of it
#
# - **2013–14.** The last hidden layers turn out to be good *features* for tasks that the network was never trained for (DeCAF,
#   Donahue and others; Razavian and others): fine-tuning a network becomes the way to begin. Here: `minialex train --init`.
# - **2013.** Szegedy and others find images that look the same to us and that the network answers wrongly with certainty. It
#   does not look as we do.
# - **2015–17.** Pictures are *dreamed* from the layers (Mordvintsev and others); Grad-CAM (Selvaraju and others) finds where a
#   network looks without covering anything.
# - **2018.** ImageNet networks prefer texture to shape (Geirhos and others, published 2019).
# - **2020–21.** Features are learned without labels (SimCLR) and from captions (CLIP). Nearest neighbours in such features are
#   how images are searched today: the paper's figure 4, right, at the scale of the web.
#
# Next: **notebook 14**, your own backend.

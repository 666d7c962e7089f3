# %% [markdown]
# # 1 · From an image to the network
#
# In 2012 three people in Toronto trained a network on 1.2 million photographs, and computer vision was never the same.
# This course takes that network apart. We begin with what goes in, an image, and follow it through all eight layers.
#
# You need to know a little Python and NumPy. Run the cells from top to bottom (Shift + Enter), change them, and run
# them again: nothing here can break.

# %%
import math

import numpy as np

from minialex.backend import registry
from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.data import load
from minialex.engine.summary import summarise
from minialex.network import models
from minialex.recipe import toml as recipe

# %% [markdown]
# ## An image is an array
#
# A colour image is three grids of numbers: how red, how green and how blue every pixel is. Each number is one byte,
# a whole number from 0 to 255. That is all the network ever gets.
#
# We keep the three grids (*channels*) first, then rows, then columns: an array of shape $[3, H, W]$. A batch of $N$
# images is $[N, 3, H, W]$. Remember the order **N C H W**; it stays the same from the first layer to the last.

# %%
photographs = experiment.images(train=500, validation=100)
image = photographs.validation.read(np.array([3]))[0]
print("shape", image.shape, " type", image.dtype, " from", image.min(), "to", image.max())
print("the red of the first 4 rows and 10 columns:")
print(image[0, :4, :10])

# %% alt="One small photograph seven times: as it is, its red, green and blue values in grey, reflected left to right, brighter, and with its green values alone."
names = ["image", "red", "green", "blue", "reflected", "brighter", "only green"]
only_green = image * np.array([0, 1, 0], np.uint8)[:, None, None]
brighter_by_half = np.minimum(image * 1.5, 255).astype(np.uint8)
variations = [image, *image, image[:, :, ::-1], brighter_by_half, only_green]
show.images(
    variations,
    names,
    columns=7,
    headline="Everything that is done to an image is arithmetic on its array",
)

# %% [markdown]
# ### Exercise 1: brighter
#
# Write a function that makes every pixel of a `uint8` image brighter by 60. No pixel may end above 255. (A byte has a
# trap in store for you: try `np.uint8(250) + np.uint8(10)`.)


# %% tags=["exercise"]
def brighter(image):
    return ...


# %%
check.brighter(brighter)

# %% [markdown]
# ## The network, as the paper tells it
#
# > "the net contains eight layers with weights; the first five are convolutional and the remaining three are
# > fully-connected" (section 3.5)
#
# Its first layer "filters the 224×224×3 input image with 96 kernels of size 11×11×3 with a stride of 4 pixels"; its
# last one gives a number for each of 1,000 classes. Halfway, the network is divided into two *columns*, one on each of
# two graphics cards, and in most layers a column sees only itself.
#
# In minialex the paper's table *is* the code. This is read from the library's own file:

# %%
show.source("minialex.network.models.ALEXNET")

# %% [markdown]
# And this is what it comes to. *Output* is one column's piece, channels × rows × columns.

# %%
network = summarise(recipe.load("alexnet-2012"))
rows = [
    (row.layer, f"{row.columns} × {'×'.join(map(str, row.output))}", row.kernel, row.reads, row.parameters,
     row.multiply_adds)
    for row in network.rows
    if row.parameters or "pool" in row.layer
]  # fmt: skip
show.table(
    rows, ("layer", "columns × output", "kernels", "reads", "parameters", "multiply-adds")
)

# %%
show.text(f"""
Altogether **{network.parameters:,} parameters** (the paper's abstract says "60 million"),
**{network.neurons:,} neurons** ("650,000"), and {network.multiply_adds:,} multiplications for one look at one image.
""")

# %% [markdown]
# ### Two halves of a different kind
#
# Look at the last two columns of the table again. The convolutional layers do nearly all of the *work*; the fully
# connected layers hold nearly all of the *parameters*. A convolution uses each of its weights at every place of the
# image; a full layer uses each weight once.

# %% alt="Bars, the share of each layer in the parameters: conv1 to conv5 hold hardly any, fc6 more than half, fc7 more than a quarter, fc8 the rest."
layers = [row for row in network.rows if row.parameters]
show.bars(
    {row.layer: 100 * row.parameters / network.parameters for row in layers},
    "% of the parameters",
    headline="Where the parameters are …",
    form="{:.1f}",
)

# %% alt="Bars, the share of each layer in the multiplications: conv1 to conv5 do most of them, conv2 alone almost a third; fc6, fc7 and fc8 do few."
show.bars(
    {row.layer: 100 * row.multiply_adds / network.multiply_adds for row in layers},
    "% of the multiplications",
    headline="… and where the work is",
    form="{:.1f}",
)

# %%
convolutions = [row for row in layers if row.layer.startswith("conv")]
held = sum(row.parameters for row in convolutions) / network.parameters
done = sum(row.multiply_adds for row in convolutions) / network.multiply_adds
show.text(f"""
The five convolutional layers hold {held:.1%} of the parameters and do {done:.1%} of the
multiplications.
""")

# %% [markdown]
# ## 224 or 227?
#
# Here is a puzzle that has cost many readers an evening. A kernel of 11 rows that moves 4 rows at a time over $H$ rows
# has
#
# $$P = \left\lfloor \frac{H + \text{padding} - 11}{4} \right\rfloor + 1$$
#
# places. The paper's input has 224 rows, and its first layer gives 55. But $(224 - 11)/4 = 53.25$, so there are only
# 54 places! With 227 rows it would be exactly 55, and many programs since have quietly used 227.
#
# The original program explains it. Its authors rounded *up*, and what the kernel reads beyond the last row counts as
# zero: three rows of zeros below and three columns to the right. So 224 is no misprint. This is the library's rule:

# %%
show.source(models.Conv2d.output_shape)

# %%
wanted = {
    "224, no zeros": (224, 0),
    "224, three zeros below (2012)": (224, 3),
    "224, two on each side (torchvision)": (224, 4),
    "227, no zeros (Caffe)": (227, 0),
}
counts = []
for name, (rows_in, zeros) in wanted.items():
    conv1 = models.Conv2d("conv1", 96, 11, 4, ((0, zeros), (0, zeros)))
    P = conv1.output_shape((3, rows_in, rows_in), 1)[1]
    counts.append((name, P, 4 * (P - 1) + 11, rows_in + zeros))
show.table(counts, ("input rows", "places", "rows that the kernel reads", "rows there are"))

# %% [markdown]
# ### Exercise 2: count the places
#
# Write the rule yourself. `padding` is what is added above and below together.


# %% tags=["exercise"]
def rows_after(rows, kernel, stride, padding):
    return ...


# %%
check.rows_after(rows_after)

# %% [markdown]
# ## One image through the real thing
#
# Let us build the whole network, all 61 million parameters, and send an image of 256 × 256 pixels through it (its
# central 224 × 224). It has not learned anything yet: its weights are random numbers, drawn as section 5 says, "from a
# zero-mean Gaussian distribution with standard deviation 0.01".

# %%
shapes = load("shapes", size=256, train_images=40, validation_images=8)
paper = recipe.load("alexnet-2012").replace(batch_size=4, image_size=256)
untrained = experiment.start(paper, shapes, registry.load("numpy"))
print(
    f"{sum(array.size for array in untrained.weights().values()):,} numbers have been drawn"
)

# %%
picture = shapes.validation.read(np.array([5]))
convolutional = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]
looked_at = [*convolutional, "fc6", "fc7", "fc8"]
activations = untrained.activations(picture, looked_at)
show.table(
    [
        (name, "×".join(map(str, a.shape[1:])), a[0].size, float(a.std()))
        for name, a in activations.items()
    ],
    ("layer", "output, both columns", "numbers", "their standard deviation"),
)

# %% alt="A star on a plain ground and maps that random kernels make of it: in conv1 and pool1 it is sharp, in conv2 blurred, in conv5 only shades at the borders are left."
maps = [picture[0]]
titles = ["the image"]
for name in ("conv1", "pool1", "conv2", "conv5"):
    output = activations[name][0]
    strongest = np.argsort(-output.std(axis=(1, 2)), kind="stable")[:7]
    for channel in strongest:
        span = float(np.ptp(output[channel])) or 1.0
        maps.append((output[channel] - output[channel].min()) / span)
        titles.append(f"{name}: {channel}")
    if name != "conv5":
        maps.append(np.ones((2, 2)))
        titles.append("")
show.images(
    maps,
    titles,
    headline="Maps of some channels, before any training: even random kernels see edges",
)

# %% [markdown]
# Two things to notice. Maps shrink on their way (55, 27, 13, 6 rows) while channels multiply (96, 256, 384): the network
# gives up *where* to gain *what*. And random kernels already answer to edges and colours, which is why a network can
# begin to learn from them at all.
#
# Its answer for 1,000 classes is still a guess:

# %%
probabilities, loss = untrained.probabilities(picture, np.array([0], np.int64))
show.text(f"""
The most probable class has a probability of {probabilities.max():.5f}, the least probable one
{probabilities.min():.5f}; a uniform guess would be {1 / 1000:.5f}. Its loss for class 0 is
{loss:.3f}. Guessing evenly costs $\\ln 1000 = {math.log(1000):.3f}$: a number that you will meet
again in notebook 4.
""")

# %% [markdown]
# ### Exercise 3: what do two columns save?
#
# The network is divided because one card of 2012 had 3 GB of memory. Suppose it were in *one* column, with as many
# kernels, every layer seeing all channels of the layer before. How many parameters would it have?

# %% tags=["exercise"]
parameters_in_one_column = ...

# %%
check.one_column_parameters(parameters_in_one_column)

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Larger pictures.** Show the network 256 × 256 pixels instead of 224 × 224. Which layers get more parameters, and
# which do more multiplications? Guess both totals, in per cent of today's, then ask
# `summarise(recipe.load("alexnet-2012").replace(image_size=288, crop=256))`.
#
# **★★★ Half as wide.** Halve the number of kernels and of neurons in every layer: `replace(kernels=(48, 128, 192, 192,
# 128), features=(2048, 2048))`. For which layers do the parameters fall to a half, for which to a quarter, and why is
# neither total exactly a quarter of what it was?

# %% [markdown]
# ## What became of it
#
# - **2013–14.** "Network in Network" (Lin, Chen, Yan) ends with an average over each map instead of large full layers.
#   GoogLeNet (Szegedy and others, 2014) does likewise: 22 layers with about a twelfth of this network's parameters.
# - **2014.** VGG (Simonyan, Zisserman) goes the other way: only 3 × 3 kernels, up to 19 layers, 138 million parameters
#   in its 16-layer form, most of them again in the first full layer. Krizhevsky's own "One weird trick" joins the two
#   columns into one; that network is the "AlexNet" of torchvision.
# - **2015.** ResNet (He and others) adds the input of a block to its output, and trains 152 layers.
# - **2020.** The Vision Transformer (Dosovitskiy and others) cuts the image into patches of 16 × 16: its first step is
#   a convolution with kernels as large as its stride.
#
# Next: **notebook 2**, where you write the convolution yourself.

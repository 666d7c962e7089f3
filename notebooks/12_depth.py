# %% [markdown]
# # 12 · How deep must it be?
#
# Eight layers with weights: in 2012 that was called *deep*. Was it needed? The paper's answer is an experiment that takes
# layers away, an *ablation*.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import draw, experiment, show
from minialex.engine.summary import summarise
from minialex.look.units import receptive_field
from minialex.network import models, variants
from minialex.recipe import toml as recipe

# %% [markdown]
# ## What the paper says
#
# > "we found that removing any convolutional layer (each of which contains no more than 1% of the model's parameters)
# > resulted in inferior performance." (section 1)
#
# > "removing any of the middle layers results in a loss of about 2% for the top-1 performance of the network. So the depth
# > really is important for achieving our results." (section 7)
#
# In minialex a layer is taken away with a field of the recipe, `omit`: a function from network to network takes it out,
# with its ReLU. What is omitted is simply not there, and the next layer reads from the one before it:

# %%
show.source(variants.shortened)

# %%
paper = recipe.load("alexnet-2012")
whole = summarise(paper)
rows = []
for gone in (
    (),
    ("conv3",),
    ("conv4",),
    ("conv5",),
    ("conv3", "conv4"),
    ("conv3", "conv4", "conv5"),
):
    found = summarise(paper.replace(omit=gone))
    rows.append(
        (", ".join(gone) or "nothing", found.parameters, 100 * found.parameters / whole.parameters,
         100 * found.multiply_adds / whole.multiply_adds)
    )  # fmt: skip
show.table(
    rows,
    ("taken away", "parameters left", "% of the parameters", "% of the multiplications"),
)

# %%
shares = {
    row.layer: 100 * row.parameters / whole.parameters
    for row in whole.rows
    if row.layer.startswith("conv")
}
above = [name for name, share in shares.items() if share > 1]
show.text(f"""
Is it true that each convolutional layer "contains no more than 1%" of the parameters? Of five layers,
{len(above)} have more: {" and ".join(f"{name} {shares[name]:.2f} %" for name in above)}. The point stands: hardly
anything is taken away, and in the paper's experiment much is lost. Two of the rows above need care: without conv3 the two columns also no longer meet
before the full layers, and without conv5 fc6 sees all of conv4's channels, so that there are *more* parameters.
""")

# %% [markdown]
# ### Exercise 1: a share
#
# Compute one of them by hand: what percentage of the parameters does conv3 have?

# %% tags=["exercise"]
percent_of_conv3 = ...

# %%
check.share_of_conv3(percent_of_conv3)

# %% [markdown]
# ### Exercise 2: without conv4
#
# How many parameters does the network have without conv4?

# %% tags=["exercise"]
parameters_without_conv4 = ...

# %%
check.without_conv4(parameters_without_conv4)

# %% [markdown]
# ## What depth gives: a wider view
#
# One place of conv1 sees 11 rows of the image. Each layer above sees some places of the layer below, and so more of the
# image.

# %% alt="Nested squares on a grey image, the part that one place of a layer sees: with all five layers it grows from 11 rows in conv1 to 163 in conv5, without conv3 and conv4 to 99."
network = models.ALEXNET
seen = [layer.name for layer in network.layers if layer.name.startswith(("conv", "pool"))]
sizes = {name: receptive_field(network, name)[0].size for name in seen}
short = variants.build(paper.replace(omit=("conv3", "conv4")))
draw.views({"all five layers": network, "without conv3, conv4": short})

# %% alt="Bars, the rows of the image that one place of each layer sees: from 11 in conv1 to 195 in pool5."
show.bars(
    sizes, "rows of the image", headline="What one place of each layer sees", form="{:.0f}"
)

# %% [markdown]
# ### Exercise 3: compute it
#
# Given the windows of the layers in their order, each as (rows, stride), how many rows of the image does one place of the last
# one see? For conv1 alone, `[(11, 4)]`, it is 11; with pool1, `[(11, 4), (3, 2)]`, it is 19.


# %% tags=["exercise"]
def receptive_rows(windows):
    return ...


# %%
check.receptive_rows(receptive_rows)

# %% [markdown]
# ## An experiment
#
# The small network on images of 32 × 32, with nothing, one, or all of the middle layers taken away. All have the same seed, the
# same images, the same order.

# %% tags=["not-in-browser"]
images = experiment.images(train=4000, validation=2000)
base = recipe.load("small").replace(epochs=4, schedule="steps", steps=(4,))
arms = {
    "all five": (),
    "without conv3": ("conv3",),
    "without conv4": ("conv4",),
    "without conv5": ("conv5",),
    "without 3, 4 and 5": ("conv3", "conv4", "conv5"),
}
runs = {
    name: experiment.train(base.replace(omit=gone), images) for name, gone in arms.items()
}
show.text(experiment.about(images))

# %% alt="Five bars, the validation error of one run each: all five layers, without conv3, without conv4, without conv5, without all three. They are nearly as long as one another."
errors = {name: 100 * run.validation_errors[-1] for name, run in runs.items()}
show.bars(
    errors,
    "validation error, %",
    headline="One run each: look at the interval below before you believe it",
    form="{:.1f}",
)

# %%
N = len(images.validation)
full = errors["all five"]
interval = 196 * np.sqrt(2 * (full / 100) * (1 - full / 100) / N)
worse = [name for name, error in errors.items() if error > full + interval]
better = [name for name, error in errors.items() if error < full - interval]
show.text(f"""
With {N:,} validation images a difference of two networks is uncertain by ±{
    interval:.1f} points from the images alone, and
by more from the seed. Beyond that, {
    f"{', '.join(worse)} did worse than all five layers"
    if worse
    else "nothing did worse than all five layers"
}{f"; {', '.join(better)} did better" if better else ""}.

On images of 32 rows, of which conv2 sees nearly half already, a shallow network that learns quickly may well win a short
race. The paper's claim is about 224 rows, 1,000 classes and 90 epochs. The recorded study has more images, kernels of 3 × 3 so that every
layer sees more than the one below it, and several seeds:
""")

# %%
show.ablation("depth")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ How many more?** After pool2 the network has three layers of 3 × 3. How many would it take until one place sees all
# 224 rows? And if conv1 had a stride of 2 instead of 4? Guess both, then use your `receptive_rows`.
#
# **★★★ One run is an anecdote.** Train "all five" and "without conv4" from five seeds each. Predict the sign of the mean
# difference and the width of its 95% interval; then compute it with `minialex.studies.statistics.estimate`. How many seeds
# would settle a difference of one point?

# %% [markdown]
# ## What became of it
#
# - **2013.** Zeiler and Fergus take layers away as well, and look at what each one has learned: edges, textures, parts,
#   objects.
# - **2014.** VGG: 16 and 19 layers of 3 × 3 kernels. Two of them see as much as one of 5 × 5, with fewer weights and a
#   non-linearity between. GoogLeNet: 22 layers.
# - **2015.** Beyond some twenty layers networks became *worse*, even on their training images. Highway networks (Srivastava,
#   Greff, Schmidhuber) and ResNets (He and others) let the input pass by each block: 152 layers, then 1,000.
# - **2016.** Deep networks with *stochastic depth* (Huang and others) leave out layers at random in training, as dropout does
#   with neurons; ResNets turn out to lose little by the removal of a single layer (Veit, Wilber, Belongie). AlexNet's claim
#   does not hold for them.
# - **Today** depth is one of several sizes that are chosen together: depth, width and resolution (EfficientNet, Tan and Le, 2019).
#
# Next: **notebook 13**, the whole network and what it learned.

# %% [markdown]
# # 11 · Two columns on two cards
#
# The network of 2012 did not fit on one graphics card. Its authors cut it lengthwise: half of the kernels of every layer on
# each of two cards, and wires between the halves in a few places only. The cut is a part of the network: it changes what is
# computed, how much is sent, and even what the kernels learn.

# %%
import numpy as np

from minialex.backend import registry
from minialex.course import checks as check
from minialex.course.notebooks import draw, experiment, show
from minialex.engine.columns import Executor
from minialex.figures import look as closer
from minialex.look.kernels import colour_selectivity, column_difference
from minialex.network import models, variants
from minialex.network.layers import Context
from minialex.network.parameters import initial_parameters
from minialex.recipe import toml as recipe

# %% [markdown]
# ## What the paper says
#
# > "A single GTX 580 GPU has only 3GB of memory, which limits the maximum size of the networks that can be trained on it.
# > […] Therefore we spread the net across two GPUs." (section 3.2)
#
# > "The parallelization scheme that we employ essentially puts half of the kernels (or neurons) on each GPU, with one
# > additional trick: the GPUs communicate only in certain layers."
#
# In minialex that is data, not a program: each layer says whether it `sees` its own column or all of them, and a
# *placement* says where the columns live. One executor does the rest. Before a layer that sees all, each column gathers the
# others' channels; on the way back each owner gets the sum of every reader's gradient:

# %%
show.source(Executor._gather, Executor._scatter)

# %% alt="Two rows of squares, the layers conv1 to fc8 on two cards. Most lines stay within a card; dashed lines cross into conv3, fc6, fc7 and, from card 2, into fc8."
network = models.ALEXNET
draw.columns(network)

# %% [markdown]
# ## What crosses
#
# How much is that? For a batch of 128 images, computed from the shapes:

# %%
crossing = network.exchanged_bytes(2, 128)
show.table(
    [(name, size / 1e6) for name, size in crossing.items()],
    ("layer that reads", "megabytes that cross, forward"),
)

# %%
made = {
    stage.layer.name: int(np.prod(stage.output)) * stage.columns * 128 * 4
    for stage in network.stages(2)
    if stage.layer.name.startswith(("conv", "fc"))
}
connected = variants.build(recipe.load("alexnet-2012").replace(connect="everywhere"))
everywhere = connected.exchanged_bytes(2, 128)
parameters = sum(int(np.prod(p.shape)) for p in network.parameters(2).values())
show.text(f"""
{sum(crossing.values()) / 1e6:.1f} MB forward, and as much back as gradients. If all layers read both columns it would be
{sum(everywhere.values()) / 1e6:.1f} MB, {sum(everywhere.values()) / sum(crossing.values()):.1f} times as much. (The layers
with weights make {sum(made.values()) / 1e6:.0f} MB of activations.) To average the gradients of two whole networks instead,
each card would have to send the gradient of every parameter, {4 * parameters / 1e6:.0f} MB, whatever the batch.
""")

# %% [markdown]
# ### Exercise 1: compute one of them
#
# How many bytes go *each way* between the cards before conv3, forward, for 128 images in float32?

# %% tags=["exercise"]
bytes_each_way = ...

# %%
check.conv3_bytes(bytes_each_way)

# %% [markdown]
# ### Counted, not only computed
#
# Every laptop has two *pretend* devices, `cpu:0` and `cpu:1`. An operation that mixes arrays of both is an error, as on two
# real cards, and what is copied from one to the other is counted. A batch through the small network:

# %%
backend = registry.load("numpy")
small = models.ALEXNET_SMALL
placement = ("cpu:0", "cpu:1")
batch = 8
pieces = {
    name: backend.to_device(array, placement[name.column])
    for name, array in initial_parameters(small, 2, seed=0).items()
}
pixels = (
    np.random.default_rng(0).normal(0, 1, (batch, *small.input_shape)).astype(np.float32)
)
executor = Executor(small, backend, placement)
context = Context(training=True, seed=0, step=0)
outputs, saved = executor.forward(
    pieces, [backend.to_device(pixels, place) for place in placement], context
)
labels = backend.to_device(np.zeros(batch, np.int64), placement[0])
_, probs = executor.loss(outputs, labels)
executor.backward(pieces, saved, executor.loss_gradient(probs, labels), context)
computed = small.exchanged_bytes(2, batch)
rows = [
    (layer, direction, counted, computed[layer], counted == computed[layer])
    for (layer, direction), counted in sorted(executor.exchanged.items())
]
show.table(rows, ("layer", "pass", "bytes counted", "bytes computed", "the same"))

# %% [markdown]
# ### Exercise 2: the way back
#
# Both columns have read all $2C$ channels, the first half from column 0 and the second from column 1. Each has computed a
# gradient $[N, 2C, H, W]$ of what it read. Give the two owners' gradients, each $[N, C, H, W]$. (A classic place to lose something:
# a network that loses it still learns, only not what it should.)


# %% tags=["exercise"]
def owners_gradients(readers):
    # readers[0] and readers[1] are the two readers' gradients
    return ...


# %%
check.owners_gradient(owners_gradients)

# %% [markdown]
# ## Where the columns live changes nothing
#
# Not "almost nothing": not a single bit. We train the same network once with both columns on one device and once on two,
# and compare every weight.

# %% tags=["not-in-browser"]
few = experiment.images(train=320, validation=100)
short = recipe.load("small").replace(epochs=1, batch_size=32)
together = experiment.train(
    short.replace(devices="cpu:0"), few, validate=False
).session.weights()
apart = experiment.train(
    short.replace(devices="cpu:0,cpu:1"), few, validate=False
).session.weights()
different = [name for name in together if together[name].tobytes() != apart[name].tobytes()]
show.text(f"""
After {320 // 32} steps, {sum(w.size for w in together.values()):,} parameters in {len(together)} arrays:
**{"every bit is the same" if not different else f"{len(different)} arrays differ"}**.
""")

# %% [markdown]
# ## What the columns learn
#
# > "The kernels on GPU 1 are largely color-agnostic, while the kernels on on GPU 2 are largely color-specific. This kind of
# > specialization occurs during every run and is independent of any particular random weight initialization" (section 6.1;
# > the doubled word is the paper's)
#
# Nobody told the columns to divide the work. Can we see it in a network of a hundredth of the size, after less than a minute?
# We give each kernel a *colour score*: the share of its squared weights that is not grey. Then we ask how often columns made
# at random of the same kernels would differ as much.

# %% tags=["not-in-browser"]
images = experiment.images(train=6000, validation=1000)
run = experiment.train(
    recipe.load("small").replace(epochs=6, kernels=(32, 32, 48, 48, 32)),
    images,
    validate=False,
)
first = run.session.weights()["conv1.weight"]
scores = colour_selectivity(first)
difference = column_difference(scores, 2)
show.text(experiment.about(images))

# %% alt="The kernels of conv1 in two columns as small coloured squares, and under them each kernel's colour selectivity as a mark: the marks of both columns are spread alike, their means nearly the same."
show.figure(closer.kernels(first, scores, 2, difference))

# %%
low, high = sorted(difference.means)
shown = difference.p_value < 0.05
show.text(f"""
After {run.steps:,} steps the columns' mean colour scores are {
    difference.means[0]:.2f} and {difference.means[1]:.2f}.
Columns made at random of the same kernels differ as much in {
    difference.p_value:.1%} of the cases:
{"a difference is shown in this run" if shown else "no difference is shown in this run"}. {
    ""
    if shown
    else "The paper's kernels had 90 epochs and 1.2 million photographs to become so."
}
`minialex look kernels RUN RUN …` makes the same test for your own runs.
""")

# %% [markdown]
# ### Exercise 3: what the cut saves
#
# How many parameters, weights and biases, does conv4 have in two columns?

# %% tags=["exercise"]
conv4 = ...

# %%
check.column_parameters(conv4)

# %% [markdown]
# ## What the columns are worth
#
# The paper compares with "a net with half as many kernels in each convolutional layer trained on one GPU" and finds top-1
# errors lower by 1.7 points. (Its second footnote: conv5 and the fully connected layers were *not* halved, so that both
# networks have about as many parameters, 98%; of the multiplications the small one has 54%. The notes of the original
# program also have columns that never meet.) The full studies, at equal kernels and at equal parameters:

# %%
show.ablation("columns")

# %%
show.ablation("columns-equal")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Cross earlier.** conv3 reads both columns. If conv2 did so instead, would more or less cross between the cards, and
# by which factor? Guess, compute it by hand from the maps, and look it up in `everywhere`.
#
# **★★★ A silent half.** Set the kernels and biases of conv1 in column 1 to zero, in `pieces`, and run one forward and one
# backward pass (`executor.backward` returns the gradients by name). Predict for each layer of column 1 whether its weights
# and its biases get a gradient. What will never recover?

# %% [markdown]
# ## What became of it
#
# - **2014.** One card holds the network: "One weird trick" (Krizhevsky) joins the columns and gives each card its own images
#   in the convolutional layers (*data parallel*) and its own neurons in the full ones (*model parallel*).
# - **2012–17.** The cut itself returns as *grouped convolution*: in ResNeXt (Xie and others) many narrow columns beat a wide
#   one at equal cost; MobileNet and Xception take it to the end, one channel a group.
# - **2018.** ShuffleNet mixes the channels between groups, as conv3 does here.
# - **2019 on.** Networks that fit on no card are cut again: by layers (GPipe), by neurons (Megatron-LM), by everything.
#   `docs/two-gpus.md` has this network's arithmetic, and `minialex plan --devices h200,h200` computes it.
#
# Next: **notebook 12**, how deep it must be.

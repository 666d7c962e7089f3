# %% [markdown]
# # 15 · From two cards of 3 GB to one of today
#
# The network is as large as it is because two cards were as large as they were. This notebook computes what it needs, in
# memory and in time, from shapes and from the makers' figures; and looks at what a dozen years have changed.

# %%
import numpy as np

from minialex.backend import registry
from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.engine import summary
from minialex.network import models
from minialex.recipe import toml as recipe
from minialex.speed import peaks
from minialex.speed.plan import averaged, floor, lay_out
from minialex.speed.rates import KNOWN

# %% [markdown]
# ## What the paper says
#
# > "In the end, the network's size is limited mainly by the amount of memory available on current GPUs and by the amount of
# > training time that we are willing to tolerate. Our network takes between five and six days to train on two GTX 580 3GB
# > GPUs. All of our experiments suggest that our results can be improved simply by waiting for faster GPUs and bigger datasets
# > to become available." (section 1)
#
# ## Memory
#
# Weights, their momentum and their gradients are there all the time. Activations are there as long as the backward pass still
# needs them. The library records a training step as a list of calls and walks it: an array lives from the call that makes it
# to the last one that reads it.

# %%
show.source(summary.peak_bytes)

# %%
paper = recipe.load("alexnet-2012")
batches = (1, 16, 32, 64, 128, 256)
needed = {batch: summary.summarise(paper, batch) for batch in batches}
total = {
    batch: (s.parameter_bytes + s.activation_bytes) / 2**30 for batch, s in needed.items()
}
card = KNOWN["gtx580"].memory / 2**30
show.table(
    [
        (b, s.parameter_bytes / 2**30, s.activation_bytes / 2**30, total[b])
        for b, s in needed.items()
    ],
    ("batch", "weights, momentum, gradients, GiB", "the step's arrays, GiB", "together"),
)

# %% alt="Two rising lines, the memory of a training step against its images: the whole network comes near to the 3 GiB of one GTX 580, a dashed line; half of it needs half as much."
one = [batch for batch in batches if total[batch] <= card]
show.curves(
    {"the whole network": (batches, list(total.values())), "half of it": (batches, [t / 2 for t in total.values()])},
    "images of a step", "GiB", level=(card, "one GTX 580"), headline="What a training step needs",
)  # fmt: skip

# %%
fits = total[128] <= card
show.text(f"""
By this count the paper's batch of 128 needs {total[128]:.2f} GiB, {
    "less" if fits else "more"
} than one card of {card:.0f} GiB
has. {
    "A program as frugal as ours could have trained it on one card. That of 2012 was another one, and its authors found that "
    "one card was too small."
    if fits
    else f"The largest of these batches that would have fitted is {max(one)}."
} (What the driver
and the libraries keep for themselves is not counted.)
""")

# %% [markdown]
# ### Exercise 1: before the first image
#
# How many bytes do weights, momentum and gradients take, in float32?

# %% tags=["exercise"]
bytes_before_the_first_image = ...

# %%
check.bytes_of_learning(bytes_before_the_first_image)

# %% [markdown]
# ## Time
#
# A layer can be no faster than its multiplications at the card's peak, and no faster than its bytes through the card's
# memory. The longer of the two is its *floor* (the field says *roofline*); the sum of all floors is that of a step.
#
# ### Exercise 2: the work
#
# How many multiply-adds are one epoch of ImageNet's 1,281,167 images? Count the forward pass and both gradients of every layer;
# but nobody needs the gradient of the image itself.

# %% tags=["exercise"]
multiply_adds_of_an_epoch = ...

# %%
check.training_multiply_adds(multiply_adds_of_an_epoch)

# %%
network = models.ALEXNET
two, single = lay_out(network, (0, 1)), lay_out(network, (0, 0))
then = floor(two, [KNOWN["gtx580"]] * 2, "float32", 128)
days = then.training_seconds() / 86_400
show.table(
    [
        (line.layer, 1000 * line.forward, 1000 * line.backward, line.limit)
        for line in then.lines
    ],
    ("layer, on one of two GTX 580", "forward, ms", "backward, ms", "limited by"),
)

# %%
said = 5.5
show.text(f"""
Two GTX 580 cannot train the network for 90 epochs in less than **{days:.1f} days** ({1000 * then.computing:.0f} ms a step to
compute, {1000 * then.exchanging:.1f} ms to exchange). The paper took five to six: its program reached about
{100 * days / said:.0f} % of what the cards could do at best.
""")

# %% [markdown]
# And now? The same arithmetic for cards of later years, one card each, both columns on it, at a batch of 128:

# %%
rows = []
for name in ("gtx580", "t4", "rtx3060", "l4", "rtx4090", "a100", "h100", "h200"):
    rates = KNOWN[name]
    for precision in ("float32", "bfloat16"):
        if precision in rates.matrix:
            found = floor(single, [rates], precision, 128)
            rows.append(
                (
                    rates.name,
                    precision,
                    round(found.images_per_second()),
                    found.training_seconds() / 3600,
                )
            )
show.table(
    rows, ("card", "precision", "images a second, at most", "hours for 90 epochs, at least")
)

# %% alt="Bars, the least hours of the paper's training on cards from two GTX 580 to an H200: from some days down to less than an hour in bfloat16."
hours = {
    f"{name.removeprefix('NVIDIA ')}, {precision}": h for name, precision, _, h in rows
}
hours = {"two GTX 580, as it was (2012)": said * 24, **hours}
show.bars(
    hours,
    "hours for 90 epochs",
    headline="At least (2012: as the paper reports)",
    form="{:.1f}",
)

# %%
best = min(rows, key=lambda row: row[3])
show.text(f"""
From {said:.1f} days to {60 * best[3]:.0f} minutes at best ({best[0]}, {best[1]}): a factor of {said * 24 / best[3]:,.0f}. These
are floors, computed and not measured: a real program reads images, too. To decode {best[2]:,.0f}
JPEG files a second would keep many processors busy, which is why `minialex prepare` makes a store of pixels first.
""")

# %% [markdown]
# ## This machine
#
# The same arithmetic holds for the processor under this notebook. We measure its peak (a large matrix product and a large copy),
# compute the floor of a step of a smaller network, and time the step.

# %% tags=["not-in-browser"]
backend = registry.load()
measured = peaks.measure(backend, backend.devices[0], None, "float32")
small = recipe.load("small").replace(batch_size=64)
images = experiment.images(train=640, validation=64)
run = experiment.train(small.replace(epochs=2), images, validate=False)
run = experiment.train(small.replace(epochs=4), images, validate=False)
step = run.seconds / run.steps
work = summary.summarise(run.session.recipe)
share = work.training_multiply_adds * 64 / measured.multiply_adds / step
words = (
    "more than half"
    if share > 0.5
    else "a quarter to a half"
    if share > 0.25
    else "less than a quarter"
)
show.text(f"""
A step of 64 images of the small network is {work.training_multiply_adds * 64 / 1e9:.1f} billion multiply-adds. At
this processor's measured peak they would take {words} of the time of the step as we measured it; the rest is memory, and many
small operations. `minialex bench` shows it layer by layer.
""")

# %% [markdown]
# ## Two cards today: columns or copies?
#
# Two cards can share the work in two ways: half of the *network* each, as in 2012, or half of the *images* each, with the whole
# network on both and their gradients averaged.
#
# ### Exercise 3: which sends less?
#
# Averaging sends one value for each parameter, whatever the batch. Columns send `lay_out(models.ALEXNET, (0, 1)).exchanged`
# values for each image of the batch. At which batch are they equal?

# %% tags=["exercise"]
batch_of_equal_traffic = ...

# %%
check.crossover_batch(batch_of_equal_traffic)

# %% alt="Two falling curves, the speed of the two columns over that of two copies against the images of a step: above the line of equal speed up to about a thousand images, below it beyond."
sizes = (64, 128, 256, 512, 1024, 2048)
lines = {}
for name in ("gtx580", "h100"):
    rates = [KNOWN[name]] * 2
    by_columns = [floor(two, rates, "float32", b).images_per_second() for b in sizes]
    by_copies = [
        averaged(network, 2, rates, "float32", b).images_per_second() for b in sizes
    ]
    lines[name] = (by_columns, by_copies)
show.curves(
    {
        f"{KNOWN[name].name.removeprefix('NVIDIA ')}: columns / copies": (sizes, np.array(columns) / np.array(copies))
        for name, (columns, copies) in lines.items()
    },
    "images of a step", "speed of columns / speed of copies", log_x=True,
    level=(1.0, "equally fast"), headline="Above the line the cut of 2012 wins",
)  # fmt: skip

# %%
ratios = {
    name: np.array(columns) / np.array(copies) for name, (columns, copies) in lines.items()
}
old, new = ratios["gtx580"], ratios["h100"]


def turning(ratio):
    slower = [size for size, value in zip(sizes, ratio, strict=True) if value < 1]
    return (
        f"from a batch of {slower[0]:,} on"
        if slower
        else f"at none of these batches, up to {sizes[-1]:,}"
    )


show.text(f"""
At the paper's batch of 128 columns could be {
    old[1]:.2f} times as fast as copies on two GTX 580; on two H100 the ratio is
{new[1]:.2f}. The cut was no makeshift: on those cards and wires it was {
    "the better choice" if old[1] > 1 else "no better than copies"
}. Copies win on the old cards {turning(old)}, on the new ones {turning(new)}.
""")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Who waits for memory?** Which of the eight layers with weights are limited by memory on one GTX 580 at batches of 1
# and of 128, and on an H100 in bfloat16? Predict the four lists from how often a weight is used, then read `line.limit` of
# `floor(single, …).lines`.
#
# **★★★ One weird trick.** Copies for the convolutional layers, columns for the full ones: count the values that cross for a
# batch of 128 and of 1,024, beside those of the two pure ways. Predict which of the three sends least at each; then compute
# it.

# %% [markdown]
# ## What became of it
#
# - **2014.** "One weird trick": copies for the convolutional layers, columns for the full ones; eight cards.
# - **2017.** ImageNet in an hour (Goyal and others): 256 cards, batches of 8,192, and a rate that rises at the beginning.
#   A year later, minutes.
# - **2018.** OpenAI counts: from AlexNet on, the computation of the largest training runs doubled every three and a half
#   months for six years.
# - **2020 on.** Memory is the limit again. Networks a thousand times as large are cut by layers, by neurons, by images, and their
#   momentum is cut too (ZeRO, Rajbhandari and others).
# - "…simply by waiting for faster GPUs and bigger datasets": perhaps the truest sentence of the paper.
#
# Next: **notebook 16**, the table of results.

# %% [markdown]
# # 19 · What it costs
#
# "Our network takes between five and six days to train on two GTX 580 3GB GPUs" (section 1). What did that take in
# electricity, and what does the same training take now? It is arithmetic: operations, seconds, watts. The chapter *What it
# costs* has the story; here is the arithmetic, and an experiment with a bill.

# %%

import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex.engine import summary
from minialex.network import models
from minialex.recipe import toml as recipe
from minialex.speed import plan, rates

# %% [markdown]
# ## Operations
#
# A layer's multiply-adds are counted from its shapes. Learning from a picture takes the forward pass and two gradients of
# about the same size: of the weights, and of the layer's input, which the first layer does not need.

# %%
show.source(summary.summarise)

# %%
paper = recipe.load("alexnet-2012")
counted = summary.summarise(paper)
pictures = plan.IMAGENET * paper.epochs
operations = 2 * counted.training_multiply_adds * pictures
show.text(f"""
One picture answered: {counted.multiply_adds:,} multiply-adds. Learned from: {counted.training_multiply_adds:,}. All
{paper.epochs} epochs of {plan.IMAGENET:,} pictures: {operations:.2g} operations, two for each multiply-add.
""")

# %% [markdown]
# ### Exercise 1: learning and answering
#
# How many pictures can the finished network answer until that has taken as many multiply-adds as its training?

# %% tags=["exercise"]
answered_pictures = ...

# %%
check.answers_for_a_training(answered_pictures)

# %% [markdown]
# ## The bill
#
# Watts times hours. The cards' watts are their makers' figures, and half as much again is added for the rest of the machine.
# For today's card the hours are four times the floor that `minialex plan` computes, since programs reach a part of what a
# card can do.

# %%
floors = plan.lay_out(models.ALEXNET, (0, 0))


def hours_today(precision):
    floor = plan.floor(floors, [rates.KNOWN["h100"]], precision, paper.batch_size)
    return 4 * floor.training_seconds() / 3600


machines = {
    "4 cores of 2009, 50 GFLOP/s": (100, operations / 50e9 / 3600),
    "2 × GTX 580, 2012": (2 * 244, 5.5 * 24),
    "H100, float32": (700, hours_today("float32")),
    "H100, bfloat16": (700, hours_today("bfloat16")),
}
energies = {name: watts * 1.5 * hours / 1000 for name, (watts, hours) in machines.items()}
show.table(
    [
        (
            name,
            watts,
            round(hours, 1),
            round(energies[name], 1),
            round(energies[name] / 4, 2),
        )
        for name, (watts, hours) in machines.items()
    ],
    ("machine", "watts of its chips", "hours", "kWh", "money, at 0.25 a kWh"),
)

# %% alt="Four bars, kilowatt-hours of one training: four cores of 2009 some 400, two GTX 580 about 97, an H100 11 in float32 and 1.4 in bfloat16."
show.bars(energies, "kWh", headline="One training of the paper's network", form="{:.1f}")

# %% [markdown]
# ## Growth
#
# Prices fell, and what was trained grew faster. From AlexNet to the largest training run of late 2017 the arithmetic
# grew by a factor of 300,000, in some five and a half years (Amodei and Hernandez, 2018).
#
# ### Exercise 2: how fast is that?
#
# Something grows evenly by `factor` in `years`. After how many months has it doubled?


# %% tags=["exercise"]
def months_to_double(factor, years):
    return ...


# %%
check.months_to_double(months_to_double)

# %% [markdown]
# ## An experiment: what does the last point cost?
#
# "Green AI" (Schwartz and others, 2020) asks to publish the bill beside the error. We do it for three networks: the small
# one, one with half as many kernels and neurons, and one with half as many again, which takes about twice the arithmetic for
# each picture. After every epoch: the validation error, and the arithmetic until then.

# %% tags=["not-in-browser"]
images = experiment.images(train=1600, validation=500)
base = recipe.load("small").replace(epochs=5, schedule="constant")
widths = {"half as wide": 0.5, "the small network": 1.0, "half as wide again": 1.5}
bills, errors, rate = {}, {}, {}
for name, width in widths.items():
    fields = base.replace(
        kernels=tuple(int(k * width) for k in base.kernels),
        features=tuple(int(n * width) for n in base.features),
    )
    run = experiment.train(fields, images)
    each = 2 * summary.summarise(run.session.recipe).training_multiply_adds
    bills[name] = each * len(images.train) * np.arange(1, base.epochs + 1) / 1e12
    errors[name] = 100 * np.array(run.validation_errors)
    rate[name] = bills[name][-1] * 1e12 / run.seconds
show.text(experiment.about(images))

# %% alt="Three curves, the validation error of a network over the operations until then, on a logarithmic axis: each falls, though not at every epoch, and the wider a network is, the further to the right its curve begins."
show.curves(
    {name: (bills[name], errors[name]) for name in widths},
    "million million operations until then",
    "validation error, %",
    headline="The error, and what it has cost so far",
    log_x=True,
)

# %%
small, wide = errors["the small network"], errors["half as wide again"]
interval = 196 * np.sqrt(2 * 0.6 * 0.4 / len(images.validation))
budget = bills["half as wide"][-1]
there = {
    name: errors[name][bills[name] <= 1.001 * budget][-1]
    for name in widths
    if (bills[name] <= 1.001 * budget).any()
}
better = small[-1] - wide[-1]
watt_hours = 30 * bills["half as wide again"][-1] * 1e12 / rate["half as wide again"] / 3600
show.text(f"""
At the end the wider network is {abs(better):.1f} points {
    "better" if better > 0 else "worse"
} than the small one, for {
    bills["half as wide again"][-1] / bills["the small network"][-1]:.1f}
times its bill. (With {len(images.validation):,} validation images, differences below {
    interval:.0f} points may be chance.) For the bill of all
five epochs of the narrow network one gets {
    ", ".join(
        f"{error:.0f} % with the one {name}"
        if "wide" in name
        else f"{error:.0f} % with {name}"
        for name, error in there.items()
    )
}. "Which network is better?" has no answer until somebody says what may be spent.

In electricity: at 30 watts for a laptop's processor, and with the speed that it had here, the widest run took about {
    show.rounded(watt_hours)
} watt-hours.
""")

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ The same bill.** Give the three networks the same number of operations instead of the same number of epochs: the narrow one
# trains longer. Predict which of them is best at the bill of five epochs of the small one, and at four times that bill.
#
# **★★★ A meter.** On Linux, `/sys/class/powercap/intel-rapl:0/energy_uj` counts the processor's microjoules (it may need
# rights). Or plug the machine into a watt-hour meter. Predict from the arithmetic above what a minute of `minialex train`
# takes; then measure, once with one thread and once with all. Which is cheaper?

# %% [markdown]
# ## What became of it
#
# - **2018–19.** The training of large models is counted: arithmetic that doubles every few months (Amodei and Hernandez), and
#   energy and carbon of language models (Strubell, Ganesh, McCallum).
# - **2020.** Seven years after AlexNet a network as good as it is trained with a forty-fourth of its arithmetic (Hernandez and
#   Brown). The error *and* its price belong in a paper (Schwartz and others).
# - **2022.** The same model costs very different amounts of carbon at different places and hours (Dodge and others).
# - **Since then** most of the electricity goes into answering, as your first exercise foretells for any network that many people
#   use.
#
# Next: **notebook 20**, against the conventional wisdom.

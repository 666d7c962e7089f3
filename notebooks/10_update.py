# %% [markdown]
# # 10 · The step: momentum, weight decay, and when to slow down
#
# The gradient says which way is down. How far to go, and what to remember of the steps before, is the *update rule*. The
# paper's is two lines long, and every library since has written it a little differently.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import draw, experiment, show
from minialex.recipe import toml as recipe
from minialex_numpy.sgd_update import sgd_update

# %% [markdown]
# ## What the paper says
#
# > "We trained our models using stochastic gradient descent with a batch size of 128 examples, momentum of 0.9, and weight
# > decay of 0.0005." (section 5)
#
# With $\varepsilon$ the learning rate, $v$ the *velocity* and $g$ the mean gradient of the batch:
#
# $$v \leftarrow 0.9\,v - 0.0005\,\varepsilon\,w - \varepsilon\,g \qquad\qquad w \leftarrow w + v$$

# %%
show.source(sgd_update)

# %% [markdown]
# ### Exercise 1: write it
#
# Give the new weights and the new velocity.


# %% tags=["exercise"]
def paper_update(w, v, dw, rate, momentum, decay):
    return ...


# %%
check.paper_update(paper_update)

# %% [markdown]
# ## Why momentum
#
# A valley that is long and narrow: steep across, flat along. A plain step that is small enough not to jump from wall to
# wall hardly moves along the floor. The velocity adds up what the steps agree on and cancels what they do not.


# %% alt="Paths of three descents in a long narrow valley: a small rate crawls, a large rate zigzags across, and momentum with a small rate swings its way to the bottom."
def descend(rate, momentum, steps=60):
    w, v = np.array([-9.0, 2.0]), np.zeros(2)
    path = [w.copy()]
    for _ in range(steps):
        gradient = w * np.array([0.1, 3.0])  # of 0.05·x² + 1.5·y²
        sgd_update(w, v, gradient, learning_rate=rate, momentum=momentum, weight_decay=0.0)
        path.append(w.copy())
    return np.array(path)


ways = {
    "ε = 0.1, no momentum": (0.1, 0.0),
    "ε = 0.6, no momentum": (0.6, 0.0),
    "ε = 0.1, momentum 0.9": (0.1, 0.9),
}
paths = {name: descend(*numbers) for name, numbers in ways.items()}
draw.descents(paths, curvatures=(0.1, 3.0))

# %%
distances = {name: float(np.hypot(*path[-1])) for name, path in paths.items()}
best = min(distances, key=distances.get)
show.text(f"Nearest to the bottom after 60 steps: **{best}**, {distances[best]:.2g} away.")

# %% [markdown]
# ### Exercise 2: how fast does it get?
#
# On a straight slope, whose gradient is 1 all along, with $\varepsilon = 0.01$, momentum 0.9 and no decay: what velocity
# does it end with?

# %% tags=["exercise"]
velocity = ...

# %%
check.final_velocity(velocity)

# %% [markdown]
# ## The paper's rule and PyTorch's
#
# PyTorch's documentation of `SGD` has the rate *outside* the velocity: $v \leftarrow \mu v + g + \lambda w$ and
# $w \leftarrow w - \varepsilon v$. We need no PyTorch to see the difference; here is its rule beside ours, on the same
# noisy gradients. After 40 steps the rate is divided by 10, as the paper does three times.

# %% alt="Two curves, the length of the steps, on a logarithmic axis. They are one until the learning rate is cut; then the steps of PyTorch's rule are short at once, those of the paper's rule fade over some steps."
rates = np.where(np.arange(80) < 40, 0.05, 0.005)
random = np.random.default_rng(0)
noise = random.normal(0, 0.5, 80)
ours, velocity_here = np.array([4.0]), np.zeros(1)
theirs, velocity_there = 4.0, 0.0
both, moved = [], []
for rate, shake in zip(rates, noise, strict=True):
    before = ours.copy()
    sgd_update(
        ours,
        velocity_here,
        ours + shake,
        learning_rate=rate,
        momentum=0.9,
        weight_decay=0.0005,
    )
    velocity_there = 0.9 * velocity_there + (theirs + shake) + 0.0005 * theirs
    theirs = theirs - rate * velocity_there
    both.append((ours[0], theirs))
    moved.append((abs(ours[0] - before[0]), rate * abs(velocity_there)))
both, moved = np.array(both), np.array(moved)
steps = np.arange(1, 81)
show.curves(
    {"the paper's rule": (steps, moved[:, 0]), "PyTorch's rule": (steps, moved[:, 1])},
    "step", "length of the step", log_y=True, headline="The rate is cut after step 40",
)  # fmt: skip

# %%
same = np.abs(both[:40, 0] - both[:40, 1]).max()
apart = np.abs(both[40:, 0] - both[40:, 1]).max()
ratio = moved[40, 0] / moved[40, 1]
show.text(f"""
As long as the rate stays the same, the two rules are one: the weights differ by {same:.0e} at most. At the cut they part
(by up to {apart:.2g}): the paper's velocity was made with the old rate, and its first step after the cut is
{ratio:.1f} times as long as PyTorch's. It takes some twenty steps to forget, as $0.9^{{22}} \\approx {0.9**22:.1f}$.
""")

# %% [markdown]
# Over 90 epochs and three cuts, nobody will see it in the error. But two programs that are compared bit for bit must say
# which rule is theirs.
#
# ## Weight decay: not what it seems
#
# > "this small amount of weight decay was important for the model to learn. In other words, weight decay here is not merely
# > a regularizer: it reduces the model's training error." (section 5)
#
# ### Exercise 3: how gentle is it?
#
# Without gradient and without momentum, with $\varepsilon = 0.01$ and decay 0.0005: after how many steps is half of a
# weight left?

# %% tags=["exercise"]
steps_to_half = ...

# %%
check.halving_steps(steps_to_half)

# %% [markdown]
# ## An experiment
#
# Four networks with the same initial weights, on the same images in the same order: the paper's numbers; no momentum; no
# momentum but ten times the rate (which on a straight slope is as fast, see exercise 2); no decay.

# %% tags=["not-in-browser"]
images = experiment.images(train=4000, validation=1000)
base = recipe.load("small").replace(epochs=4, schedule="constant")
arms = {
    "momentum 0.9, decay 0.0005": base,
    "no momentum": base.replace(momentum=0.0),
    "no momentum, ε × 10": base.replace(momentum=0.0, learning_rate=0.1),
    "no decay": base.replace(weight_decay=0.0),
}
runs = {name: experiment.train(arm, images, validate=False) for name, arm in arms.items()}
show.text(experiment.about(images))

# %% alt="Four falling curves of the loss: highest without momentum, lower with ten times the rate instead, lowest with momentum, where weight decay makes hardly a difference."
lines = {
    name: (np.arange(1, run.steps + 1), experiment.smoothed(run.losses, 50))
    for name, run in runs.items()
}
show.curves(
    lines, "step", "loss (mean of 50 steps)", headline="The same images, four ways to step"
)

# %%
last = {name: float(np.mean(run.losses[-50:])) for name, run in runs.items()}
paper = last["momentum 0.9, decay 0.0005"]
slow, fast = last["no momentum"] - paper, last["no momentum, ε × 10"] - paper
decay = last["no decay"] - paper


def mean_weight(name):
    return float(np.mean([np.abs(w).mean() for w in runs[name].session.weights().values()]))


show.text(f"""
Over the last 50 steps the loss is {paper:.3f} with the paper's numbers. Without momentum it is {abs(slow):.3f}
{"higher" if slow > 0 else "lower"}; with ten times the rate instead, {abs(fast):.3f} {"higher" if fast > 0 else "lower"}.
Without decay it is {abs(decay):.3f} {"higher" if decay > 0 else "lower"}. {runs["no decay"].steps} steps are few for decay: the mean
weight is {mean_weight("no decay"):.4f} without it and {mean_weight("momentum 0.9, decay 0.0005"):.4f} with it.
""")

# %% [markdown]
# The full studies, with several seeds:

# %%
show.ablation("momentum")

# %%
show.ablation("decay")

# %% [markdown]
# ## When to slow down
#
# > "The heuristic which we followed was to divide the learning rate by 10 when the validation error rate stopped improving
# > with the current learning rate." (section 5)
#
# It was a person who looked at the curve. The notes of the original program say when; the recipe `code145` does it again:

# %%
original = recipe.load("code145")
moments = [(1, {"learning_rate": original.learning_rate})] + [
    (entry["epoch"], {key: value for key, value in entry.items() if key != "epoch"})
    for entry in original.timeline
]
show.table(
    [
        (epoch, ", ".join(f"{key} = {value}" for key, value in what.items()))
        for epoch, what in moments
    ],
    ("from epoch", "what holds"),
)

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ The edge.** In the valley above, from which learning rate on does the plain step without momentum run away? And with
# momentum 0.9: from a smaller or a larger one? Guess both, derive the first, and try with `descend`.
#
# **★★★ The best of both.** Look for the rate *and* the momentum that end nearest to the bottom after 60 steps, on a grid.
# Predict whether the best momentum lies near 0.5, 0.9 or 0.99. What would move it: a longer valley, or more steps?

# %% [markdown]
# ## What became of it
#
# - **2013.** Sutskever, Martens, Dahl and Hinton show how much momentum and a good beginning matter, and bring Nesterov's
#   form of it to deep networks.
# - **2014.** Adam (Kingma and Ba) divides each weight's step by the size of its recent gradients. It is the default of most
#   work today, though image networks long stayed with momentum.
# - **2016–17.** The rate falls along half a cosine instead of in cuts (Loshchilov and Hutter); it rises at the beginning for
#   large batches, and Goyal and others warn of exactly the difference above when the rate changes.
# - **2017–19.** Decay and gradient are taken apart again (AdamW, Loshchilov and Hutter). In networks with batch
#   normalisation decay acts on the *effective rate*. AlexNet has none, so that does not explain the paper's "not merely a
#   regularizer"; what decay does in networks without is still asked (D'Angelo and others, "Why do we need weight decay in
#   modern deep learning?", 2023).
#
# Next: **notebook 11**, two columns.

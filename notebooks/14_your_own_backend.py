# %% [markdown]
# # 14 · Your own backend
#
# A *backend* is what computes: a class with twenty operations and a few movers. minialex has three, and knows none of them by
# name. Yours can be the fourth, and it can begin with a single function.

# %%
import inspect
import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from minialex import conformance
from minialex.backend import protocol as backend
from minialex.backend import registry
from minialex.course import checks as check
from minialex.course.grading import complete
from minialex.course.grading.process import Limits, grade
from minialex.course.grading.table import show as show_grade
from minialex.course.notebooks import experiment, show
from minialex.recipe import toml as recipe

# %% [markdown]
# ## The protocol
#
# What each operation means is written in one place: its equation, shapes, and what its gradient needs. Here is one:

# %%
show.source(backend.Backend.local_response_norm)

# %%
operations = [name for name in backend.OPERATIONS if not name.endswith("_backward")]
gradients = [name for name in backend.OPERATIONS if name.endswith("_backward")]
parameters = {
    name: list(inspect.signature(getattr(backend.Backend, name)).parameters)[1:]
    for name in operations
}
show.text(f"""
There are {len(operations)} operations ({", ".join(f"`{name}`" for name in operations)}) and {len(gradients)} gradients, and
{len(backend.MOVERS)} movers ({", ".join(f"`{name}`" for name in backend.MOVERS)}).
""")

# %% [markdown]
# ## Twenty lines
#
# An author of a backend on the processor writes plain functions on NumPy arrays; the library wraps them so that shapes and
# devices are checked (`minialex.backend.pretend.operation`). And one need not write all at once: `complete` makes a backend of what is
# there, and of the reference for the rest. Here is a backend whose ReLU, its gradient and the normalisation are ours.
#
# We write it into a file, as a student would hand it in.

# %%
code = """
import numpy as np


def relu(x):
    return np.where(x < 0, np.zeros_like(x), x)  # not-a-number stays


def relu_backward(dy, y):
    return dy * (y > 0)


def local_response_norm(x, *, size, k, alpha, beta):
    channels = x.shape[1]
    scale = np.full_like(x, k)
    for c in range(channels):
        first = max(0, c - size // 2)
        last = min(channels, c + size // 2)
        scale[:, c] += alpha * (x[:, first:last] ** 2).sum(axis=1)
    return x * scale**-beta, scale
"""
Path("mine.py").write_text(code)
ours = {}
exec(code, ours)
mine = complete(
    {name: ours[name] for name in ("relu", "relu_backward", "local_response_norm")},
    name="mine",
)
mine.name, mine.devices

# %% [markdown]
# Does it compute? It trains:

# %%
few = experiment.images(train=256, validation=64)
small = recipe.load("small").replace(epochs=1)
first = experiment.train(small, few, backend=mine, validate=False)
again = experiment.train(small, few, backend=registry.load("numpy"), validate=False)
far = max(abs(a - b) for a, b in zip(first.losses, again.losses, strict=True))
show.text(f"""
Loss of the first and the last step: {first.losses[0]:.4f} and {first.losses[-1]:.4f}. With the reference:
{again.losses[0]:.4f} and {again.losses[-1]:.4f}. They differ by up to {far:.1g}.
""")

# %% [markdown]
# A network that trains proves little. There *is* a bug in those twenty lines, and with the paper's small $\alpha$ it hardly
# shows: a test with a guessed tolerance would let it pass.
#
# How well does the bug hide? Here is how far the output is from the reference, for the paper's $\alpha$ and larger ones.

# %% alt="One rising line on two logarithmic axes, the effect of a bug in normalisation against α: for the paper's α it is below the dashed line of a tolerance of 0.001, for larger ones far above."
reference = registry.load("numpy")
activity = np.maximum(np.random.default_rng(0).normal(0, 1, (2, 96, 6, 6)), 0)
alphas = 10.0 ** np.arange(-5, 0.5, 0.5)
errors = []
for alpha in alphas:
    numbers = {"size": 5, "k": 2.0, "alpha": float(alpha), "beta": 0.75}
    outputs = [
        which.to_numpy(
            which.local_response_norm(which.to_device(activity, "cpu:0"), **numbers)[0]
        )
        for which in (mine, reference)
    ]
    errors.append(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[1]).max())
show.curves(
    {"the bug's effect": (alphas, errors)}, "α", "largest error / largest output", log_x=True, log_y=True,
    level=(1e-3, "a tolerance of 0.001, as many tests have it"), headline="The same bug at other constants",
)  # fmt: skip

# %% [markdown]
# ## The kit finds it
#
# The *conformance kit* draws calls with Hypothesis (shapes, strides, values: zeros, ties, huge and tiny numbers, constants
# large enough to matter), runs the operation and the reference, and compares within a *derived* bound. When something is
# wrong, it looks for the smallest call that shows it.

# %%
for result in conformance.run(mine, ["relu", "relu_backward", "local_response_norm"]):
    print("passed" if result.passed else "FAILED", result.operation)
    if not result.passed:
        print(result.message)

# %% [markdown]
# ### Exercise 1: repair it
#
# One channel is enough to see it, if the window is one wide. Write the function again.


# %% tags=["exercise"]
def local_response_norm(x, *, size, k, alpha, beta):
    return ...


# %%
check.repaired_norm(local_response_norm)

# %% [markdown]
# `relu_backward` may have failed as well: what is $\infty \cdot 0$? And is $-0.0$ the same number as $0.0$ (the kit says yes)?
#
# ## The same as a command
#
# `minialex grade mine.py` is for students and teachers: the same checks, each operation in a process of its own with a time
# limit, a table, and exit code 0 only if all is right. Here it is called from Python, with fewer examples:

# %%
graded = grade("mine.py", limits=Limits(examples=30))
show_grade(Console(file=sys.stdout, width=90, color_system=None), graded, points=10)

# %% [markdown]
# ### Exercise 2: a gradient
#
# $y = \tanh x$. Its gradient needs only $y$. (The kit also draws values at which others' formulas lose all their digits.)


# %% tags=["exercise"]
def tanh_backward(dy, y):
    return ...


# %%
check.tanh_gradient(tanh_backward)

# %% [markdown]
# ## What is your test worth?
#
# A test that never fails proves nothing. The kit itself is tested with *planted faults*: for every operation, plausible slips
# that it must catch. Plant some yourself: which of these does it find?


# %%
def planted(change):
    """The reference's pooling, with one change."""
    reference = registry.load("numpy")

    def max_pool2d(x, *, size, stride, ceil):
        there = reference.to_device(change(x), "cpu:0")
        return reference.to_numpy(
            reference.max_pool2d(there, size=size, stride=stride, ceil=ceil)
        )

    return complete({"max_pool2d": max_pool2d})


faults = {
    "nothing is changed": lambda x: x,
    "rows and columns swapped": lambda x: (
        x.swapaxes(2, 3) if x.shape[2] == x.shape[3] else x
    ),
    "negative numbers count as zero": lambda x: np.maximum(x, 0),
    "the last digit is lost": lambda x: (x * np.float32(1.0000001)).astype(x.dtype),
    "NaN counts as the smallest": lambda x: np.where(np.isnan(x), -np.inf, x).astype(
        x.dtype
    ),
}
found = {
    name: conformance.run(planted(change), ["max_pool2d"])[0]
    for name, change in faults.items()
}
show.table(
    [(name, "passes" if result.passed else "is caught") for name, result in found.items()],
    ("fault", "the kit"),
)

# %% [markdown]
# ## A backend like ours
#
# When all operations are there, three lines in a package's `pyproject.toml` announce the class, and every command takes it:
#
# ```toml
# [project.entry-points."minialex.backends"]
# theirs = "their_package:TheirBackend"
# ```
#
# ```bash
# minialex train --backend theirs
# ```
#
# This is the whole reference, a table of functions:

# %%
show.source(type(registry.load("numpy")))

# %% [markdown]
# To be fast, a backend may override one more method, `compile_step`: it gets the whole training step as the list of calls that
# it is, and gives back something quicker that must agree within the same bounds. That is how the Numba backend fuses layers
# and the CUDA backend records graphs.
#
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ The last digit.** Multiply the output of your own `linear` by 1 + ε. For which ε does the kit no longer see it, and
# for which for `relu`? Write down a power of ten for each (mind that it draws arrays of 64 bits as well), then try.
#
# **★★★ Hide a bug.** Write a wrong `max_pool2d_backward` that passes a check by differences at random numbers, and predict
# which of the kit's draws finds it. Then change it until the kit does not. Is what is left still a bug?
#
# ## What became of it
#
# - **2011–14.** Krizhevsky's `cuda-convnet` (2011): convolutions by hand for one card, layers as lines of a text file, finite
#   differences as the test, as in notebook 2. The program of 2012 grew out of it, for several cards; it was published in 2025. Its
#   users met two cards in `cuda-convnet2` (2014).
# - **2014.** cuDNN (Chetlur and others) takes the kernels out of the libraries: Caffe, Torch and Theano all call the same ones.
# - **2015–17.** TensorFlow and PyTorch: operations with several implementations each, chosen by device, and thousands of tests
#   with tolerances set by hand.
# - **Since then** compilers (XLA, TVM, TorchInductor) write the kernels: `compile_step`, grown up. And property-based testing
#   (QuickCheck, Claessen and Hughes, 2000; Hypothesis, MacIver, 2015) checks what nobody wrote an example for.
#
# Next: **notebook 15**, from two cards of 3 GB to one of today.

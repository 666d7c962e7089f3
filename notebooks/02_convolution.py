# %% [markdown]
# # 2 · Convolution and backpropagation by hand
#
# The first five layers of AlexNet are convolutions. Why? A network could connect every pixel to every neuron, but then it
# would have to learn afresh at every place what an edge is. Convolutional networks, the paper says, make
#
# > "strong and mostly correct assumptions about the nature of images (namely, stationarity of statistics and locality
# > of pixel dependencies)" (section 1)
#
# *Locality*: what belongs together lies together, so a neuron looks at a small patch. *Stationarity*: what is worth
# seeing here is worth seeing there, so all places share one set of weights, the *kernel*. In this notebook you take
# the operation apart, forward and backward, until nothing is hidden.

# %%
import time

import numpy as np

from minialex.backend import registry
from minialex.course import checks as check
from minialex.course.notebooks import experiment, show
from minialex_numpy.conv2d import conv2d, conv2d_backward, patches

# %% [markdown]
# ## One kernel, by hand
#
# Lay a kernel of $R \times S$ weights on the image, multiply each weight with the pixel under it, add everything up: one
# number of the output. Move on by `stride` pixels, and again. With $C$ channels in, $K$ kernels, and $N$ images it is
#
# $$y_{n,k,p,q} = b_k + \sum_{c,r,s} w_{k,c,r,s} \; x_{n,\,c,\;p\cdot\text{stride}+r,\;q\cdot\text{stride}+s}.$$
#
# (Strictly, this is a *cross-correlation*: what mathematicians call a convolution turns the kernel round first.) Seven
# letters, seven loops. Nothing could be plainer, or slower:


# %%
def conv2d_in_loops(x, w, b, stride):
    N, C, H, W = x.shape
    K, _, R, S = w.shape
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    y = np.zeros((N, K, P, Q))
    for n in range(N):
        for k in range(K):
            for p in range(P):
                for q in range(Q):
                    total = b[k]
                    for c in range(C):
                        for r in range(R):
                            for s in range(S):
                                i, j = p * stride + r, q * stride + s
                                total += w[k, c, r, s] * x[n, c, i, j]
                    y[n, k, p, q] = total
    return y


# %% [markdown]
# What can a single kernel of 3 × 3 see? That depends on nothing but its nine weights. (In 1959 Hubel and Wiesel found
# cells in the cat's cortex that answer to edges of one direction; AlexNet's first layer learns such kernels by itself.)

# %% alt="A grey photograph and what four kernels make of it: edges from left to right, edges from top to bottom, spots, and a blur."
data = experiment.images(train=200, validation=200)
grey = data.validation.read(np.array([7]))[0].mean(axis=0)
kernels = {
    "left to right": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "top to bottom": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "spots": [[0, -1, 0], [-1, 4, -1], [0, -1, 0]],
    "blur": np.ones((3, 3)) / 9,
}
seen = [(grey / 255)]
for weights in kernels.values():
    w = np.array(weights, float)[None, None]
    found = conv2d_in_loops(grey[None, None], w, np.zeros(1), stride=1)[0, 0]
    seen.append((found - found.min()) / np.ptp(found))
show.images(seen, ["image", *kernels], columns=5, size=1.7)

# %% [markdown]
# ### Exercise 1: move the picture
#
# Which 3 × 3 kernel moves an image one pixel to the *right*? (The image is padded with zeros, so that it keeps its
# size.) Think first, then try: a surprising number of people are off by a mirror.

# %% tags=["exercise"]
to_the_right = ...

# %%
check.shift_kernel(to_the_right)

# %% [markdown]
# ## The same without loops
#
# The reference does not loop. It makes a *view* of the image in which every patch stands ready (no pixel is copied:
# neighbouring patches share memory), and then all those sums of products are one matrix product. Read from the library:

# %%
show.source(patches, conv2d)

# %% [markdown]
# Is it the same? Equality comes first, speed second.

# %%
generator = np.random.default_rng(0)
x = generator.normal(size=(2, 3, 16, 16))
w = generator.normal(size=(8, 3, 5, 5))
b = generator.normal(size=8)
none = ((0, 0), (0, 0))
by_loops = conv2d_in_loops(x, w, b, stride=2)
by_patches = conv2d(x, w, b, stride=2, padding=none)
print(f"loops and patches: largest difference {np.abs(by_loops - by_patches).max():.0e}")

# %% [markdown]
# And a third: the Numba backend, which is machine code for many cores.

# %% tags=["not-in-browser"]
numba = registry.load("numba")
device = numba.devices[0]
by_numba = numba.to_numpy(
    numba.conv2d(*(numba.to_device(a, device) for a in (x, w, b)), stride=2, padding=none)
)
print(f"loops and Numba: largest difference {np.abs(by_loops - by_numba).max():.0e}")

# %% [markdown]
# They agree to the last digits of a 64-bit number; the rest is rounding, since sums are added up in another order. Now
# the time for *one multiplication with its addition*. The loops get a small image, the others the paper's second layer
# (one column, four images).


# %%
def nanoseconds_each(function, multiply_adds, repeats):
    function()  # the first call may have to compile
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return 1e9 * min(times) / multiply_adds


small = conv2d_in_loops(x[:1], w, b, 1)
big_x = generator.normal(size=(4, 48, 27, 27)).astype(np.float32)
big_w = generator.normal(size=(128, 48, 5, 5)).astype(np.float32)
big_b = np.zeros(128, np.float32)
around = ((2, 2), (2, 2))
big = 4 * 128 * 27 * 27 * 48 * 25
cost = {
    "loops": nanoseconds_each(lambda: conv2d_in_loops(x[:1], w, b, 1), small.size * 75, 1),
    "patches and a product": nanoseconds_each(
        lambda: conv2d(big_x, big_w, big_b, stride=1, padding=around), big, 3
    ),
}

# %% tags=["not-in-browser"]
on_device = [numba.to_device(a, device) for a in (big_x, big_w, big_b)]
cost["Numba"] = nanoseconds_each(
    lambda: numba.conv2d(*on_device, stride=1, padding=around), big, 5
)

# %%
show.table(
    [
        (name, show.rounded(t), f"{show.rounded(724_406_816 * t * 1e-9)} s")
        for name, t in cost.items()
    ],
    ("how", "nanoseconds for one multiply-add", "the whole network, one image"),
)

# %%
times_faster = cost["loops"] / cost["patches and a product"]
show.text(f"""
On the machine that ran this notebook, the reference is about **{show.rounded(times_faster)} times** as fast
as the loops. Nothing about the *mathematics* has changed.
""")

# %% [markdown]
# ## Backwards
#
# Training needs to know how the loss $L$ changes with every weight. *Backpropagation* computes that from the end of the
# network to its beginning: each layer is given $\partial L / \partial y$, which we call `dy`, and has to answer two
# questions. How does the loss change with my weights (`dw`, `db`)? And with my input (`dx`, the `dy` of the layer before)?
#
# For the convolution both answers come from the sum above. The weight $w_{k,c,r,s}$ occurs in every output of channel
# $k$, each time multiplied by one pixel:
#
# $$\frac{\partial L}{\partial w_{k,c,r,s}} = \sum_{n,p,q} dy_{n,k,p,q}\; x_{n,\,c,\;p\cdot\text{stride}+r,\;q\cdot\text{stride}+s}$$
#
# And a pixel gets something back from every output that it took part in, through the weight that it was multiplied by. In
# the library:

# %%
show.source(conv2d_backward)

# %% [markdown]
# ### Never believe a gradient
#
# A wrong gradient does not crash. It trains a little worse, and you may look for the reason for weeks. So it is
# *checked*: change one number by a little $h$ and see how the loss changes (a *gradient check*). A good way is the
# central difference,
# $f'(x) \approx \frac{f(x+h) - f(x-h)}{2h}$.
#
# ### Exercise 2: the slope
#
# Write it, for any function `f` of one number.


# %% tags=["exercise"]
def slope(f, x, h):
    return ...


# %%
check.slope(slope)

# %% [markdown]
# Now for every one of the weights above. As the "loss" we take a random weighted sum of the outputs, so that `dy` is
# just those weights.

# %%
dy = generator.normal(size=by_loops.shape)
dx, dw, db = conv2d_backward(dy, x, w, stride=2, padding=none, need_dx=True)


def measured(array, place, h, dtype=np.float64):
    """The central difference of the loss with respect to one number of x or w."""
    losses = []
    for sign in (+1, -1):
        moved = {"x": x.astype(dtype), "w": w.astype(dtype)}
        moved[array][place] += dtype(sign * h)
        y = conv2d(moved["x"], moved["w"], b.astype(dtype), stride=2, padding=none)
        losses.append((y.astype(dtype) * dy.astype(dtype)).sum(dtype=dtype))
    return float(losses[0] - losses[1]) / (2 * h)


places = [tuple(generator.integers(0, n) for n in w.shape) for _ in range(60)]
numeric = np.array([measured("w", place, 1e-4) for place in places])
analytic = np.array([dw[place] for place in places])
pixels = [tuple(generator.integers(0, n) for n in x.shape) for _ in range(60)]
numeric_x = np.array([measured("x", place, 1e-4) for place in pixels])
analytic_x = np.array([dx[place] for place in pixels])
print(f"60 weights: largest difference {np.abs(numeric - analytic).max():.0e}")
print(f"60 pixels:  largest difference {np.abs(numeric_x - analytic_x).max():.0e}")

# %% [markdown]
# How small should $h$ be? The sum is linear in one weight, so here only rounding matters. Put a bend in it, say
# $\tanh$, and two errors fight each other: with a large $h$ the curve bends away, with a small one the difference of two
# nearly equal numbers loses its digits. Every gradient check stands in the valley between.

# %% alt="Four curves, the error of a numerical slope against the step h, both axes logarithmic. Each is V-shaped; central differences in 64 bits reach the lowest error, forward differences in 32 bits hardly any accuracy."
steps = 10.0 ** np.arange(-14, 0.5, 0.5)
errors = {}
for name, dtype in (("64 bits", np.float64), ("32 bits", np.float32)):
    for kind in ("central", "forward"):
        slips = []
        for h in steps:
            point, h_there = dtype(0.7), dtype(h)
            ahead, here = np.tanh(point + h_there), np.tanh(point)
            behind = np.tanh(point - h_there)
            difference = ahead - behind if kind == "central" else ahead - here
            found = float(difference) / (float(h) * (2 if kind == "central" else 1))
            slips.append(max(abs(found - (1 - np.tanh(0.7) ** 2)), 1e-16))
        errors[f"{kind}, {name}"] = (steps, slips)
show.curves(
    errors,
    "h",
    "error of the slope of tanh at 0.7",
    log_x=True,
    log_y=True,
    headline="Too large a step bends away, too small a step drowns in rounding",
)

# %%
best = {name: steps[int(np.argmin(slips))] for name, (_, slips) in errors.items()}
show.text(
    "The best of these steps: "
    + ", ".join(f"**{h:.0e}** for {name}" for name, h in best.items())
    + ". That is why the reference also works in float64, and why gradients are checked there."
)

# %% [markdown]
# ### Exercise 3: the gradient of the weights
#
# Write `dw` yourself, with as many loops as you like, for a convolution without padding. `dy` is $[N, K, P, Q]$, `x` is
# $[N, C, H, W]$, the kernels have `size` rows and columns; return $[K, C, \text{size}, \text{size}]$.


# %% tags=["exercise"]
def weight_gradient(dy, x, size, stride):
    return ...


# %%
check.weight_gradient(weight_gradient)

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ Twice blurred.** Blur the image twice with the kernel of 3 × 3. Which *single* kernel does the same? Say its size,
# its middle weight and its corner weight, then compare with `conv2d`.
#
# **★★★ The gradient is a convolution, too.** For stride 1 and no padding, `dx` can be had from one call of `conv2d`, with
# `dy` in the place of the image. With which kernels, and how many zeros around `dy`? Derive it from the sum above, predict
# the shapes, and hold it against `conv2d_backward`.

# %% [markdown]
# ## What became of it
#
# - **Before.** Fukushima's neocognitron (1980) had the layers; LeCun and others (1989) trained such a network by
#   backpropagation, to read handwritten digits.
# - **2014.** cuDNN (Chetlur and others) turns convolutions into matrix products without ever storing the patches. Most
#   frameworks have called it since.
# - **2015.** Lavin and Gray use Winograd's algorithm of 1980: a 3 × 3 convolution with 2¼ times fewer multiplications, or fewer still.
#   The Numba backend of this library does so too (`minialex_numba/winograd.py`).
# - **2016–17.** Xception (Chollet) and MobileNet (Howard and others) split a convolution into one over places and one
#   over channels. A network of a phone's size became possible.
# - **Gradients by hand** went out of use: Theano, TensorFlow (2015) and PyTorch (2016) derive them from the forward pass.
#   Here they stay by hand, since you came to see them.
#
# Next: **notebook 3**, what stands between two layers.

# %% [markdown]
# # 0 · A network learns, and a tape
#
# Before AlexNet, the thing that it does sixty million times over: a number is moved a little so that an error becomes
# smaller. You begin with one neuron whose every number fits on a page, train fifty of them on pictures, and then build
# from nothing what PyTorch is built on: a *tape* that records what is computed and is played backwards. At the end it
# is checked against every gradient of this library.
#
# The chapter *A network learns* of the tutorial (`minialex docs`) tells the same story with the numbers on wires, where a
# slider moves them.

# %%
import numpy as np

from minialex.course import checks as check
from minialex.course.notebooks import show
from minialex.data import load
from minialex_numpy.linear import linear, linear_backward
from minialex_numpy.relu import relu, relu_backward

# %% [markdown]
# ## One neuron
#
# A weighted sum, a bend, and a loss that says how far the answer is from the target $t$:
#
# $$z = \sum_i w_i x_i + b, \qquad y = \max(0, z), \qquad L = \tfrac12 (y - t)^2.$$
#
# Below is the loss over the first weight, with five steps $w \leftarrow w - \varepsilon\,\partial L/\partial w$ at three
# learning rates $\varepsilon$. The slope is found by trying: move the weight a little, see what the loss does.

# %% alt="The loss of a neuron over one weight, flat on the left and a parabola on the right, and three descents of five steps: the smallest rate creeps, the middle one arrives at the bottom, the largest lands on the flat part and stays."
x, w, b, t = np.array([2.0, -1.0]), np.array([0.5, -1.5]), 0.5, 1.0


def loss(w):
    return (np.maximum(w @ x + b, 0) - t) ** 2 / 2


def slope(first, little=1e-6):
    here, there = np.array([first, w[1]]), np.array([first + little, w[1]])
    return (loss(there) - loss(here)) / little


def descent(rate, first=0.5, steps=5):
    path = [first]
    for _ in range(steps):
        path.append(path[-1] - rate * slope(path[-1]))
    return np.array(path), [loss(np.array([v, w[1]])) for v in path]


across = np.linspace(-1.8, 1, 200)
lines = {"the loss": (across, [loss(np.array([v, w[1]])) for v in across])}
lines |= {f"learning rate {rate:g}": descent(rate) for rate in (0.03, 0.2, 0.52)}
show.curves(lines, "first weight", "loss", headline="Five steps, three learning rates")

# %% [markdown]
# The chain rule gives all slopes at once. Start at the loss and go back, box by box; each multiplies what comes by the
# slope of its own output along its own input. These are the library's functions for the sum (for many neurons at once, a
# *fully connected* layer) and for the bend. `dy` stands for $\partial L/\partial y$:

# %%
show.source(linear, linear_backward, relu, relu_backward)

# %% [markdown]
# ### Exercise 1: the slopes of a neuron
#
# Write the slopes of the loss along the weights and along the bias, as two values `dw, db`. No trying out: use the chain
# rule. (What are they if the neuron is silent?)


# %% tags=["exercise"]
def neuron_slopes(w, x, b, t):
    return ...


# %%
check.neuron_slopes(neuron_slopes)

# %% [markdown]
# ## Ten answers: p − y
#
# A network that tells ten classes apart ends in ten sums $z_k$, the *logits*. The *softmax* makes probabilities of them, and
# the loss, the *cross-entropy*, is minus the logarithm of what the true class $c$ got:
#
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad L = -\ln p_c = \ln\sum_j e^{z_j} - z_c.$$
#
# ### Exercise 2: the slope along every logit
#
# Derive $\partial L/\partial z_k$, and write it as a function of the logits (an array) and the true class. Mind that
# $e^{800}$ is too large for a computer: what may be subtracted from all logits without changing anything?


# %% tags=["exercise"]
def logit_slopes(z, c):
    return ...


# %%
check.logit_slopes(logit_slopes)

# %% [markdown]
# ## Thirty lines that learn
#
# The library draws pictures: ten kinds of figures, turned, in any colours, on textured grounds. Here they are small and
# grey. 2,000 of them are to learn from, the *training set*; 1,000 others are to test with, the *validation set*.

# %% alt="Ten small grey pictures of noisy figures, among them a disc, a ring, a square, a frame and a triangle, each in a shade of its own on a textured ground."
data = load("shapes", size=16, train_images=2000, validation_images=1000)


def numbers(part):
    grey = part.read(np.arange(len(part))).mean(axis=1)
    return (grey.reshape(len(part), -1) - 128) / 64, np.array(part.labels)


pictures, label = numbers(data.train)
new_pictures, new_label = numbers(data.validation)
names = [data.class_names[k] for k in label[:10]]
show.images([p.reshape(16, 16) for p in pictures[:10]], names, columns=5)


# %%
def begin(random, hidden):
    w1 = random.normal(0, (2 / 256) ** 0.5, (256, hidden))
    w2 = random.normal(0, (1 / hidden) ** 0.5, (hidden, 10))
    return [w1, np.zeros(hidden), w2, np.zeros(10)]


def forward(x, w1, b1, w2, b2):
    h = np.maximum(x @ w1 + b1, 0)
    z = h @ w2 + b2
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return h, e / e.sum(axis=1, keepdims=True)


def gradients(x, label, w1, b1, w2, b2):
    h, p = forward(x, w1, b1, w2, b2)
    dz = (p - np.eye(10)[label]) / len(x)  # p − y, a mean over the pictures
    dh = dz @ w2.T * (h > 0)  # through the second layer, through the bend
    return x.T @ dh, dh.sum(axis=0), h.T @ dz, dz.sum(axis=0)


def error(x, label, weights):
    return np.mean(forward(x, *weights)[1].argmax(axis=1) != label)


def train(seed, hidden=50, epochs=64, rate=0.05, batch=20):
    random = np.random.default_rng(seed)
    weights, errors = begin(random, hidden), []
    for _ in range(epochs):
        order = random.permutation(len(pictures))
        for first in range(0, len(pictures), batch):
            some = order[first : first + batch]
            found = gradients(pictures[some], label[some], *weights)
            for w, dw in zip(weights, found, strict=True):
                w[:] = w - rate * dw
        here = error(pictures, label, weights)
        errors.append((here, error(new_pictures, new_label, weights)))
    return weights, 100 * np.array(errors)


# %% [markdown]
# A step looks at a *batch* of 20 pictures; once through all of them, 100 steps, is an *epoch*. Guessing is wrong in 90% of
# cases.

# %% alt="Two falling curves over 64 epochs: the training error falls from 80% to under 10%, the validation error from 83% to about half and then hardly further."
weights, errors = train(seed=0)
epochs = np.arange(1, len(errors) + 1)
show.curves(
    {"training": (epochs, errors[:, 0]), "validation": (epochs, errors[:, 1])},
    "epoch",
    "wrong, %",
    level=(90, "guessing"),
    headline="What it learned, and what it memorised",
)

# %%
show.text(f"""
At the end **{errors[-1, 0]:.0f}%** of the training pictures are wrong and **{errors[-1, 1]:.0f}%** of the new ones.
The distance of the two curves is *overfitting*: it knows these 2,000 pictures by their specks and textures, which no other
picture shares. Only pictures that had no part in training, nor in our choices, say what a network can do.
""")

# %% [markdown]
# What do neurons look for? These are the weights of the first sixteen, as pictures: white where they want it bright.

# %% alt="Sixteen grey squares of weights: blurred patches of light and dark over fine noise."
show.images([v.reshape(16, 16) for v in weights[0].T[:16]], columns=8)

# %% [markdown]
# Each neuron listens to every pixel with a weight of its own, and specks remain. Sharing weights between places is what
# **notebook 2** is about.
#
# ### Exercise 3: how many steps?
#
# AlexNet learned from 1,281,167 pictures in batches of 128, for 90 epochs. A batch that would not be full is left out. How
# many steps is that?

# %% tags=["exercise"]
steps = ...

# %%
check.training_steps(steps)

# %% [markdown]
# ## A tape
#
# We derived each gradient by hand, and so does this library. There is another way. Let every array remember *what it was
# made of*, and for each of these how a slope along the result becomes a slope along the input. Then nobody needs to derive
# anything beyond a dozen small rules: the tape is played backwards, and each rule is applied in turn. This is *automatic
# differentiation*, in reverse.


# %%
class Taped:
    """An array that knows what it was made of."""

    def __init__(self, data, made_of=()):
        self.data = np.asarray(data, float)
        self.made_of = (
            made_of  # pairs: an input, and how a slope along me becomes one along it
        )
        self.slope = np.zeros_like(self.data)

    def __add__(self, other):
        other = taped(other)
        return Taped(self.data + other.data, [(self, same), (other, same)])

    def __mul__(self, other):
        other = taped(other)
        made_of = [(self, lambda g: g * other.data), (other, lambda g: g * self.data)]
        return Taped(self.data * other.data, made_of)

    def __matmul__(self, other):
        other = taped(other)
        made_of = [
            (self, lambda g: g @ turned(other.data)),
            (other, lambda g: turned(self.data) @ g),
        ]
        return Taped(self.data @ other.data, made_of)

    def __pow__(self, n):
        return Taped(self.data**n, [(self, lambda g: g * n * self.data ** (n - 1))])

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -taped(other)

    def exp(self):
        e = np.exp(self.data)
        return Taped(e, [(self, lambda g: g * e)])

    def log(self):
        return Taped(np.log(self.data), [(self, lambda g: g / self.data)])

    def relu(self):
        return Taped(np.maximum(self.data, 0), [(self, lambda g: g * (self.data > 0))])

    def sum(self, axis=None):
        def back(g):
            wide = g if axis is None else np.expand_dims(g, axis)
            return np.broadcast_to(wide, self.data.shape)

        return Taped(self.data.sum(axis=axis), [(self, back)])

    def max(self):
        """The largest along the last axis; where several are equal, the first."""
        first = self.data.argmax(axis=-1)[..., None] == np.arange(self.data.shape[-1])
        return Taped(self.data.max(axis=-1), [(self, lambda g: g[..., None] * first)])

    def reshape(self, *shape):
        back = [(self, lambda g: g.reshape(self.data.shape))]
        return Taped(self.data.reshape(shape), back)

    def transpose(self, *axes):
        back = [(self, lambda g: g.transpose(np.argsort(axes)))]
        return Taped(self.data.transpose(axes), back)

    def __getitem__(self, place):
        def back(g):
            into = np.zeros_like(self.data)
            np.add.at(into, place, g)  # what was taken twice gets two slopes
            return into

        return Taped(self.data[place], [(self, back)])

    def backward(self):
        """Play the tape backwards from here; every array that took part gets its slope."""
        order, seen = [], set()

        def visit(node):
            if id(node) not in seen:
                seen.add(id(node))
                for parent, _ in node.made_of:
                    visit(parent)
                order.append(node)

        visit(self)
        self.slope = np.ones_like(self.data)
        for node in reversed(order):  # all that uses a node comes before it
            for parent, back in node.made_of:
                parent.slope = parent.slope + summed(back(node.slope), parent.data.shape)


def taped(value):
    return value if isinstance(value, Taped) else Taped(value)


def same(g):
    return g


def turned(matrix):
    return matrix.swapaxes(-1, -2)


def summed(g, shape):
    """A number that was repeated to fit a larger array gets the sum of what comes back."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


# %% [markdown]
# That is all of it. `made_of` is the tape; `backward` sorts it so that an array comes only after everything that was made of
# it, and applies each rule once. The neuron from above:

# %%
weight, bias = Taped([0.5, -1.5]), Taped(0.5)
distance = ((weight * x).sum() + bias).relu() - t
(distance**2 * 0.5).backward()
print("along the weights", weight.slope, " along the bias", bias.slope)

# %% [markdown]
# ## Every layer of AlexNet on the tape
#
# Now the layers, written *forward only*, from those dozen rules; none of them has a gradient of its own. A window over a
# picture is nothing but taking numbers out of an array at certain places, some of them several times.


# %%
def windows(x, size, stride):
    """[N,C,H,W] → [N,C,P,Q,R,S]: what lies under a window at each place."""
    P, Q = ((n - size) // stride + 1 for n in x.data.shape[2:])
    rows = stride * np.arange(P)[:, None, None, None] + np.arange(size)[:, None]
    columns = stride * np.arange(Q)[:, None, None] + np.arange(size)
    return x[:, :, rows, columns]


def conv(x, w, b, stride):
    K, C, R, S = w.data.shape
    N, _, P, Q, _, _ = (seen := windows(x, R, stride)).data.shape
    rows = seen.transpose(0, 2, 3, 1, 4, 5).reshape(N * P * Q, C * R * S)
    y = rows @ w.reshape(K, C * R * S).transpose(1, 0) + b
    return y.reshape(N, P, Q, K).transpose(0, 3, 1, 2)


def normalise(x, size, k, alpha, beta):
    N, C, H, W = x.data.shape
    apart = np.arange(C) - np.arange(C)[:, None]
    neighbours = ((apart >= -(size // 2)) & (apart <= size - 1 - size // 2)) * 1.0
    squares = taped(neighbours) @ (x * x).reshape(N, C, H * W)
    return x * (squares.reshape(N, C, H, W) * alpha + k) ** -beta


def pool(x, size, stride):
    seen = windows(x, size, stride)
    return seen.reshape(*seen.data.shape[:4], size * size).max()


def dense(x, w, b):
    return x @ w.transpose(1, 0) + b


def cross_entropy(z, label):
    z = z - z.data.max(axis=1, keepdims=True)
    right = z[np.arange(len(label)), label]
    return (z.exp().sum(axis=1).log() - right).sum() * (1 / len(label))


# %% [markdown]
# And the library's own gradients, written by hand, one file an operation. We feed both the same random numbers, let the same
# random slope come back from above, and look at the largest difference:

# %%
from minialex_numpy.conv2d import conv2d_backward
from minialex_numpy.dropout import dropout_backward
from minialex_numpy.local_response_norm import (
    local_response_norm,
    local_response_norm_backward,
)
from minialex_numpy.max_pool2d import max_pool2d, max_pool2d_backward
from minialex_numpy.softmax_cross_entropy import (
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
)

random = np.random.default_rng(0)
image, kernel = random.normal(size=(2, 6, 9, 9)), random.normal(size=(4, 6, 3, 3))
rows, matrix = random.normal(size=(5, 12)), random.normal(size=(7, 12))
some, labels = random.normal(size=7), random.integers(0, 7, 5)
mask = random.integers(0, 2, rows.shape)
norm = {"size": 4, "k": 2.0, "alpha": 0.1, "beta": 0.75}


def by_tape(operation, *arrays):
    """The slopes along all arrays, and the slope that came from above."""
    inputs = [Taped(array) for array in arrays]
    y = operation(*inputs)
    above = random.normal(size=y.data.shape)
    (y * above).sum().backward()
    return [array.slope for array in inputs], above, y.data


rows_of_table = []


def compare(name, tape, library):
    far = max(np.abs(a - b).max() for a, b in zip(tape, library, strict=True))
    rows_of_table.append((name, len(tape), f"{far:.0e}" if far > 1e-12 else "< 1e-12"))


bias = random.normal(size=4)
tape, dy, _ = by_tape(lambda x, w, b: conv(x, w, b, stride=2), image, kernel, bias)
none = ((0, 0), (0, 0))
compare(
    "convolution",
    tape,
    conv2d_backward(dy, image, kernel, stride=2, padding=none, need_dx=True),
)

tape, dy, y = by_tape(lambda x: x.relu(), image)
compare("ReLU", tape, [relu_backward(dy, y)])

tape, dy, y = by_tape(lambda x: normalise(x, **norm), image)
_, scale = local_response_norm(image, **norm)
rest = {name: value for name, value in norm.items() if name != "k"}
compare("normalisation", tape, [local_response_norm_backward(dy, image, y, scale, **rest)])

ties = np.maximum(image, 0)  # windows of nothing but zeros: the first gets it
tape, dy, y = by_tape(lambda x: pool(x, 3, 2), ties)
window = {"size": 3, "stride": 2, "ceil": False}
assert (y == max_pool2d(ties, **window)).all()
compare("pooling", tape, [max_pool2d_backward(dy, ties, y, **window, ties="first")])

tape, dy, _ = by_tape(lambda x: x * (mask * 2.0), rows)
compare("dropout", tape, [dropout_backward(dy, mask, factor=2.0)])

tape, dy, _ = by_tape(dense, rows, matrix, some)
compare("fully connected", tape, linear_backward(dy, rows, matrix, need_dx=True))

logits = Taped(linear(rows, matrix, some))
cost = cross_entropy(logits, labels)
cost.backward()
truth, probs = softmax_cross_entropy(logits.data, labels)
compare(
    "softmax and cross-entropy",
    [logits.slope, cost.data],
    [softmax_cross_entropy_backward(probs, labels), truth],
)
show.table(rows_of_table, ("layer", "arrays compared", "largest difference"))

# %% [markdown]
# A hundred lines and a dozen rules know as much about slopes as all the files of the library. Why, then, is the library
# written by hand? A tape keeps every array that took part until the end; a gradient that somebody has thought about keeps
# what it needs (ReLU keeps its output, dropout one byte per unit). And a formula with indices can be *read*: chapters 3,
# 4, 7, 8 and 10 of the tutorial derive them.
#
# The thirty lines from above, and the tape, on the first batch:

# %%
found = [Taped(v) for v in begin(np.random.default_rng(0), 50)]
hidden = (Taped(pictures[:20]) @ found[0] + found[1]).relu()
cross_entropy(hidden @ found[2] + found[3], label[:20]).backward()
hand = gradients(pictures[:20], label[:20], *(v.data for v in found))
agree = all(np.allclose(a.slope, b) for a, b in zip(found, hand, strict=True))
print("the same gradients:", agree)

# %% [markdown]
# ## Two harder ones: predict, then run
#
# Nothing checks these. Write down what you expect, and how sure you are, *before* you run anything; then change a copy of
# the cell, and look. (★★ takes some minutes, ★★★ an hour.)
#
# **★★ From nothing.** Let `begin` give zeros for all four arrays, and train. Which of the four are still zero after 64
# epochs, and how large is the training error? Derive it from `gradients`, line by line, before you run it.
#
# **★★★ Nothing to learn.** Give the training pictures their labels in random order (`label = random.permutation(label)`),
# and train with 50 hidden neurons, then with 200. Predict four numbers: both training errors, and both errors on new
# pictures. What do they say about the gap between the two curves above?

# %% [markdown]
# ## What became of it
#
# - **Before.** Reverse differentiation is Linnainmaa's (1970); Speelpenning wrote a compiler for it in 1980. Rumelhart, Hinton
#   and Williams (1986) showed that hidden layers learn something worth having with it. The networks of the 1990s and
#   `cuda-convnet` in 2012 had gradients written by hand, layer by layer, as this library does.
# - **2007–15.** Theano derived gradients from a graph of symbols, TensorFlow (2015) did so at Google's scale; autograd
#   (Maclaurin and others) taped plain NumPy.
# - **2017 on.** PyTorch and JAX: one writes the forward pass, in Python, and nobody derives anything. That a new idea costs an
#   afternoon now owes much to it.
#
# Next: **notebook 1**, where a picture goes through all eight layers.

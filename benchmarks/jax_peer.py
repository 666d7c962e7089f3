"""The same network as a JAX user would write it for a CPU: one jitted training step, uint8 images in, loss out.

Of the ways that were tried, the quickest: channels last; two columns as two convolutions instead of a grouped one; a
strided convolution as a matrix product of its patches, which are made of blocks of stride × stride pixels; sums of
neighbours by `reduce_window`. Weights and momentum are donated, so that the update is in place. Dropout and momentum
are as in `peer`: dropout scales in training, v ← 0.9v + g, w ← w − εv; random numbers are JAX's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import NDArray

from minialex.data.draws import centre_crop_offset
from minialex.data.statistics import Statistics
from minialex.network.layers import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minialex.network.network import Network
from minialex.recipe.fields import Recipe

Tensors = dict[str, jax.Array]
LAST = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, weight: jax.Array, layer: Conv2d) -> jax.Array:
    """A convolution of [N,H,W,C] with [R,S,C,K]; padding as the layer has it."""
    x = jnp.pad(x, ((0, 0), *layer.padding, (0, 0)))
    if layer.stride == 1:
        return lax.conv_general_dilated(x, weight, (1, 1), "VALID", dimension_numbers=LAST)
    x, weight = blocks(x, weight, layer.stride)
    (_, rows, columns, _), (R, S, _, K) = x.shape, weight.shape
    H, W = rows - R + 1, columns - S + 1
    patches = jnp.concatenate([x[:, r : r + H, s : s + W] for r in range(R) for s in range(S)], 3)
    return patches @ weight.reshape(-1, K)


def blocks(x: jax.Array, weight: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Blocks of stride × stride pixels as channels, and weights that fit: the same convolution at stride 1."""
    N, H, W, C = x.shape
    R, S, _, K = weight.shape
    high, wide = -(-R // stride), -(-S // stride)
    rows, columns = (H - R) // stride + high, (W - S) // stride + wide
    down, right = rows * stride, columns * stride
    x = jnp.pad(x, ((0, 0), (0, max(0, down - H)), (0, max(0, right - W)), (0, 0)))[:, :down, :right]
    x = x.reshape(N, rows, stride, columns, stride, C).transpose(0, 1, 3, 2, 4, 5).reshape(N, rows, columns, -1)
    weight = jnp.pad(weight, ((0, high * stride - R), (0, wide * stride - S), (0, 0), (0, 0)))
    weight = weight.reshape(high, stride, wide, stride, C, K).transpose(0, 2, 1, 3, 4, 5).reshape(high, wide, -1, K)
    return x, weight


def norm(x: jax.Array, layer: LocalResponseNorm) -> jax.Array:
    """Local response normalisation of [N,H,W,C] over neighbouring channels."""
    before = layer.size // 2
    around = ((0, 0),) * 3 + ((before, layer.size - 1 - before),)
    total = lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, layer.size), (1, 1, 1, 1), around)
    return x * (layer.k + layer.coefficient * total) ** -layer.beta


def pool(x: jax.Array, layer: MaxPool2d, output: Sequence[int]) -> jax.Array:
    """Max-pooling of [N,H,W,C] to [H,W] of `output`; windows may hang over the edge."""
    sizes = zip(x.shape[1:3], output, strict=True)
    over = [(0, max(0, (out - 1) * layer.stride + layer.size - size)) for size, out in sizes]
    window, strides = (1, layer.size, layer.size, 1), (1, layer.stride, layer.stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), *over, (0, 0)))


def forward(stages: Any, columns: int, tensors: Tensors, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """Logits [N,K] of centred float images [N,crop,crop,3]; with a key, with dropout."""
    first = True
    for stage in stages:
        layer = stage.layer
        match layer:
            case Conv2d():
                weight, bias = tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"]
                if first or stage.gathers or columns == 1:
                    x = conv(x, weight, layer) + bias
                else:
                    halves = zip(jnp.split(x, columns, 3), jnp.split(weight, columns, 3), strict=True)
                    x = jnp.concatenate([conv(half, kernels, layer) for half, kernels in halves], 3) + bias
                first = False
            case LocalResponseNorm():
                own = columns if layer.sees == "own" else 1
                x = jnp.concatenate([norm(part, layer) for part in jnp.split(x, own, 3)], 3)
            case ReLU():
                x = jnp.maximum(x, 0)
            case MaxPool2d():
                x = pool(x, layer, stage.output[1:])
            case Flatten():
                x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
            case Linear():
                x = x @ tensors[f"{layer.name}.weight"] + tensors[f"{layer.name}.bias"]
            case Dropout():
                if key is not None:
                    key, own_key = jax.random.split(key)
                    kept = jax.random.bernoulli(own_key, 1 - layer.rate, x.shape)
                    x = jnp.where(kept, x / (1 - layer.rate), 0)
            case _:
                raise ValueError(f"no peer of layer '{layer.name}'")
    return x


class JaxSession:
    """A network in JAX, and what `minialex.engine.session.Session` is asked for.

    Args:
        recipe: with `classes` set
        network: of minialex
        statistics: of the training set
    """

    def __init__(self, recipe: Recipe, network: Network, statistics: Statistics) -> None:
        if recipe.mean != "pixel" or recipe.crops != "random" or not recipe.reflect or recipe.decay_biases:
            raise ValueError("the peer augments and decays as the recipe 'alexnet-2012' does")
        self.recipe = recipe
        self.stages = list(network.stages(recipe.columns))
        self.mean = jnp.asarray(statistics.mean.transpose(1, 2, 0))
        scale = recipe.colour * np.sqrt(statistics.eigenvalues)
        self.colours = jnp.asarray((statistics.eigenvectors * scale).astype(np.float32).T)
        self.key = jax.random.key(0)
        self.steps = 0
        self._train = jax.jit(self._step, donate_argnums=(0, 1))
        self._infer = jax.jit(self._view)

    def load(self, weights: Mapping[str, NDArray[np.floating[Any]]]) -> None:
        """Take the weights of a minialex session (whole layers, see `minialex.network.parameters.join_columns`)."""
        self.tensors: Tensors = {}
        for name, array in weights.items():
            order = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
            self.tensors[name] = jnp.asarray(np.ascontiguousarray(array.transpose(order)))
        self.momentum = {name: jnp.zeros_like(tensor) for name, tensor in self.tensors.items()}

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The weights as `load` takes them."""
        orders = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
        return {name: np.asarray(tensor).transpose(orders[tensor.ndim]) for name, tensor in self.tensors.items()}

    def augment(self, images: jax.Array, key: jax.Array) -> jax.Array:
        """Crops, reflections and colour shifts of uint8 [N,3,S,S], mean subtracted: float32 [N,crop,crop,3]."""
        N, _, S, _ = images.shape
        crop = self.recipe.crop
        for_place, for_flip, for_colour = jax.random.split(key, 3)
        places = jax.random.randint(for_place, (N, 2), 0, S - crop + 1)
        flips = jax.random.bernoulli(for_flip, 0.5, (N,))
        shifts = jax.random.normal(for_colour, (N, 3)) @ self.colours

        def one(image: jax.Array, place: jax.Array, flip: jax.Array, shift: jax.Array) -> jax.Array:
            start = (place[0], place[1], 0)
            cut = lax.dynamic_slice(image, start, (crop, crop, 3)).astype(jnp.float32)
            cut -= lax.dynamic_slice(self.mean, start, (crop, crop, 3))
            return jnp.where(flip, cut[:, ::-1], cut) + shift

        return jax.vmap(one)(images.transpose(0, 2, 3, 1), places, flips, shifts) * self.recipe.pixel_scale

    def _step(
        self, tensors: Tensors, momentum: Tensors, images: jax.Array, labels: jax.Array, step: int
    ) -> tuple[Tensors, Tensors, jax.Array]:
        for_images, for_dropout = jax.random.split(jax.random.fold_in(self.key, step))
        x = self.augment(images, for_images)

        def cost(tensors: Tensors) -> jax.Array:
            logits = forward(self.stages, self.recipe.columns, tensors, x, for_dropout)
            own = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
            return -own.mean()

        loss, gradients = jax.value_and_grad(cost)(tensors)
        decay, rate = self.recipe.weight_decay, self.recipe.learning_rate
        for name, gradient in gradients.items():
            decayed = gradient + decay * tensors[name] if name.endswith("weight") else gradient
            momentum[name] = self.recipe.momentum * momentum[name] + decayed
            tensors[name] = tensors[name] - rate * momentum[name]
        return tensors, momentum, loss

    def _view(self, tensors: Tensors, images: jax.Array) -> jax.Array:
        first, crop = centre_crop_offset(self.recipe.image_size, self.recipe.crop), self.recipe.crop
        here = slice(first, first + crop)
        x = images[:, :, here, here].transpose(0, 2, 3, 1).astype(jnp.float32) - self.mean[here, here]
        x = x * self.recipe.pixel_scale
        return jax.nn.softmax(forward(self.stages, self.recipe.columns, tensors, x, None))

    def train(self, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
        """One training step; the loss."""
        self.tensors, self.momentum, loss = self._train(self.tensors, self.momentum, images, labels, self.steps)
        self.steps += 1
        return float(loss)

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities [N,K], centre view."""
        return np.asarray(self._infer(self.tensors, images))

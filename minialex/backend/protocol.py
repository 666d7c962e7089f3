"""The backend protocol: the named operations that every backend implements, each with its gradient beside it.

A backend is one final class. Its operations take and return its own arrays, which are opaque to all other code:
only ``.shape``, ``.dtype`` and ``.device`` may be read. Arrays are contiguous; images are N C H W (batch,
channels, height, width). Operations are pure: arguments are never written, except by `sgd_update`, and what a
gradient needs is returned, never kept. A gradient has the shape and dtype of the thing it is the gradient of.

Letters: N images, C channels in, H and W height and width in, K kernels or features out, P and Q height and
width out, R and S height and width of a kernel, D features in.

Dtypes: floating-point arrays are float32 or float64, the same within one operation, and so are results; labels
are int64, images uint8, masks uint8. Shapes that do not fit raise `ConfigurationError` (a `ValueError`) naming
the operation and both shapes; arrays of different devices raise `DeviceMismatch`. `minialex.backend.rules` has the
rules as functions, one per operation, and checks for every backend.

A third party's backend need not inherit from anything: `minialex.backend.registry` compares its signatures with this
class by reflection, and `minialex.conformance` compares its numbers with the reference. It may have four methods
besides the protocol's. ``joules(device)`` is the energy that a device has used since some fixed moment, or None; a
run's report then states the energy of training. ``host_bytes(shape)`` is an uninitialised uint8 NumPy array in host
memory from which `to_device` is fastest; batches are then read straight into such arrays, by one thread per
processor, and are not changed afterwards. ``to_numpy_later(arrays)`` begins to copy arrays to the host, as they are
after all work asked for so far, and returns a function that waits for the copies and returns them in a list; training
then asks for a step before it has the result of the one before, so that such a device never waits for the host.
``keep_rows(blocks, shape, devices)`` keeps an array of images that comes in blocks on devices, if there is room, and
returns a function that takes rows of it there (None if not); training then reads no image after its second epoch has
begun.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from minialex.backend.arrays import Array, Padding
from minialex.backend.operations import Function
from minialex.backend.program import ArrayName, CompiledStep, Program
from minialex.philox import Stream


class Backend(Protocol):
    """Operations on arrays; see the module's docstring for what holds for all of them."""

    name: ClassVar[str]

    # ---- devices and movers -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """Names of the devices, the default first, e.g. ``("cpu:0", "cpu:1")``."""
        ...

    @abstractmethod
    def to_device(self, array: Any, device: str) -> Array:
        """A NumPy array, copied to a device (contiguous, dtype kept). Unknown device: `ConfigurationError`."""
        ...

    @abstractmethod
    def to_numpy(self, x: Array) -> Any:
        """A new NumPy array on the host with the same numbers. Waits for the computation of `x`."""
        ...

    @abstractmethod
    def copy_to(self, x: Array, device: str) -> Array:
        """`x` on another device; `x` itself if it is already there."""
        ...

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: str, device: str) -> Array:
        """An array of zeros."""
        ...

    @abstractmethod
    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        """The same numbers in row-major order in another shape of the same size."""
        ...

    @abstractmethod
    def concat(self, xs: Sequence[Array]) -> Array:
        """Arrays [N, C_i, …] concatenated along axis 1, the channels: [N, sum of C_i, …]."""
        ...

    @abstractmethod
    def split(self, x: Array, sizes: Sequence[int]) -> list[Array]:
        """The inverse of `concat`: pieces of `sizes` channels; the sizes must add up to axis 1."""
        ...

    @abstractmethod
    def add(self, x: Array, y: Array) -> Array:
        """x + y, of one shape."""
        ...

    @abstractmethod
    def scale(self, x: Array, factor: float) -> Array:
        """factor · x."""
        ...

    @abstractmethod
    def synchronize(self, device: str) -> None:
        """Wait until all work on a device is done."""
        ...

    @abstractmethod
    def memory_in_use(self, device: str) -> int:
        """The number of bytes of all arrays on a device now."""
        ...

    # ---- operations and their gradients -------------------------------------------------------------------

    @abstractmethod
    def conv2d(self, x: Array, w: Array, b: Array, *, stride: int, padding: Padding) -> Array:
        """Convolution (cross-correlation) with zero padding that may be one-sided, as in 2012.

        y[n,k,p,q] = b[k] + Σ_{c,r,s} w[k,c,r,s] · x̄[n, c, p·stride + r, q·stride + s], where x̄ is x with
        zeros around it. x [N,C,H,W], w [K,C,R,S], b [K] -> y [N,K,P,Q], P = ⌊(H + above + below − R)/stride⌋ + 1.
        There are no groups: columns do that. Source: section 3.5 of the paper.
        """
        ...

    @abstractmethod
    def conv2d_backward(
        self, dy: Array, x: Array, w: Array, *, stride: int, padding: Padding, need_dx: bool
    ) -> tuple[Array | None, Array, Array]:
        """Gradients of `conv2d`: (dx or None, dw, db).

        dw[k,c,r,s] = Σ_{n,p,q} dy[n,k,p,q] · x̄[n,c,p·stride+r,q·stride+s];  db[k] = Σ_{n,p,q} dy[n,k,p,q];
        dx̄[n,c,i,j] = Σ_{k,r,s: p·stride+r=i, q·stride+s=j} dy[n,k,p,q] · w[k,c,r,s], cut to the inside.
        With `need_dx` false (the first layer) dx is None.
        """
        ...

    @abstractmethod
    def linear(self, x: Array, w: Array, b: Array) -> Array:
        """y[n,k] = b[k] + Σ_d w[k,d] · x[n,d]. x [N,D], w [K,D], b [K] -> y [N,K]."""
        ...

    @abstractmethod
    def linear_backward(self, dy: Array, x: Array, w: Array, *, need_dx: bool) -> tuple[Array | None, Array, Array]:
        """Gradients of `linear`: dx = dy w (or None), dw = dyᵀ x, db = Σ_n dy[n]."""
        ...

    @abstractmethod
    def relu(self, x: Array) -> Array:
        """y = max(x, 0), any shape; NaN stays NaN. Source: section 3.1."""
        ...

    @abstractmethod
    def relu_backward(self, dy: Array, y: Array) -> Array:
        """dx = dy where y > 0, else 0."""
        ...

    @abstractmethod
    def tanh(self, x: Array) -> Array:
        """y = tanh x, any shape. Source: section 3.1 (which compares ReLU with it)."""
        ...

    @abstractmethod
    def tanh_backward(self, dy: Array, y: Array) -> Array:
        """dx = dy · (1 − y²)."""
        ...

    @abstractmethod
    def max_pool2d(self, x: Array, *, size: int, stride: int, ceil: bool) -> Array:
        """y[n,c,p,q] = the largest x[n,c,i,j] with p·stride ≤ i < p·stride + size, and j likewise.

        x [N,C,H,W] -> y [N,C,P,Q], P = ⌊(H − size)/stride⌋ + 1; with `ceil`, ⌈…⌉ + 1: the last windows may
        extend over the edge but must begin inside. NaN wins. Source: section 3.4.
        """
        ...

    @abstractmethod
    def max_pool2d_backward(
        self, dy: Array, x: Array, y: Array, *, size: int, stride: int, ceil: bool, ties: str
    ) -> Array:
        """Gradient of `max_pool2d`: each window passes its dy to its maximum; overlapping windows add up.

        If several positions of a window hold the maximum, `ties` = ``"first"`` gives it to the first in row
        order, ``"all"`` gives the whole dy to each of them (as cuda-convnet did).
        """
        ...

    @abstractmethod
    def local_response_norm(self, x: Array, *, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
        """y = x · scale^(−β), scale[n,c,i,j] = k + α · Σ_{c'} x[n,c',i,j]², over neighbouring channels.

        The window is c' = c − ⌊size/2⌋ … c − ⌊size/2⌋ + size − 1, clipped at the first and last channel. α is applied
        as given (the layer divides it by `size` if the recipe says so). x [N,C,H,W] -> (y, scale) of x's shape.
        Source: section 3.3.
        """
        ...

    @abstractmethod
    def local_response_norm_backward(
        self, dy: Array, x: Array, y: Array, scale: Array, *, size: int, alpha: float, beta: float
    ) -> Array:
        """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c']."""
        ...

    @abstractmethod
    def spatial_response_norm(self, x: Array, *, size: int, k: float, alpha: float, beta: float) -> tuple[Array, Array]:
        """Like `local_response_norm`, with a size × size window within the same channel's map, clipped at the edges.

        The window of row i is i − ⌊size/2⌋ … i − ⌊size/2⌋ + size − 1, of a column likewise. The paper does not
        mention it; the 2012 program's second layer has it (cuda-convnet's `rnorm`).
        """
        ...

    @abstractmethod
    def spatial_response_norm_backward(
        self, dy: Array, x: Array, y: Array, scale: Array, *, size: int, alpha: float, beta: float
    ) -> Array:
        """Like `local_response_norm_backward`, over the windows of `spatial_response_norm`."""
        ...

    @abstractmethod
    def dropout(self, x: Array, *, rate: float, factor: float, stream: Stream) -> tuple[Array, Array]:
        """y = factor · x · mask, mask[n,e] = 1 if the Philox word of (sample n, element e) ≥ ⌊rate · 2³²⌋, else 0.

        The word is ``minialex.philox.words(stream, N, E)[n, e]``, E = the elements of one sample in row order, so
        that all backends draw the same mask. x [N,…] -> (y, mask uint8 of x's shape). 0 ≤ rate < 1. Where the
        mask is 0, y is 0 whatever x is. Source: section 4.2, which scales at test time (factor 1 in training).
        """
        ...

    @abstractmethod
    def dropout_backward(self, dy: Array, mask: Array, *, factor: float) -> Array:
        """dx = factor · dy where mask = 1, else 0."""
        ...

    @abstractmethod
    def softmax_cross_entropy(self, logits: Array, labels: Array) -> tuple[Array, Array]:
        """loss = −(1/N) Σ_n log probs[n, labels[n]], probs[n] = softmax of logits[n], computed without overflow.

        logits [N,K], labels int64 [N] in [0, K) -> (loss of shape (), probs [N,K]). A label out of range makes
        the loss NaN (an operation cannot look at its values first); training checks the labels beforehand.
        """
        ...

    @abstractmethod
    def softmax_cross_entropy_backward(self, probs: Array, labels: Array) -> Array:
        """dlogits[n,k] = (probs[n,k] − [k = labels[n]]) / N."""
        ...

    @abstractmethod
    def scale_by_trust_ratio(self, w: Array, dw: Array, *, trust_coefficient: float, weight_decay: float) -> Array:
        """λ·(dw + decay·w) with λ = η·‖w‖ / (‖dw‖ + decay·‖w‖), the norms over all elements; η: `trust_coefficient`.

        Where ‖w‖ or ‖dw‖ is 0, λ is 1. `sgd_update` with this in the place of dw, and no decay of its own, is
        layer-wise adaptive rate scaling. Source: You, Gitman and Ginsburg 2017, section 4.
        """
        ...

    @abstractmethod
    def sgd_update(
        self,
        w: Array,
        v: Array,
        dw: Array,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> Array:
        """The paper's update, in one pass and in place: v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v.

        An element whose new w or v would not be finite keeps its old w and v. Returns how many there were, an
        int64 array of shape (), so that training notices at no extra pass and the weights before the step are
        still there to look into. Source: section 5.
        """
        ...

    @abstractmethod
    def augment(
        self,
        images: Array,
        mean: Array,
        shift: Array,
        top: Array,
        left: Array,
        flip: Array,
        *,
        crop: int,
        factor: float,
        mean_follows: bool,
    ) -> Array:
        """Crop, reflect, shift the colour and subtract the mean: uint8 in, floating point out.

        y[n,c,i,j] = factor · (images[n, c, top[n]+i, left[n]+j'] + shift[n,c] − mean[c, …]), with j' = crop−1−j
        where flip[n] is 1, else j. The mean is that of the same pixel, mean[c, top[n]+i, left[n]+j'], if
        `mean_follows` (mean [C,H,W]), else mean[c,i,j] wherever the crop and reflection (mean [C,crop,crop]).
        images uint8 [N,C,H,W], shift [N,C], top and left int32 [N], flip uint8 [N] -> y [N,C,crop,crop] of the
        dtype of mean. Crops lie inside the image (the caller guarantees it). Source: section 4.1.
        """
        ...

    # ---- hooks: optional for a backend -----------------------------------------------------------------------

    def apply(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Run a user-defined operation (see `minialex.backend.operations`) on this backend's arrays.

        ``function.compute(xp, self.name, *args, **kwargs)`` does it, given plain arrays of the namespace `xp` in the
        place of the backend's own; devices and the rule are checked as for the protocol's operations. A backend
        without this method runs only the protocol's operations.
        """
        ...

    def compile_step(self, program: Program, bindings: Mapping[ArrayName, Array]) -> CompiledStep | None:
        """A faster way to run a recorded program (a training or inference step); None to run its operations one by one.

        `program` is the step as a sequence of operations (see `minialex.backend.program`), `bindings` the
        arrays that outlive a step (weights, momentum, mean). The result must give the same numbers
        as the operations, within the bounds of `minialex.conformance`.
        """
        ...


MOVERS = (
    "to_device", "to_numpy", "copy_to", "zeros", "reshape", "concat", "split", "add", "scale",
    "synchronize", "memory_in_use",
)  # fmt: skip

OPERATIONS = (
    "conv2d", "conv2d_backward", "linear", "linear_backward", "relu", "relu_backward", "tanh", "tanh_backward",
    "max_pool2d", "max_pool2d_backward", "local_response_norm", "local_response_norm_backward",
    "spatial_response_norm", "spatial_response_norm_backward", "dropout", "dropout_backward",
    "softmax_cross_entropy", "softmax_cross_entropy_backward", "scale_by_trust_ratio", "sgd_update", "augment",
)  # fmt: skip
"""Names of the operations with numbers in them; `MOVERS` are the rest of the protocol."""

"""A recorded step made ready for fused kernels: fewer, larger operations on tensors that may be slices of others.

All devices of this backend are one memory, so copies between them vanish, and what is fed to each device
(``NAME@DEVICE``) is one array. What columns do alike becomes one: the same concatenation, convolutions that read the
same input, sums of their input's gradients. A column's channels are a slice of all channels, so `concat` and `split`
cost nothing. Then neighbours are fused: a ReLU into what is before it, both ways; normalisation and pooling; the
update of a fully connected layer's weights into the making of their gradient.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minialex.backend.program import ArrayName, Call, Program, Value
from minialex.backend.program import values as values_of


class Unsupported(Exception):
    """A program that is not compiled: its layers are walked."""


@dataclass(eq=False)
class Tensor:
    """An array of the step. Images lie N H W C: rows of C channels, one a place; matrices N rows of features.

    Attributes:
        shape, dtype: as in the program
        source: ``""`` for one that is computed, else ``"fed"`` or ``"bound"``, with its `name`
        parent, offset: the tensor that this one is a slice of, and its first channel there
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    source: str = ""
    name: ArrayName = ArrayName()
    parent: Tensor | None = None
    offset: int = 0

    @property
    def root(self) -> Tensor:
        """The tensor that has the memory."""
        return self if self.parent is None else self.parent.root

    @property
    def first(self) -> int:
        """The first channel within the root."""
        return 0 if self.parent is None else self.offset + self.parent.first

    @property
    def width(self) -> int:
        """Channels, or features, of a row."""
        return self.shape[1] if len(self.shape) > 1 else 1

    @property
    def rows(self) -> int:
        """Rows: places of all images, or images."""
        return math.prod(self.shape) // max(self.width, 1)

    @property
    def free(self) -> bool:
        """Whether it may still become a slice of another."""
        return not self.source and self.parent is None


@dataclass(eq=False)
class Node:
    """One operation of the step, or several in one.

    `inputs` and `outputs` are by role, each a list: there is one entry for every column that is served.
    """

    kind: str
    inputs: dict[str, list[Tensor]]
    outputs: dict[str, list[Tensor]]
    options: dict[str, Any]
    where: tuple[str, int, str]
    flags: dict[str, Any] = field(default_factory=dict)

    def read(self) -> Iterable[Tensor]:
        """All tensors that it reads."""
        return (tensor for group in self.inputs.values() for tensor in group)

    def written(self) -> Iterable[Tensor]:
        """All tensors that it writes."""
        return (tensor for group in self.outputs.values() for tensor in group)


@dataclass
class Graph:
    """Nodes in an order that may be followed one by one, and the outputs by name with their devices."""

    nodes: list[Node]
    outputs: dict[ArrayName, tuple[Tensor, str]]

    def users(self, tensor: Tensor) -> list[Node]:
        """Nodes that read exactly this tensor; the step's caller is one, None, if it is an output."""
        found: list[Any] = [node for node in self.nodes if any(read is tensor for read in node.read())]
        return found + [None for output, _ in self.outputs.values() if output is tensor]

    def only_user(self, tensor: Tensor, kind: str) -> Node | None:
        """The node of that kind that alone reads the tensor, if it is so."""
        users = self.users(tensor)
        return users[0] if len(users) == 1 and users[0] is not None and users[0].kind == kind else None


ROLES = {
    "conv2d": (("x", "w", "b"), ("y",)),
    "conv2d_backward": (("dy", "x", "w"), ("dx", "dw", "db")),
    "linear": (("x", "w", "b"), ("y",)),
    "linear_backward": (("dy", "x", "w"), ("dx", "dw", "db")),
    "relu": (("x",), ("y",)),
    "relu_backward": (("dy", "y"), ("dx",)),
    "tanh": (("x",), ("y",)),
    "tanh_backward": (("dy", "y"), ("dx",)),
    "max_pool2d": (("x",), ("y",)),
    "max_pool2d_backward": (("dy", "x", "y"), ("dx",)),
    "local_response_norm": (("x",), ("y", "scale")),
    "local_response_norm_backward": (("dy", "x", "y", "scale"), ("dx",)),
    "spatial_response_norm": (("x",), ("y", "scale")),
    "spatial_response_norm_backward": (("dy", "x", "y", "scale"), ("dx",)),
    "dropout": (("x",), ("y", "mask")),
    "dropout_backward": (("dy", "mask"), ("dx",)),
    "softmax_cross_entropy": (("logits", "labels"), ("loss", "probs")),
    "softmax_cross_entropy_backward": (("probs", "labels"), ("dlogits",)),
    "sgd_update": (("w", "v", "dw"), ("kept",)),
    "augment": (("images", "mean", "shift", "top", "left", "flip"), ("y",)),
    "add": (("x", "y"), ("z",)),
    "scale": (("x", "factor"), ("y",)),
    "reshape": (("x", "shape"), ("y",)),
    "zeros": (("shape", "dtype", "device"), ("y",)),
}
"""Roles of each operation's arguments and results."""

ONCE = ("concat", "split", "augment", "zeros", "local_response_norm", "spatial_response_norm", "reshape")
"""Operations that columns ask for alike: computed once."""


def build(program: Program) -> Graph:
    """The graph of a program.

    Raises:
        Unsupported: If the program has something that the kernels of compiled steps do not do.
    """
    graph = _translate(program)
    _sum_gradients(graph)
    _join_forward(graph)
    _fuse_forward(graph)
    _fuse_backward(graph)
    _place(graph)
    return graph


def _translate(program: Program) -> Graph:
    known: dict[Value, Tensor] = {}
    for source, given in (("bound", program.bound), ("fed", program.fed)):
        shared: dict[ArrayName, Tensor] = {}
        for name, value in given.items():
            base = name._replace(device="")
            known[value] = shared.setdefault(base, Tensor(value.shape, value.dtype, source, name))
    seen: dict[Any, list[Tensor | None]] = {}
    nodes: list[Node] = []
    for call in program.calls:
        arguments = [known[a] if isinstance(a, Value) else a for a in call.args]
        if call.operation == "copy_to":
            known[_result(call)] = arguments[0]
            continue
        key = None
        if call.operation in ONCE:
            key = (call.operation, _key(call.args, known), _key(tuple(sorted(call.kwargs.items())), known))
            if call.operation == "zeros":
                key = key[0], _key(call.args[:2], known), key[2]
        if key is None or key not in seen:
            made = _node(call, arguments, known, nodes)
            if key is not None:
                seen[key] = made
        else:
            made = seen[key]
        known.update((value, t) for value, t in zip(call.results, made, strict=True) if value is not None and t)
    outputs = {name: (known[value], value.device) for name, value in program.outputs.items()}
    return Graph(nodes, outputs)


def _result(call: Call) -> Value:
    value = call.results[0]
    assert value is not None
    return value


def _key(argument: Any, known: dict[Value, Tensor]) -> Any:
    if isinstance(argument, Value):
        return id(known[argument])
    if isinstance(argument, list | tuple):
        return tuple(_key(item, known) for item in argument)
    return argument


def _node(call: Call, arguments: list[Any], known: dict[Value, Tensor], nodes: list[Node]) -> list[Tensor | None]:
    """The results of a call, and its node unless it needs none."""
    where = call.layer, call.column, call.phase
    made: list[Tensor | None] = [None if value is None else Tensor(value.shape, value.dtype) for value in call.results]
    if call.operation == "concat":
        parts = [known[value] for value in values_of(call.args)]
        if len(parts) == 1:
            return [parts[0]]
        assert made[0] is not None
        nodes.append(Node("concat", {"x": parts}, {"y": [made[0]]}, {}, where))
        return made
    if call.operation == "split":
        offset = 0
        for piece in made:
            assert piece is not None
            piece.parent, piece.offset = arguments[0], offset
            offset += piece.width
        return made
    if call.operation not in ROLES:
        raise Unsupported(call.operation)
    if call.operation == "reshape":
        assert made[0] is not None
        if made[0].shape == arguments[0].shape:
            return [arguments[0]]
        if {len(made[0].shape), len(arguments[0].shape)} != {2, 4}:
            raise Unsupported(f"reshape {arguments[0].shape} to {made[0].shape}")
    takes, gives = ROLES[call.operation]
    options = {**call.kwargs}
    inputs: dict[str, list[Tensor]] = {}
    for name, argument in [*zip(takes, arguments, strict=False), *call.kwargs.items()]:
        if isinstance(argument, Tensor):
            inputs[name] = [argument]
        elif isinstance(argument, Value):
            inputs[name] = [known[argument]]
            options.pop(name, None)
        else:
            options[name] = argument
    outputs = {name: [t] for name, t in zip(gives, made, strict=True) if t is not None}
    nodes.append(Node(call.operation, inputs, outputs, options, where))
    return made


def _alike(nodes: list[Node], kind: str, role: str) -> list[list[Node]]:
    """Nodes of a kind by what they read in a role and by their options, in order."""
    groups: dict[Any, list[Node]] = {}
    for node in nodes:
        if node.kind == kind:
            shape = node.inputs["w"][0].shape[2:]
            key = id(node.inputs[role][0]), shape, tuple(sorted(node.options.items()))
            groups.setdefault(key, []).append(node)
    return list(groups.values())


def _sum_gradients(graph: Graph) -> None:
    """Gradients of one input, from all that read it: one node whose dx is the sum."""
    for kind in ("conv2d_backward", "linear_backward"):
        for group in _alike(graph.nodes, kind, "x"):
            if len(group) > 1 and (not group[0].options["need_dx"] or _take_sum(graph, group)):
                joined = Node(
                    kind,
                    {"x": group[0].inputs["x"], **{r: [n.inputs[r][0] for n in group] for r in ("dy", "w")}},
                    {
                        "dx": group[0].outputs.get("dx", []),
                        **{r: [n.outputs[r][0] for n in group] for r in ("dw", "db")},
                    },
                    group[0].options,
                    group[0].where,
                )
                graph.nodes[graph.nodes.index(group[-1])] = joined
                for node in group[:-1]:
                    graph.nodes.remove(node)


def _take_sum(graph: Graph, group: list[Node]) -> bool:
    """If the gradients dx of a group are only ever added up, let the first stand for the sum of all."""
    gradients = [node.outputs["dx"][0] for node in group]
    if any(graph.users(dx) for dx in gradients):
        return _take_whole_sum(graph, gradients)
    pieces = [[t for t in _all_tensors(graph) if t.parent is dx] for dx in gradients]
    offsets = sorted({piece.offset for piece in pieces[0]})
    chains: list[tuple[list[Node], Tensor, Tensor]] = []
    for offset in offsets:
        terms = [next((t for t in of if t.offset == offset), None) for of in pieces]
        if any(t is None for t in terms):
            return False
        chain = _chain(graph, [t for t in terms if t is not None])
        if chain is None:
            return False
        assert terms[0] is not None
        chains.append((*chain, terms[0]))
    for adds, total, first in chains:
        total.parent, total.offset = first.parent, first.offset
        for node in adds:
            graph.nodes.remove(node)
    return True


def _take_whole_sum(graph: Graph, gradients: list[Tensor]) -> bool:
    chain = _chain(graph, gradients)
    if chain is None:
        return False
    adds, total = chain
    for node in adds:
        graph.nodes.remove(node)
    for node in graph.nodes:
        for group in node.inputs.values():
            group[:] = [gradients[0] if t is total else t for t in group]
    for tensor in _all_tensors(graph):
        if tensor.parent is total:
            tensor.parent = gradients[0]
    graph.outputs = {n: (gradients[0] if t is total else t, d) for n, (t, d) in graph.outputs.items()}
    return True


def _chain(graph: Graph, terms: list[Tensor]) -> tuple[list[Node], Tensor] | None:
    """The nodes that add the terms one after another, and the sum; None if that is not all that is done to them."""
    total = terms[0]
    adds = []
    for term in terms[1:]:
        node = graph.only_user(total, "add")
        if node is None or graph.only_user(term, "add") is not node:
            return None
        if node.inputs["x"][0] is not total or node.inputs["y"][0] is not term:
            return None
        adds.append(node)
        total = node.outputs["z"][0]
    return adds, total


def _all_tensors(graph: Graph) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for node in graph.nodes:
        for tensor in [*node.read(), *node.written()]:
            found[id(tensor)] = tensor
    for tensor, _ in graph.outputs.values():
        found[id(tensor)] = tensor
    return list(found.values())


def _join(parts: list[Tensor]) -> Tensor:
    """A tensor of which these are the slices, side by side."""
    shape = parts[0].shape
    whole = Tensor((shape[0], sum(part.width for part in parts), *shape[2:]), parts[0].dtype)
    offset = 0
    for part in parts:
        part.parent, part.offset = whole, offset
        offset += part.width
    return whole


def _join_forward(graph: Graph) -> None:
    """Convolutions that read one input: one node, whose outputs are slices of one tensor."""
    for group in _alike(graph.nodes, "conv2d", "x"):
        if len(group) == 1:
            continue
        _join([node.outputs["y"][0] for node in group])
        joined = Node(
            "conv2d",
            {"x": group[0].inputs["x"], **{r: [n.inputs[r][0] for n in group] for r in ("w", "b")}},
            {"y": [n.outputs["y"][0] for n in group]},
            group[0].options,
            group[0].where,
        )
        graph.nodes[graph.nodes.index(group[0])] = joined
        for node in group[1:]:
            graph.nodes.remove(node)


def _fuse_forward(graph: Graph) -> None:
    for node in list(graph.nodes):
        if node.kind in ("conv2d", "linear"):
            neurons = [graph.only_user(y, "relu") for y in node.outputs["y"]]
            if all(neurons):
                node.flags["relu"] = True
                for i, neuron in enumerate(neurons):
                    assert neuron is not None
                    y, rectified = node.outputs["y"][i], neuron.outputs["y"][0]
                    rectified.parent, rectified.offset = y.parent, y.offset
                    node.outputs["y"][i] = rectified
                    graph.nodes.remove(neuron)
        if node.kind == "local_response_norm":
            users = graph.users(node.outputs["scale"][0])
            if any(user is None or user.kind != "local_response_norm_backward" for user in users):
                raise Unsupported("a scale that is read")
            del node.outputs["scale"]  # computed anew
            _fuse_pool(graph, node)
    for node in graph.nodes:
        if node.kind == "max_pool2d":
            _keep_winner(graph, node)


def _fuse_pool(graph: Graph, norm: Node) -> None:
    y = norm.outputs["y"][0]
    pool = None
    for user in graph.users(y):
        if user is not None and user.kind == "max_pool2d" and pool is None:
            pool = user
        elif user is None or not (
            (user.kind == "local_response_norm_backward" and user.inputs["dy"][0] is not y)
            or (
                user.kind == "max_pool2d_backward" and user.options["ties"] == "first" and user.inputs["dy"][0] is not y
            )
        ):
            return
    if pool is None:
        return
    pool.kind = "normalised_pool"
    pool.where = norm.where
    pool.inputs = norm.inputs
    pool.flags = {"norm": norm.options}
    graph.nodes.remove(norm)
    _keep_winner(graph, pool)


def _keep_winner(graph: Graph, pool: Node) -> None:
    """What a backward pass with ties = "first" reads instead of x and y: which place of each window won."""
    y = pool.outputs["y"][0]
    for user in graph.users(y):
        if user is None or user.kind != "max_pool2d_backward" or user.inputs["y"][0] is not y:
            continue
        if user.options["ties"] == "first":
            winner = pool.outputs.setdefault("winner", [Tensor(y.shape, np.dtype(np.uint8))])
            user.inputs = {"dy": user.inputs["dy"], "winner": winner}


def _fuse_backward(graph: Graph) -> None:
    for node in list(graph.nodes):
        if node not in graph.nodes:
            continue
        if node.kind == "local_response_norm_backward":
            node.inputs = {"dy": node.inputs["dy"], "x": node.inputs["x"]}
            node.flags["k"] = _norm_constant(graph, node)
        if node.kind == "max_pool2d_backward" and "winner" in node.inputs:
            norm = graph.only_user(node.outputs["dx"][0], "local_response_norm_backward")
            if norm is not None and norm.inputs["dy"][0] is node.outputs["dx"][0]:
                norm.kind = "normalised_pool_backward"
                norm.where = node.where
                norm.flags = {"k": _norm_constant(graph, norm), "pool": node.options}
                norm.inputs = {"dy": node.inputs["dy"], "winner": node.inputs["winner"], "x": norm.inputs["x"]}
                graph.nodes.remove(node)
    for node in list(graph.nodes):
        if node.kind in (
            "max_pool2d_backward", "normalised_pool_backward", "local_response_norm_backward", "conv2d_backward",
            "linear_backward",
        ) and node.outputs.get("dx"):  # fmt: skip
            _fuse_rectifier(graph, node)
        if node.kind == "linear_backward":
            _fuse_update(graph, node)


def _norm_constant(graph: Graph, backward: Node) -> float:
    """k of the normalisation whose gradient this is: it reads the same x."""
    for node in graph.nodes:
        options = node.flags["norm"] if node.kind == "normalised_pool" else node.options
        same = node.kind in ("normalised_pool", "local_response_norm") and node.inputs["x"] == backward.inputs["x"]
        if same and all(options[name] == backward.options[name] for name in ("size", "alpha", "beta")):
            return float(options["k"])
    raise Unsupported("the gradient of a normalisation that is not there")


def _fuse_rectifier(graph: Graph, node: Node) -> None:
    neuron = graph.only_user(node.outputs["dx"][0], "relu_backward")
    if neuron is None or neuron.inputs["dy"][0] is not node.outputs["dx"][0]:
        return
    like = neuron.inputs["y"][0]
    if node.kind in ("normalised_pool_backward", "local_response_norm_backward") and node.inputs["x"][0] is not like:
        return
    if node.kind == "max_pool2d_backward" and "x" in node.inputs and node.inputs["x"][0] is not like:
        return
    if node.kind in ("max_pool2d_backward", "conv2d_backward", "linear_backward"):
        node.inputs["like"] = [like]
    node.flags["relu"] = True
    node.outputs["dx"] = neuron.outputs["dx"]
    # what reads the gradient comes after the neuron; the gradient may be made where it was
    graph.nodes.remove(neuron)


def _fuse_update(graph: Graph, node: Node) -> None:
    updates = [graph.only_user(dw, "sgd_update") for dw in node.outputs["dw"]]
    for update, w in zip(updates, node.inputs["w"], strict=True):
        last_reader = [n for n in graph.nodes if n is not update and any(read is w for read in n.read())][-1]
        if update is None or update.inputs["w"][0] is not w or last_reader is not node:
            return
    node.inputs["v"] = [update.inputs["v"][0] for update in updates if update]
    node.outputs["kept"] = [update.outputs["kept"][0] for update in updates if update]
    node.flags["update"] = [update.options for update in updates if update]
    del node.outputs["dw"]
    for update in updates:
        if update:
            graph.nodes.remove(update)


def _place(graph: Graph) -> None:
    """Let parts of concatenations be slices; what cannot be one is copied."""
    for node in reversed(list(graph.nodes)):
        if node.kind == "conv2d_backward" and len(node.inputs["dy"]) > 1:
            _side_by_side(graph, node, node.inputs["dy"])
    for node in reversed(list(graph.nodes)):
        if node.kind != "concat":
            continue
        whole, offset = node.outputs["y"][0], 0
        left: list[tuple[Tensor, int]] = []
        for part in node.inputs["x"]:
            if part.free and not _overlaps(part, whole):
                part.parent, part.offset = whole, offset
            else:
                left.append((part, offset))
            offset += part.width
        place = graph.nodes.index(node)
        graph.nodes[place : place + 1] = [
            Node(
                "copy", {"x": [part]}, {"y": [Tensor(part.shape, part.dtype, parent=whole, offset=at)]}, {}, node.where
            )
            for part, at in left
        ]


def _overlaps(part: Tensor, whole: Tensor) -> bool:
    return whole.root is part


def _side_by_side(graph: Graph, node: Node, parts: list[Tensor]) -> None:
    """Make tensors slices of one, side by side; copies where they are slices of others."""
    whole = _adjacent(parts)
    if whole:
        return
    if len({id(part) for part in parts}) == len(parts) and all(part.free for part in parts):
        _join(parts)
        return
    copies = [Tensor(part.shape, part.dtype) for part in parts]
    _join(copies)
    place = graph.nodes.index(node)
    graph.nodes[place:place] = [
        Node("copy", {"x": [part]}, {"y": [copy]}, {}, node.where) for part, copy in zip(parts, copies, strict=True)
    ]
    parts[:] = copies


def _adjacent(parts: list[Tensor]) -> bool:
    place = parts[0].first
    for part in parts:
        if part.root is not parts[0].root or part.first != place:
            return False
        place += part.width
    return True

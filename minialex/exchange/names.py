"""Removes prefixes and wrappers that other programs add to the names of tensors.

A model inside another one (``model.`` in Lightning) prefixes all of its tensors' names; wrappers (several devices, a
compiled module) insert theirs anywhere: PyTorch's own example of AlexNet on ImageNet saves
``features.module.0.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that come from how a layer was run: DataParallel, torch.compile, and sharding."""


def bare(
    tensors: Mapping[str, NDArray[Any]], known: Callable[[Mapping[str, NDArray[Any]]], bool]
) -> tuple[dict[str, NDArray[Any]], str]:
    """Tensors by their names without wrappers and without a common prefix.

    Args:
        tensors: the tensors by the file's names
        known: whether names are those of a known network; once they are, nothing more is removed

    Returns:
        The tensors, and a text that names what was removed, ``"_orig_mod." and "model."``, or an empty one. They are
        unchanged if two of them would get the same name.
    """
    parts = {name: [part for part in name.split(".")[:-1] if part not in WRAPPERS] for name in tensors}
    gone = [word for word in WRAPPERS if any(word in name.split(".")[:-1] for name in tensors)]

    def named() -> dict[str, NDArray[Any]]:
        return {".".join([*parts[name], name.rsplit(".", 1)[-1]]): array for name, array in tensors.items()}

    while not known(named()) and tensors and len({tuple(part[:1]) for part in parts.values()}) == 1:
        first = next(iter(parts.values()))[:1]
        if not first:
            break
        gone += first
        parts = {name: part[1:] for name, part in parts.items()}
    renamed = named()
    if len(renamed) < len(tensors):
        return dict(tensors), ""
    return renamed, " and ".join(f"'{word}.'" for word in gone)

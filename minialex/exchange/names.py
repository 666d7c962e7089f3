"""Removes what other programs put before and into the names of tensors.

A model inside another (``model.``, as Lightning has it) puts its own name before all of its tensors' names; wrappers
(several devices, a compiled module) put theirs anywhere: ``features.module.0.weight`` is what PyTorch's own example of
AlexNet on ImageNet saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that say how a layer was run: DataParallel, torch.compile, and sharding."""


def bare(
    tensors: Mapping[str, NDArray[Any]], known: Callable[[Mapping[str, NDArray[Any]]], bool]
) -> tuple[dict[str, NDArray[Any]], str]:
    """Tensors by their names without wrappers, and without what all names begin with.

    Args:
        tensors: by the names that the file has
        known: whether names are those of a network already; from then on nothing more is removed

    Returns:
        The tensors, and in words what was removed, ``"_orig_mod." and "model."``, or nothing. They are as given where
        two of them would get one name.
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

"""Tensors as people have them, brought to the names and shapes of a layout's network.

Files come with names that a library used before, with the prefix of a wrapper before every name,
with positions for images of another size, and with a head for other classes (fine-tuning).
"""

import math
import re
from collections.abc import Mapping
from typing import Literal

import jax
import numpy as np

from resnet_jax import layouts, trained, weights
from resnet_jax.keys import Config
from resnet_jax.weights import Slot, Tensors

# keep: the file's classifier is used. fit: it is used if its shapes fit, and otherwise a classifier
# is drawn. new: a classifier is drawn.
Head = Literal["keep", "fit", "new"]


def adapt(
    tensors: Tensors, layout: str, config: Config, head: Head = "keep"
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the tensors by today's names and in the network's shapes, and what was changed.

    Tensors that still do not fit are left as they are; `weights.from_tensors` refuses them.
    Raises: ValueError for a network that the layout lacks, and for a file with several networks.
    """
    slots = weights.slots(layout, config)
    tensors, notes = dict(tensors), []
    for pattern, today in layouts.find(layout, config).old:
        tensors = {re.sub(pattern, today, name): tensor for name, tensor in tensors.items()}
    tensors, told = _without_prefix(tensors, slots, head)
    notes += told
    for name in (name for name, slot in slots.items() if slot.path[-1] == "positions"):
        if name in tensors and _is_of_another_grid(tensors[name].shape, slots[name].shape):
            notes.append(f"{name} {tensors[name].shape} was interpolated to {slots[name].shape}")
            tensors[name] = interpolated(tensors[name], config)
    replaced = _classifier(slots)
    fits = all(name in tensors and tensors[name].shape == slots[name].shape for name in replaced)
    if head == "new" or (head == "fit" and not fits):
        tensors, told = _without_old_head(tensors, slots, replaced)
        notes += told
        tensors |= _fresh(replaced, slots, config)
        outputs = slots[replaced[0]].shape[0]
        notes.append(f"{' and '.join(replaced)} are drawn anew, for {outputs} outputs")
    return tensors, notes


def _without_prefix(
    tensors: Tensors, slots: Mapping[str, Slot], head: Head
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the tensors of the network in a wrapper by the network's names, and what was changed.

    Wrappers put words before names, for example module. (DDP), _orig_mod. (torch.compile), model.
    (Lightning) or backbone. (detectors), and keep tensors of their own beside them. Without a
    network under any prefix the tensors stay as they are.
    Raises: ValueError if there is a network under each of several prefixes.
    """
    if any(name in slots for name in tensors):
        return dict(tensors), []
    needed = set(slots) - (set() if head == "keep" else set(_classifier(slots)))
    first = next(iter(slots))
    prefixes = [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]
    whole = [p for p in prefixes if all(f"{p}{name}" in tensors for name in needed)]
    if len(whole) > 1:
        raise ValueError(
            f"the file has a network under each of {' and '.join(whole)}; keep only one of them"
        )
    # If a few tensors of the network are missing, its names without the prefix tell which.
    most = [p for p in prefixes if 2 * sum(f"{p}{n}" in tensors for n in needed) > len(needed)]
    if not most:
        return dict(tensors), []
    prefix = (whole or most)[0]
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    if others := [name for name in tensors if not name.startswith(prefix)]:
        if not whole:
            return own | {name: tensors[name] for name in others}, []
        note = f"the prefix {prefix} was taken off; left out: {weights.shortened(others)}"
        return own, [note]
    return own, [f"the prefix {prefix} of all names was taken off"]


def _without_old_head(
    tensors: Tensors, slots: Mapping[str, Slot], replaced: list[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the tensors less those of an old head of another form, and what was left out.

    A tensor belongs to the old head if no other tensor of the network begins with its first word.
    """
    words = {name.partition(".")[0] for name in slots if name not in replaced}
    old = [n for n in tensors if n not in slots and n.partition(".")[0] not in words]
    kept = {name: tensor for name, tensor in tensors.items() if name not in old}
    return kept, [f"left out, as the old head's: {weights.shortened(old)}"] if old else []


def _is_of_another_grid(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Return whether these are a class token and a square grid of another number of patches.

    As many positions stay as they are, so that an import is the inverse of an export: a file does
    not tell 14 x 14 patches from 7 x 28.
    """
    if len(shape) != 3 or shape[::2] != wanted[::2] or shape[1] < 2 or shape == wanted:
        return False
    return math.isqrt(shape[1] - 1) ** 2 == shape[1] - 1


def interpolated(positions: np.ndarray, config: Config) -> np.ndarray:
    """Return a Vision Transformer's positions (1, 1 + n^2, c) for the config's image.

    The first position is the class token's and stays. The others are an n x n grid, which is
    resized to the grid of the config's patches by bicubic interpolation (a = -0.5, antialiased).
    Source: Dosovitskiy et al. 2020, arXiv:2010.11929, sec. 3.2, which does not say which 2D
    interpolation is meant: timm's is this one, torchvision's is bicubic without antialiasing
    between aligned corners, the authors' code is linear.
    """
    side, channels = math.isqrt(positions.shape[1] - 1), positions.shape[2]
    rows, columns = (pixels // config.model.patch for pixels in config.data.shape[:2])
    grid = positions[:, 1:].reshape(1, side, side, channels)
    resized = np.asarray(jax.image.resize(grid, (1, rows, columns, channels), "bicubic"))
    moved = resized.reshape(1, rows * columns, channels)
    return np.concatenate([positions[:, :1], moved], axis=1)


def _classifier(slots: Mapping[str, Slot]) -> list[str]:
    """Return the names of the last layer's tensors, the classifier's."""
    return [name for name, slot in slots.items() if slot.path[1:3] == ("head", "dense")]


def _fresh(names: list[str], slots: Mapping[str, Slot], config: Config) -> dict[str, np.ndarray]:
    """Return these tensors as a run of the config starts with them."""
    leaves = weights.leaves_of(trained.init(config, config.seed))
    ours = {name: np.asarray(leaves[slots[name].path]) for name in names}
    return {name: slots[name].form.to_library(leaf) for name, leaf in ours.items()}

"""Our variables as another library's tensors, and back, by the names of a layout.

In a Stack the first axis of every parameter is the layer, and a stage that changes its input's
shape has its first block outside of the Stack. Another library keeps every block's tensors under
names of their own. Between the two lies a flat naming that does not depend on the stacking:

    stage2_first/body/conv1/kernel             stage2.0.body.conv1  kernel
    stage2/layers/body/conv1/kernel [l, ...]   stage2.{l + 1}.body.conv1  kernel
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from resnet_jax import families
from resnet_jax.keys import Config
from resnet_jax.layouts import rows, stages, translate
from resnet_jax.models.layout import BY_AXES, Form, Row
from resnet_jax.models.stages import depth_of, ladder_stages, resnet_stages
from resnet_jax.tasks import TASKS

Tensors = Mapping[str, np.ndarray]


class Slot(NamedTuple):
    """The place of a library's tensor in our variables: the leaf at `path`, or its row `layer`.

    `shape` is the tensor's shape in the library.
    """

    path: tuple[str, ...]
    layer: int | None
    form: Form
    shape: tuple[int, ...]


def to_tensors(variables: Any, layout: str, config: Config) -> dict[str, np.ndarray]:
    """Return the variables of the config's network, by `layout`'s names and in its axes' order.

    Raises: ValueError for a network that the layout lacks.
    """
    leaves = leaves_of(variables)
    tensors = {}
    for name, slot in _slots(leaves, rows(layout, config)).items():
        leaf = np.asarray(leaves[slot.path])
        tensors[name] = slot.form.to_library(leaf if slot.layer is None else leaf[slot.layer])
    return tensors


def from_tensors(tensors: Tensors, layout: str, config: Config) -> Any:
    """Return the variables of the config's network that `layout`'s tensors stand for.

    Raises: ValueError for a network that the layout lacks, and for tensors that are missing, left
        over or of another shape, with their names and the config's value that would fit.
    """
    shapes, names = _shapes(config), rows(layout, config)
    leaves = leaves_of(shapes)
    slots = _slots(leaves, names)
    _refuse_misfits(tensors, {name: slot.shape for name, slot in slots.items()}, names, config)
    parts: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name, slot in slots.items():  # in the order of the layers
        parts.setdefault(slot.path, []).append(slot.form.from_library(tensors[name]))
    stacked = {slot.path for slot in slots.values() if slot.layer is not None}
    values = [np.stack(parts[p]) if p in stacked else parts[p][0] for p in leaves]
    return jax.tree.unflatten(jax.tree.structure(shapes), values)


def slots(layout: str, config: Config) -> dict[str, Slot]:
    """Return the places of `layout`'s tensors in the config's network, by the tensors' names.

    Raises: ValueError for a network that the layout lacks.
    """
    return _slots(leaves_of(_shapes(config)), rows(layout, config))


def _shapes(config: Config) -> Any:
    """Return the shapes of the parameters and of the batch statistics."""
    made = families.shapes(config)
    return {name: made[name] for name in ("params", "batch_stats") if name in made}


def leaves_of(variables: Any) -> dict[tuple[str, ...], Any]:
    """Return every leaf by its path: ('params', 'stage1', 'layers', 'body', 'conv1', 'kernel')."""
    leaves = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {tuple(str(key.key) for key in path): leaf for path, leaf in leaves}


def _slots(leaves: Mapping[tuple[str, ...], Any], names: Sequence[Row]) -> dict[str, Slot]:
    """Return the place of each of the library's tensors in our variables."""
    slots = {}
    for path, leaf in leaves.items():
        for module, layer in _modules(path, leaf.shape, leaves):
            name, form = translate(module, path[-1], names)
            shape = leaf.shape if layer is None else leaf.shape[1:]
            form = form or BY_AXES[len(shape)]
            tensor_shape = form.to_library(np.broadcast_to(np.float32(0), shape)).shape
            slots[name] = Slot(path, layer, form, tensor_shape)
    return slots


def _modules(path, shape, leaves) -> Iterator[tuple[str, int | None]]:
    """Yield the flat name of the module that owns a leaf; in a Stack for each layer."""
    _, part, *rest = path[:-1]
    if part.endswith("_first"):
        yield ".".join((part.removesuffix("_first"), "0", *rest)), None
    elif rest[:1] == ["layers"]:
        before = any(other[1] == f"{part}_first" for other in leaves)
        for layer in range(shape[0]):
            yield ".".join((part, str(layer + before), *rest[1:])), layer
    else:
        yield ".".join((part, *rest)), None


def _refuse_misfits(
    tensors: Tensors, wanted: Mapping[str, tuple[int, ...]], names: Sequence[Row], config: Config
) -> None:
    missing = [f"{n} {wanted[n]}" for n in wanted if n not in tensors]
    over = [f"{n} {tensors[n].shape}" for n in tensors if n not in wanted]
    shape = {n: tensors[n].shape for n in wanted if n in tensors and tensors[n].shape != wanted[n]}
    other = [f"{n} {shape[n]}, not {wanted[n]}" for n in shape]
    kinds = {"missing": missing, "left over": over, "of another shape": other}
    lines = [f"{len(some)} {kind}: {shortened(some)}" for kind, some in kinds.items() if some]
    if lines:
        raise ValueError(
            f"the tensors do not fit the config's network: {'; '.join(lines)}"
            + _remedy(tensors, wanted, names, config)
        )


def _remedy(tensors: Tensors, wanted, names: Sequence[Row], config: Config) -> str:
    """Return the value that would fit, if only the depth or the number of classes differs."""
    pairs = [(tensors[n].shape, s) for n, s in wanted.items() if n in tensors]
    misfits = [(theirs, ours) for theirs, ours in pairs if theirs != ours]
    lengths = stages(list(tensors), names)
    if lengths and lengths != stages(list(wanted), names) and not misfits:
        if config.model.family == "vit":
            return f"; the file's network has {lengths[0]} layers: choose depth={lengths[0]}"
        depth = depth_of(lengths, config.model.block)
        values = f"depth={depth}"
        if not _published(lengths, depth, config):
            values += f' and --config.model.stages="{lengths}"'
        return f"; the file's stages have {lengths} blocks: choose {values}"
    absent = [name for name in wanted if name not in tensors]
    heads = tuple(f"{row.library}." for row in names if row.ours == "head.dense")
    if absent and all(name.startswith(heads) for name in absent) and not misfits:
        return "; use --new_head to start the classifier anew"
    outputs = TASKS[config.task].example(config).num_outputs
    heads = {theirs[0] for theirs, ours in misfits if ours[0] == outputs}
    classes_alone = all(theirs[:1] + ours[1:] == theirs for theirs, ours in misfits)
    fits = len(pairs) == len(wanted) == len(tensors) and len(heads) == 1 and classes_alone
    if fits and "num_classes" in config.model:
        return f"; use --new_head, or --config.model.num_classes={heads.pop()}"
    return ""


def _published(lengths: tuple[int, ...], depth: int, config: Config) -> bool:
    """Return whether the depth alone means these stages."""
    try:
        image = min(config.data.shape[:2])
        if config.model.family == "ladder":
            return lengths == ladder_stages(depth, image)
        return lengths == resnet_stages(depth, config.model.block, image)
    except ValueError:
        return False


def shortened(names: Sequence[str], shown: int = 4) -> str:
    """Return the first of the names, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")

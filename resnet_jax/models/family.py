"""What a family of networks is: how it is built, its keys and switches, and its presets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn

from resnet_jax.keys import Config, Part, Switch
from resnet_jax.models.layout import Layout
from resnet_jax.models.merges import MERGES
from resnet_jax.models.norm import NORMS
from resnet_jax.models.residual import Remat
from resnet_jax.models.skips import Projection, ZeroPad, identity

# Images with fewer pixels on their shorter side take a network's small form, CIFAR's.
SMALL = 64
# More stages halve the sides of no image: a side has fewer than 2^32 pixels.
MOST_STAGES = 32


class Layers(NamedTuple):
    """What a family's builder needs beside its own keys: constructors with their values bound.

    `conv` and `norm` make layers. `merge(size, conv)` makes the merge, whose gates on images are
    `size` x `size` convolutions made by `conv`. `per_layer(blocks)` gives the merge's inputs that
    differ from block to block. `shape` is the shape of an example's input and `num_outputs` the
    size of the network's output.
    """

    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]
    merge: Callable[[int, Callable[..., nn.Module]], Callable]
    per_layer: Callable[[int], Mapping[str, tuple[float, ...]]]
    dtype: Any
    remat: Remat
    unroll: int
    shape: tuple[int, ...]
    num_outputs: int

    @property
    def loop(self) -> dict[str, Any]:
        """The keywords of a builder that has Stacks."""
        return {"remat": self.remat, "unroll": self.unroll}


def _no_preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, eq=False)
class Family(Part):
    """Networks that differ in depth and in the values of their config.

    `build(config, layers)` returns the network, a Chain. `preset(depth, block, shape)` returns the
    values that follow from the depth, the block that the argument names (or None) and the shape of
    an example; a value whose key the config lacks is left out. `depth` is the depth of an argument
    that names the family alone. `layouts` are the names that other libraries give to its weights.
    `plain`: the family was published without skip connections. `unrolled`: its program holds every
    layer, because its layers differ. `images`: its networks take images (h, w, c) and nothing else.
    """

    preset: Callable[[int, str | None, tuple[int, ...]], dict[str, Any]] = _no_preset
    depth: int = 1
    layouts: Sequence[Layout] = field(default_factory=tuple)
    plain: bool = False
    unrolled: bool = False
    images: bool = True


def _project(width: int, stride: int, changes: bool, conv: Any, norm: Any) -> Callable:
    return Projection(width, stride, conv, norm)


def _project_changes(width: int, stride: int, changes: bool, conv: Any, norm: Any) -> Callable:
    return Projection(width, stride, conv, norm) if changes else identity


def _pad(side: Any, average: bool = False) -> Callable:
    return lambda width, stride, changes, conv, norm: (
        ZeroPad(width, stride, side, average) if changes else identity
    )


# `build(width, stride, changes, conv, norm)` makes the skip of a block that gives `width` channels;
# `changes` says whether the block changes the shape. Source: He et al. 2015, sec. 3.3 and 4.1.
SKIPS: dict[str, Part] = {
    "none": Part("no skip connection: the plain twin", build=lambda *_: identity),
    "A": Part("identity; new channels are zeros behind the old ones", build=_pad("end")),
    "B": Part("identity; a projection if the block changes the shape", build=_project_changes),
    "C": Part("a projection in every block", build=_project),
    "A_split": Part("as A, with half of the zeros on each side", build=_pad("split")),
    "A_pool": Part("as A, with means over 2x2 pixels if the stride is 2", build=_pad("end", True)),
}


def switches(
    blocks: Mapping[str, Part],
    skips: Sequence[str] = tuple(SKIPS),
    merges: Sequence[str] = ("add",),
    norms: Sequence[str] = tuple(NORMS),
) -> dict[str, Switch]:
    """Return a family's choices; the first name of each is its default."""
    tables = {
        "block": ("model.block", blocks, tuple(blocks), "the shape and order of a block"),
        "skip": ("model.skip", SKIPS, skips, "what a block keeps of its input"),
        "merge": ("model.merge", MERGES, merges, "how skip and body meet"),
        "norm": ("norm.kind", NORMS, norms, "how activations are normalised"),
    }
    return {
        name: Switch(key, {option: parts[option] for option in options}, options[0], meaning)
        for name, (key, parts, options, meaning) in tables.items()
    }


def side(shape: Sequence[int]) -> int:
    """Return the pixels of an image's shorter side; a vector has one pixel."""
    return min(shape[:2]) if len(shape) == 3 else 1


def given_stages(config: Config, layers_per_block: int, extra: int) -> tuple[int, ...]:
    """Return model.stages, or () if the config leaves them to the depth.

    A network has `extra` weighted layers beside those of its blocks.
    Raises: ValueError if the stages do not add up to model.depth.
    """
    stages = tuple(config.model.stages)
    if len(stages) > MOST_STAGES:
        raise ValueError(f"model.stages holds {len(stages)} stages; at most {MOST_STAGES}")
    depth = layers_per_block * sum(stages) + extra
    if stages and depth != config.model.depth:
        raise ValueError(
            f"model.stages={stages} of {config.model.block} blocks has {depth} layers, not "
            f"depth={config.model.depth}; choose depth={depth}"
        )
    return stages


def check_is_image(config: Config, shape: Sequence[int]) -> None:
    """Raise a ValueError unless an example is an image (h, w, c)."""
    if len(shape) != 3:
        raise ValueError(
            f"data.shape={shape} must be (height, width, channels) for "
            f"family={config.model.family},block={config.model.block}; "
            "family=highway,block=dense takes any shape"
        )


def check_strides(shape: Sequence[int], stages: int, stem: str = "3x3") -> None:
    """Raise a ValueError if the image is too small for the strides of the stem and the stages."""
    strides = 2 ** (stages - 1) * (4 if stem == "7x7" else 1)
    if side(shape) < strides:
        raise ValueError(
            f"images of {shape[0]}x{shape[1]} are too small for {stages} stages behind a {stem} "
            f"stem, which need {strides} pixels on each side"
            + ("; use model.stem=3x3" if stem == "7x7" else "")
        )


def check_image(shape: Sequence[int], smallest: int, name: str) -> None:
    """Raise a ValueError if the image has fewer than `smallest` pixels on its shorter side."""
    if side(shape) < smallest:
        raise ValueError(
            f"images of {shape[0]}x{shape[1]} are too small for {name}, which needs {smallest} "
            "pixels on each side"
        )

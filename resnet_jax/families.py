"""The table of families, and the one way from a config to its network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import FrozenConfigDict

from resnet_jax.keys import Config
from resnet_jax.models import (
    alexnet,
    densenet,
    highway,
    ladder,
    lenet,
    lstm,
    resnet,
    resnext,
    vgg,
    vit,
    wide,
)
from resnet_jax.models.conv import Conv
from resnet_jax.models.family import Family, Layers, check_is_image
from resnet_jax.models.merges import MERGES
from resnet_jax.models.norm import NORMS, checking_norms
from resnet_jax.models.residual import Chain
from resnet_jax.tasks import TASKS

FAMILIES: dict[str, Family] = {
    "resnet": resnet.FAMILY,
    "ladder": ladder.FAMILY,
    "wide": wide.FAMILY,
    "resnext": resnext.FAMILY,
    "vgg": vgg.FAMILY,
    "vgg_bn": vgg.FAMILY_BN,
    "lenet": lenet.FAMILY,
    "alexnet": alexnet.FAMILY,
    "highway": highway.FAMILY,
    "densenet": densenet.FAMILY,
    "vit": vit.FAMILY,
    "lstm": lstm.FAMILY,
    "rnn": lstm.FAMILY_RNN,
}

# The most layers of any network (DEEPEST), of a network whose Stack holds a number for each layer
# (NUMBERED: flax needs long for tuples of that length), and of a network whose program holds each
# layer (WRITTEN_OUT: the depth of He et al. 2015's deepest network).
DEEPEST, NUMBERED, WRITTEN_OUT = 1_000_000, 20_000, 1202


def build(config: Config, axis: str | None = None) -> Chain:
    """Return the config's network. It is a value: nothing is computed yet.

    `axis` names the mesh axis whose devices share a batch, if there are several: groups of batch
    norm that span devices communicate over it. Nothing else in a network knows of devices.

    Raises: ValueError for a depth that does not exist, for an image that is too small and for an
        input that is no image, unless the family takes any shape.
    """
    most, network = deepest(config)
    if config.model.depth > most:
        raise ValueError(
            f"depth={config.model.depth} is more than {most}, the most layers of {network}"
        )
    family, bound = FAMILIES[config.model.family], layers(config, axis)
    if family.images:
        check_is_image(config, bound.shape)
    return family.build(config, bound)


def shapes(config: Config) -> Any:
    """Return the shapes and types of the network's variables; nothing is computed.

    A command asks for the same network several times, and the network is traced once: the result
    is shared and must not be changed.
    Raises: ValueError for a network that cannot be built, for a batch norm over one number, and for
        groups of a norm or of a convolution that do not divide the channels.
    """
    return _shapes(FrozenConfigDict(config), jax.config.read("jax_enable_x64"))


@functools.lru_cache
def _shapes(config: Any, x64: bool) -> Any:
    # With x64 the same network may have other types, so that its shapes are kept apart.
    # norm.group_size=-1 is a device's share of the batch: start.resolved makes it a number, and
    # asks again.
    group = config.norm.group_size if "group_size" in config.norm else 0
    examples = group if group > 0 else config.batch_size // config.accumulate
    image = jax.ShapeDtypeStruct((1, *TASKS[config.task].example(config).shape), jnp.float32)
    net = build(config)
    with checking_norms(examples):
        return jax.eval_shape(net.init, jax.random.key(0), image)


def layers(config: Config, axis: str | None = None) -> Layers:
    """Return the constructors of the network's layers, with the config's values bound."""
    example = TASKS[config.task].example(config)
    merge = MERGES[config.model.merge]
    bare = config.norm.kind == "none"
    fan = config.model.fan if "fan" in config.model else "auto"
    if fan == "auto":
        fan = "in" if bare else "out"
    conv = functools.partial(
        Conv,
        dtype=jnp.dtype(config.dtype),
        bias=bare,
        fan=fan,
        kernel_start=config.model.get("kernel_start", "he"),
        dirac=config.model.get("dirac", False),
        feedback=config.model.get("feedback", "weights"),
        kernels=config.kernels,
    )
    # A gate starts by He's rule, however the kernels of bodies start.
    gate = lambda conv: functools.partial(conv, kernel_start="he")
    remat = config.remat
    if remat == "auto":
        remat = "block" if jax.default_backend() == "cpu" else "none"
    return Layers(
        conv=conv,
        norm=NORMS[config.norm.kind].build(config, axis),
        merge=lambda size, conv: merge.build(config, gate(conv), size),
        per_layer=lambda blocks: merge.per_layer(config, blocks),
        dtype=jnp.dtype(config.dtype),
        remat=remat,
        unroll=config.unroll,
        shape=example.shape,
        num_outputs=example.num_outputs,
    )


def deepest(config: Any) -> tuple[int, str]:
    """Return the most layers that the config's network may have, and the kind of such networks."""
    if FAMILIES[config.model.family].unrolled:
        return WRITTEN_OUT, f"a {config.model.family}, whose program holds each layer"
    if config.unroll > WRITTEN_OUT:
        return WRITTEN_OUT, f"a program that holds each layer (unroll={config.unroll})"
    merge = config.model.merge
    if MERGES[merge].per_layer(config, 1):
        return NUMBERED, f"a network with a number for each layer (merge={merge})"
    return DEEPEST, "any network"

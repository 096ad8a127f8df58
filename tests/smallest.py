"""The smallest network of each family, and what a few training steps do to a network.

A family of the table FAMILIES needs no entry here: its smallest network is the first that it builds
from small images, few blocks and the values of SMALL.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import config as configs
from resnet_jax import families
from resnet_jax.keys import Config
from resnet_jax.models.family import SMALL as SMALL_IMAGES
from resnet_jax.models.residual import Chain, Stack
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.task import Batch
from resnet_jax.training import state, step
from resnet_jax.training.optimizer import optimizer
from tests.recipes import changed, recipe

# Values that make a network small, for the families that have the keys with larger values.
SMALL = {
    "model.num_classes": 3,
    "model.width": 4,
    "model.widen": 2,
    "model.cardinality": 2,
    "model.growth": 4,
    "model.heads": 2,
    "norm.groups": 2,
}
# Blocks in each stage, for the families that have the key model.stages.
STAGES = ((2, 1), (3,))
SIDES, DEPTHS = (8, 12, 16), range(1, 23)
# The weighted layers of a network, for the families whose depth counts something else. The depth of
# a small Wide ResNet counts two projections, that of a Vision Transformer its layers of four
# matrices each, without those of the patches and the classifier.
LAYERS = {"wide": lambda depth: depth - 2, "vit": lambda depth: 4 * depth + 2}
LAYERS |= dict.fromkeys(("lstm", "rnn"), lambda depth: 2 * depth + 1)


def smallest(
    family: str,
    argument: str = "",
    side: int = 0,
    channels: int = 1,
    check: bool = True,
    **changes: Any,
) -> Config:
    """Return the config of the family's smallest network, for images of `side` pixels or few.

    The network has a Stack of two layers or more if the family has such networks of few layers.
    Raises: AssertionError if the family has no small network; ValueError if `check` refuses it.
    """
    for size in (side,) if side else SIDES:
        config = _first(_candidates(family, argument, (size, size, channels), changes))
        if config is not None:
            if check:
                configs.check(config)
            return config
    raise AssertionError(
        f"family={family} has no network of up to {DEPTHS[-1]} layers for images of {SIDES[-1]} "
        "pixels; add the keys that make it small to SMALL in tests/smallest.py"
    )


def _first(candidates: Iterator[Config]) -> Config | None:
    """Return the first config whose network has a Stack of two layers, else the first that builds.

    Return None if none of them builds.
    """
    without_stack = None
    for config in candidates:
        net = _build(config)
        if net is not None and longest_stack(net) > 1:
            return config
        if net is not None and without_stack is None:
            without_stack = config
    return without_stack


def _candidates(family: str, argument: str, shape, changes) -> Iterator[Config]:
    """Yield small configs, with few blocks and layers first; some of them cannot be built."""
    config = recipe("digits", f"family={family},{argument}", data__shape=shape, **changes)
    flat, given = configs.flatten(config), {name.replace("__", ".") for name in changes}
    small = {k: v for k, v in SMALL.items() if k not in given and v < flat.get(k, v)}
    config = changed(config, {"remat": "none"} | small)
    for stages in STAGES if "model.stages" in flat.keys() - given else (None,):
        for depth in DEPTHS:
            yield altered(config, **_sizes(depth, stages))


def _sizes(depth: int, stages: tuple[int, ...] | None) -> dict[str, Any]:
    return {"model.depth": depth} | ({} if stages is None else {"model.stages": stages})


def _build(config: Config) -> Chain | None:
    """Return the config's network, or None if it does not exist."""
    try:
        return families.build(config)
    except ValueError:  # of another depth, or for larger images
        return None


def altered(config: Config, **values: Any) -> Config:
    """Return a locked copy with other values, even of the depth, and with the same preset."""
    config = config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    return config.lock()


def weighted_layers(config: Config) -> int:
    """Return the weighted layers that the config's depth stands for."""
    family, depth = config.model.family, config.model.depth
    if config.model.block == "dense" and family == "highway":
        return depth + 1  # 1505.00387, Fig. 1 leaves the classifier out
    large = min(config.data.shape[:2]) >= SMALL_IMAGES and family == "wide"
    return depth if large else LAYERS.get(family, lambda depth: depth)(depth)


def shapes(config: Config) -> tuple[Chain, Any, Any]:
    """Return the network and the shapes of its variables and of its output, without computing."""
    net = families.build(config)
    x = jax.ShapeDtypeStruct((1, *TASKS[config.task].example(config).shape), jnp.float32)
    output, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), x)
    return net, variables, output


def drawn(net: Any, x: Any) -> Any:
    """Return random variables for the network; nothing is compiled.

    Kernels have the variance of He's initialisation, scales and variances lie around 1, and all
    other numbers around 0, so that no norm is the identity and the outputs are of moderate size.
    """
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = getattr(path[-1], "key", "")
        if name == "kernel":
            numbers = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[-4:-1])), leaf.shape)
        else:
            numbers = (name in ("scale", "var")) + rng.uniform(-0.3, 0.3, leaf.shape)
        return jnp.asarray(numbers, leaf.dtype)

    return jax.tree.map_with_path(draw, jax.eval_shape(net.init, jax.random.key(0), x))


def parameters(variables: Any) -> int:
    """Return the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def without_merges(params: Any) -> Any:
    """Return the parameters of a network without those of its merges."""
    keep = lambda value: without_merges(value) if isinstance(value, dict) else value
    return {name: keep(value) for name, value in params.items() if name != "merge"}


def longest_stack(net: Chain) -> int:
    """Return the layers of the network's longest Stack, or 0 if it has none."""
    return max(
        (block.depth for block in net.blocks.values() if isinstance(block, Stack)), default=0
    )


def deeper(config: Config, layers: int = 30) -> Config:
    """Return the config of the same network with a Stack of at least `layers` layers.

    Raises: AssertionError if the family has none.
    """
    net, stages = families.build(config), tuple(config.model.get("stages", ()))
    longest = stages.index(max(stages)) if stages else None
    more = tuple(n + layers * (i == longest) for i, n in enumerate(stages)) or None
    for depth in range(config.model.depth + 1, 8 * layers):
        longer = _build(other := altered(config, **_sizes(depth, more)))
        same = longer is not None and list(longer.blocks) == list(net.blocks)
        if longer is not None and same and longest_stack(longer) >= layers:
            return other
    raise AssertionError(f"family={config.model.family} has no such network of {layers} layers")


def training(config: Config, examples: int = 6):
    """Return (create, step, batch): the first state, and a training step, as train.py makes them.

    The batch has `examples` random images; their pixels are divided by 255.
    """
    net, optim, task = families.build(config), optimizer(config), TASKS[config.task]
    shape = task.example(config).shape
    prepare = lambda key, batch: batch.replace(input=pixels(batch))
    one_step = functools.partial(
        step.train_step,
        axis=None,
        apply=net.apply,
        prepare=prepare,
        measure=task.measure,
        optimizer=optim,
    )
    images = np.random.default_rng(0).integers(0, 255, (examples, *shape))
    rows = jnp.arange(examples, dtype=jnp.int32)
    batch = Batch(jnp.asarray(images, jnp.uint8), rows % 3, rows, jnp.ones(examples, bool))
    return functools.partial(state.create, 0, net, shape, optim), one_step, batch


def train(config: Config, steps: int, initialise: bool = False) -> tuple[Any, Any, Any]:
    """Return the first and the last state and the sums of each step, on one batch.

    The parameters are random numbers, or with `initialise` the network's own initialisation.
    """
    create, one_step, batch = training(config)
    all_steps = lambda first: jax.lax.scan(lambda s, _: one_step(s, batch), first, length=steps)
    first = jax.jit(create)() if initialise else begin(config, batch)
    return first, *jax.jit(all_steps)(first)


def begin(config: Config, batch: Batch) -> state.TrainState:
    """Return the state at step 0 with random parameters."""
    variables = drawn(families.build(config), pixels(batch))
    return state.begin(0, variables, optimizer(config))


def pixels(batch: Batch) -> Any:
    """Return the network's input."""
    return batch.input.astype(jnp.float32) / 255


def loss_by_hand(config: Config, first: state.TrainState, batch: Batch) -> Any:
    """Return the summed loss of a batch by a network whose Stacks are loops in Python.

    The network normalises by the batch, and nothing is dropped.
    """
    net, measure = families.build(config), TASKS[config.task].measure
    x = pixels(batch)
    loss = lambda variables: measure(apply_by_hand(net, variables, x), batch)["loss"]
    return jax.jit(loss)(state.variables(first))


def apply_by_hand(net: Chain, variables: Any, x: Any) -> Any:
    """Return the output of a network whose Stacks are loops in Python; nothing is dropped."""

    def apply(block, own, x, **inputs):
        return block.apply(own, x, mutable=["batch_stats"], **inputs)[0]

    for name, block in net.blocks.items():
        own = {col: tree[name] for col, tree in variables.items() if name in tree}
        if isinstance(block, Stack):
            own = {col: tree["layers"] for col, tree in own.items()}
            for layer in range(block.depth):
                inputs = {key: jnp.float32(p[layer]) for key, p in block.per_layer.items()}
                of_layer = jax.tree.map(lambda a, layer=layer: a[layer], own)
                x = apply(block.block, of_layer, x, **inputs)
        else:
            x = apply(block, own, x)
    return x

"""The config: every value a run depends on, in one locked ConfigDict, checked before anything runs.

`configs/*.py` start from `base`, which names every key, and change what their source gives.
"""

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from resnet_jax import families
from resnet_jax.models import resnet
from resnet_jax.models.norm import nearest_divisor

# A ConfigDict: its attributes are made at run time, so that a type checker cannot know them.
Config = Any


def base() -> Config:
    """Every key, with He et al. 2015's CIFAR-10 recipe (arXiv:1512.03385, sec. 4.2)."""
    c: Config = ConfigDict()
    c.seed = 0
    # Networks trained at once, of the seeds seed, seed + 1, ..., each on its share of the devices.
    c.replicas = 1
    c.steps = 64_000
    c.batch_size = 128
    c.parallel = "shard_map"  # what spreads a step over devices: shard_map, or pmap
    # What is compiled, never what is computed: activations' type, blocks a turn of the layer loop
    # and what the backward pass computes again (auto: block on the CPU, none elsewhere).
    c.dtype = "float32"
    c.unroll = 1
    c.remat = "auto"
    # The same bits in every run. On a GPU alone it changes anything, and costs.
    c.deterministic = False
    # In steps. A chunk is one dispatch and one record; the others are multiples of it.
    c.chunk_steps = 100
    c.eval_every = 1_000
    c.checkpoint_every = 5_000
    c.checkpoint_minutes = 10.0  # and at the end of a chunk where more would pass without one
    # A step whose loss, gradients or statistics are not finite: stop the run, or skip the step.
    c.nonfinite = "stop"

    c.data = ConfigDict()
    c.data.name = "cifar10"
    c.data.dir = ""  # a tensorflow-datasets folder; digits needs none
    c.data.stream = "auto"  # read as it is needed: always, never, or where it does not fit (auto)
    c.data.shape = (32, 32, 3)  # height, width, channels
    c.data.normalisation = "per_pixel"
    c.data.mean, c.data.std = (), ()  # of pixels in [0, 1], for normalisation=constants
    c.data.pad = 4  # zeros on each side, then a random crop
    c.data.flip = True

    c.model = ConfigDict()
    c.model.family = "resnet"
    c.model.depth = 110
    c.model.stages = ()  # blocks per stage where they are not the published ones of the depth
    c.model.block = "basic"
    c.model.skip = "A"
    c.model.merge = "add"
    c.model.gains = (1.0, 1.0)  # of skip and body, where merge=add
    c.model.gate_bias = -6.0  # logits of a gate's initial bias: of the body
    c.model.carry_bias = 6.0  # and of the skip, where merge=two_gate
    c.model.survival = 0.5  # of the last block, where the merge drops bodies
    c.model.survival_rule = "linear"  # from 1 to it, or uniform
    c.model.skip_dropout = 0.0  # rate of dropout on every skip
    c.model.width = 16  # channels of the first stage; units of a dense highway; of every token
    c.model.widen = 1  # times as wide: all layers (Wide ResNet), or a bottleneck's inner ones
    c.model.cardinality = 1  # groups of a bottleneck's 3x3 convolution
    c.model.growth = 12  # channels that a layer of a DenseNet adds
    # Rate: before or after hidden layers, after a DenseNet's convolutions and a Transformer's
    # dense layers.
    c.model.dropout = 0.0
    c.model.patch = 16  # pixels a side of a Vision Transformer's patches
    c.model.heads = 12  # of its attention, which share out the width
    c.model.stem = "3x3"
    c.model.stride_at = "1x1"  # of a bottleneck: 1x1 in 2015, 3x3 in most code since
    c.model.zero_init = False  # bodies start at zero
    c.model.num_classes = 10

    c.norm = ConfigDict()
    c.norm.kind = "batch"
    c.norm.groups = 8  # of channels, where kind=group
    c.norm.group_size = 0  # examples normalised together; 0: the whole batch, -1: a device's share
    c.norm.precise = 0  # batches that statistics are recomputed from before an evaluation
    c.norm.momentum = 0.9  # of the running statistics
    c.norm.epsilon = 1e-5

    c.optimizer = ConfigDict()
    c.optimizer.name = "sgd"
    c.optimizer.learning_rate = 0.1
    c.optimizer.momentum = 0.9
    c.optimizer.nesterov = False
    c.optimizer.weight_decay = 1e-4
    c.optimizer.decay = "all"  # all parameters (2015), or kernels alone (modern)

    c.schedule = ConfigDict()
    c.schedule.kind = "piecewise"
    c.schedule.boundaries = (32_000, 48_000)  # steps; of a cosine, its end
    c.schedule.factor = 0.1  # at each boundary
    c.schedule.warmup_steps = 0
    c.schedule.warmup = "constant"  # at warmup_factor, or linear from it to 1
    c.schedule.warmup_factor = 0.1
    return c


CHOICES = {
    "dtype": ("float32", "bfloat16", "float64"),
    "nonfinite": ("stop", "skip"),
    "parallel": ("shard_map", "pmap"),
    "data.stream": ("auto", "always", "never"),
    "remat": ("auto", "none", "block", "sqrt"),
    "data.normalisation": ("per_pixel", "channel", "constants"),
    "model.family": tuple(families.FAMILIES),
    "model.block": (*resnet.BLOCKS, "dense", "transformer"),
    "model.skip": families.SKIPS,
    "model.merge": (*families.MERGES, "concat"),
    "model.survival_rule": ("linear", "uniform"),
    "model.stem": ("3x3", "7x7"),
    "model.stride_at": ("1x1", "3x3"),
    "norm.kind": families.NORMS,
    "optimizer.name": ("sgd",),
    "optimizer.decay": ("all", "kernels"),
    "schedule.kind": ("piecewise", "cosine", "constant"),
    "schedule.warmup": ("constant", "linear"),
}
POSITIVE = (
    "replicas",
    "steps",
    "batch_size",
    "unroll",
    "chunk_steps",
    "eval_every",
    "checkpoint_every",
    "checkpoint_minutes",
    "model.width",
    "model.widen",
    "model.cardinality",
    "model.growth",
    "model.patch",
    "model.heads",
    "model.num_classes",
    "norm.groups",
    "norm.epsilon",
    "optimizer.learning_rate",
)
NOT_NEGATIVE = (
    "seed",
    "data.pad",
    "norm.precise",
    "optimizer.weight_decay",
    "schedule.warmup_steps",
    "schedule.warmup_factor",
    "schedule.factor",
)
# Whole numbers that are counted in float32 too, by the schedule: exactly up to 2^24.
STEPS = ("steps", "schedule.warmup_steps", "schedule.boundaries")
FRACTIONS = ("norm.momentum", "optimizer.momentum", "model.skip_dropout", "model.dropout")

ARGUMENT = ("family", "depth", "block", "skip")

# What jax counts in 32 bits: an array's elements, a batch's rows, the steps.
LARGEST = 2**31 - 1
LARGEST_STEP = 2**24
LARGEST_SIDE = 65_535  # pixels: no JPEG has more
# The largest and smallest numbers that float32 holds with all its digits.
FLOAT32 = (float(jnp.finfo(jnp.float32).tiny), float(jnp.finfo(jnp.float32).max))

# Keys that a recipe sets for all of its networks, or a family's choice, whether each uses them or
# not. Whoever gives one on the command line expects a change.
FOR_ALL = (
    *("norm.group_size", "norm.epsilon", "data.mean", "data.std", "schedule.boundaries"),
    *("model.width", "model.stem", "model.stride_at"),
)


def choose_model(config: Config, argument: str) -> None:
    """Apply a config file's argument, `key=value,...` with the keys of ARGUMENT.

    What is not given follows from the family and the depth (families.py): in a ResNet the block is
    basic where the depth allows it, else bottleneck, and the skip A for basic blocks on small
    images, else B (He et al. 2015, sec. 4.1-4.2).
    Raises: ValueError for another key, another family or a depth that is no number.
    """
    given = {}
    for part in filter(None, argument.split(",")):
        key, _, value = part.partition("=")
        if key not in ARGUMENT or not value:
            raise ValueError(
                f"config argument {part!r} is not key=value with a key of {', '.join(ARGUMENT)}"
                + _nearest(key, ARGUMENT)
            )
        given[key] = value
    model = config.model
    if "family" in given:
        known = tuple(families.FAMILIES)
        if given["family"] not in known:
            raise ValueError(
                f"family={given['family']} is not one of {', '.join(known)}"
                + _nearest(given["family"], known)
            )
        model.family, model.depth = given["family"], families.FAMILIES[given["family"]].depth
    if "depth" in given:
        if not given["depth"].isdecimal():
            raise ValueError(f"depth={given['depth']} is not a number of layers")
        if len(given["depth"]) > len(str(families.DEEPEST)):
            raise ValueError(
                f"depth={given['depth']} is more than {families.DEEPEST}, the most layers of any "
                "network"
            )
        model.depth = int(given["depth"])
    families.FAMILIES[model.family].choose(config, given.get("block"))
    model.skip = given.get("skip", model.skip)


def check(config: Config) -> None:
    """Refuse what cannot run, in one line, before anything is compiled or written.

    Raises: ValueError naming the key, its value, the rule and the nearest thing that works.
    """
    flat = flatten(config)
    _check_types(flat)
    for key, choices in CHOICES.items():
        if flat[key] not in choices:
            raise ValueError(
                f"{key}={flat[key]!r} is not one of {', '.join(choices)}"
                + _nearest(str(flat[key]), choices)
            )
    for key in POSITIVE:
        if flat[key] <= 0:
            raise ValueError(f"{key}={flat[key]} must be positive")
    for key in NOT_NEGATIVE:
        if flat[key] < 0:
            raise ValueError(f"{key}={flat[key]} must not be negative")
    for key in FRACTIONS:
        if not 0 <= flat[key] <= 1 - 2**-24:  # what float32 does not round to 1
            raise ValueError(f"{key}={flat[key]} must lie in [0, 1)")
    if flat["seed"] + flat["replicas"] > 2**32:
        raise ValueError(
            f"seed={flat['seed']} must be below {2**32}: jax sees 32 bits, and others would repeat"
        )
    if config.dtype == "float64" and not jax.config.read("jax_enable_x64"):
        raise ValueError("dtype=float64 needs JAX_ENABLE_X64=1 in the environment")
    _check_data(config)
    for key in ("eval_every", "checkpoint_every"):
        if flat[key] % config.chunk_steps:
            near = max(1, round(flat[key] / config.chunk_steps)) * config.chunk_steps
            raise ValueError(
                f"{key}={flat[key]} is not a multiple of chunk_steps={config.chunk_steps}; "
                f"nearest {near}"
            )
    _check_schedule(config)
    _check_norm(config)
    if config.parallel == "pmap" and config.replicas > 1:
        raise ValueError(
            f"replicas={config.replicas} need parallel=shard_map: pmap has one axis, the batch's"
        )
    _check_model(config)
    for key, why in idle(config).items():
        default = flatten(base())[key]
        if flat[key] != default and key not in FOR_ALL:
            raise ValueError(f"{key}={flat[key]} changes nothing: {why}; leave it at {default}")


def check_given(config: Config, keys: Iterable[str]) -> None:
    """Refuse what was given on the command line for `keys` and would change nothing.

    Raises: ValueError naming the key, its value, why it is idle and what leaves it so.
    """
    flat, default, unused = flatten(config), flatten(base()), idle(config)
    for key in keys:
        if key in unused and flat[key] != default[key]:
            raise ValueError(
                f"{key}={flat[key]} changes nothing: {unused[key]}; leave it out, "
                f"or set {default[key]}"
            )


def idle(config: Config) -> dict[str, str]:
    """Keys whose value changes nothing in this config, each with the reason.

    Those of families.OPTIONAL are refused with the network, see `_check_unused`.
    """
    model, norm, schedule, optimizer = config.model, config.norm, config.schedule, config.optimizer
    kind = "none" if model.block.startswith("fixup") else norm.kind
    normed = f"norm.kind={norm.kind} with model.block={model.block}"
    family = f"model.family={model.family} with model.block={model.block}"
    shape = resnet.form_and_shape(model.block)[1]
    found: dict[str, str] = {}

    def where(condition: bool, why: str, *keys: str) -> None:
        found.update(dict.fromkeys(keys, why) if condition else {})

    where(
        schedule.kind != "piecewise" or not schedule.boundaries,
        f"schedule.kind={schedule.kind} has no boundaries at which the rate falls",
        "schedule.factor",
    )
    where(schedule.kind == "constant", "schedule.kind=constant has no ends", "schedule.boundaries")
    where(
        not schedule.warmup_steps,
        "there is no warm-up where schedule.warmup_steps=0",
        *("schedule.warmup", "schedule.warmup_factor"),
    )
    where(kind != "batch", f"{normed} keeps no statistics", "norm.momentum", "norm.precise")
    where(kind != "batch", f"{normed} sees each example by itself", "norm.group_size")
    where(kind != "group", f"{normed} has no groups of channels", "norm.groups")
    where(kind == "none", f"{normed} normalises nothing", "norm.epsilon")
    where(
        config.data.normalisation != "constants",
        f"data.normalisation={config.data.normalisation} is computed from the data",
        *("data.mean", "data.std"),
    )
    where(not optimizer.momentum, "optimizer.momentum=0 leaves none", "optimizer.nesterov")
    where(not optimizer.weight_decay, "optimizer.weight_decay=0 leaves none", "optimizer.decay")
    where(model.family in ("lenet", "densenet"), f"{family} has widths of its own", "model.width")
    where(
        model.family in ("vgg", "vgg_bn", "lenet", "alexnet", "vit", "highway"),
        f"{family} has a first layer of its own",
        "model.stem",
    )
    where(
        model.family == "densenet" or shape != "bottleneck",
        f"{family} has no bottlenecks with a stride",
        "model.stride_at",
    )
    return found


def _check_data(config: Config) -> None:
    """Refuse images, and what is done to them before the network, that no data set can have."""
    data = config.data
    if len(data.shape) != 3:
        raise ValueError(f"data.shape={data.shape} must be (height, width, channels)")
    if max(data.shape[:2]) > LARGEST_SIDE:
        raise ValueError(
            f"data.shape={data.shape} has more than {LARGEST_SIDE} pixels a side, the most that a "
            "JPEG can have"
        )
    numbers = math.prod(side + 2 * data.pad for side in data.shape[:2]) * data.shape[2]
    if numbers > LARGEST:
        raise ValueError(
            f"data.shape={data.shape} with data.pad={data.pad} makes images of {numbers} numbers; "
            f"jax counts them in 32 bits, to {LARGEST}"
        )
    for key, values in (("data.mean", data.mean), ("data.std", data.std)):
        if data.normalisation == "constants" and len(values) != data.shape[-1]:
            raise ValueError(
                f"{key}={values} needs one number for each of the {data.shape[-1]} "
                "channels where data.normalisation=constants"
            )
    if not all(value > 0 for value in data.std):
        raise ValueError(
            f"data.std={data.std} must hold positive numbers: pixels are divided by it"
        )


def _check_schedule(config: Config) -> None:
    schedule = config.schedule
    if schedule.warmup_steps >= config.steps:
        raise ValueError(
            f"schedule.warmup_steps={schedule.warmup_steps} is not shorter than the run of "
            f"steps={config.steps}; at most {config.steps - 1}"
        )
    if list(schedule.boundaries) != sorted(set(schedule.boundaries)):
        raise ValueError(f"schedule.boundaries={schedule.boundaries} must rise")
    if schedule.kind == "cosine" and len(schedule.boundaries) != 1:
        raise ValueError(
            f"schedule.boundaries={schedule.boundaries}: a cosine has one, the step of its end; "
            f"try ({config.steps},)"
        )
    # By logarithms: the largest rates are more than a float holds.
    falls = len(schedule.boundaries) if schedule.kind == "piecewise" else 0
    rises = math.log(max(schedule.factor, 1)) * falls
    if schedule.warmup_steps:
        rises = max(rises, math.log(max(schedule.warmup_factor, 1)))
    if math.log(config.optimizer.learning_rate) + rises > math.log(FLOAT32[1]):
        raise ValueError(
            f"optimizer.learning_rate={config.optimizer.learning_rate} grows beyond float32's "
            f"{FLOAT32[1]:.3g} by schedule.factor={schedule.factor} or "
            f"schedule.warmup_factor={schedule.warmup_factor}; leave them at most 1"
        )


def _check_norm(config: Config) -> None:
    group = config.norm.group_size
    if group < -1:
        raise ValueError(
            f"norm.group_size={group} must be a number of examples, 0 for the whole batch or -1 "
            "for one device's share"
        )
    if group > 0 and config.batch_size % group:
        near = nearest_divisor(config.batch_size, group)
        raise ValueError(
            f"norm.group_size={group} does not divide batch_size={config.batch_size}; "
            f"nearest {near}"
        )
    if config.norm.precise and config.norm.kind != "batch":
        raise ValueError(
            f"norm.precise={config.norm.precise} recomputes the statistics of norm.kind=batch; "
            f"norm.kind={config.norm.kind} has none, leave it at 0"
        )
    if config.norm.precise > config.chunk_steps:
        raise ValueError(
            f"norm.precise={config.norm.precise} is more than chunk_steps={config.chunk_steps}, "
            "the batches that are on the devices at once"
        )


def _check_model(config: Config) -> None:
    """Refuse a network that cannot be built."""
    model, kind = config.model, config.norm.kind
    if len(model.gains) != 2:
        raise ValueError(f"model.gains={model.gains} must be two numbers, of skip and body")
    if tuple(model.gains) != (1.0, 1.0) and model.merge != "add":
        raise ValueError(f"model.gains={model.gains} are those of merge=add, not of {model.merge}")
    if not 0 < model.survival <= 1:
        raise ValueError(f"model.survival={model.survival} must lie in (0, 1]")
    if not any(model.gains):
        raise ValueError(f"model.gains={model.gains} pass nothing on; leave one of them above 0")
    if model.width * model.widen > LARGEST:
        raise ValueError(
            f"model.width={model.width} times model.widen={model.widen} are more channels than "
            f"jax counts in 32 bits, {LARGEST}"
        )
    net = families.build(config)
    _check_unused(config)
    # Groups may not divide some layer's channels.
    if kind == "group" or model.cardinality > 1 or _vast(config):
        image = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
        made = jax.eval_shape(net.init, jax.random.key(0), image)
        for path, leaf in jax.tree_util.tree_leaves_with_path(made):
            if leaf.size > LARGEST:
                name = "/".join(key.key for key in path[1:])
                raise ValueError(
                    f"{name} would be an array of {' x '.join(map(str, leaf.shape))} numbers; "
                    f"jax counts them in 32 bits, to {LARGEST}: use a smaller network"
                )


def _vast(config: Config) -> bool:
    """Whether some parameter might have more numbers than jax can count.

    No network of the papers is near it, and to ask for the shapes of all parameters takes long.
    """
    model = config.model
    return (
        # A layer has at most 32 times the first one's channels, VGG's first hidden layer 392 times.
        (392 * model.width * model.widen) * (64 * model.width * model.widen) > LARGEST
        or 9 * model.growth * max(4 * model.growth, model.depth * model.growth) > LARGEST
        or model.depth > families.WRITTEN_OUT
        or model.num_classes > 2**16
        or math.prod(config.data.shape) > 2**20
    )


def _check_unused(config: Config) -> None:
    """Refuse a value that would change nothing in this network: who sets it expects a change."""
    model, default = config.model, base()
    default.data.shape = config.data.shape
    default.model.family, default.model.depth = model.family, model.depth
    families.FAMILIES[model.family].choose(default, model.block)
    for key in sorted(set(families.OPTIONAL) - families.used(config)):
        if model[key] != default.model[key]:
            raise ValueError(
                f"model.{key}={model[key]} changes nothing in the family {model.family} with "
                f"block={model.block}, skip={model.skip}, merge={model.merge}; "
                f"leave it at {default.model[key]}"
            )


def _check_types(flat: dict[str, Any]) -> None:
    """Raise for what a type-safe config lets through: inside tuples, and what is no number."""
    for key in ("data.shape", "model.stages", "schedule.boundaries"):
        if not all(type(value) is int and value > 0 for value in flat[key]):
            raise ValueError(f"{key}={flat[key]} must hold positive whole numbers")
    for key in ("data.mean", "data.std", "model.gains"):
        if not all(type(value) is float for value in flat[key]):
            raise ValueError(f"{key}={flat[key]} must hold numbers with a point, such as 1.0")
    smallest, largest = FLOAT32
    for key, value in flat.items():
        for number in _numbers(value):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{key}={value} must be finite")
            if isinstance(number, float) and number and not smallest <= abs(number) <= largest:
                raise ValueError(
                    f"{key}={value} is not within float32's {smallest:.3g} and {largest:.3g}"
                )
            limit = LARGEST_STEP if key in STEPS else LARGEST
            if isinstance(number, int) and key != "seed" and abs(number) > limit:
                counts = (
                    "the schedule counts in float32" if key in STEPS else "jax counts in 32 bits"
                )
                raise ValueError(f"{key}={value} must be at most {limit}: {counts}")


def _numbers(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def check_data(config: Config, shape: tuple[int | None, ...], num_classes: int, train: int) -> None:
    """Refuse a config that its data set does not fit: shape (h, w, c), classes, training images.

    Height and width are None where images differ in size, so that any can be cropped from them.
    Raises: ValueError naming both sides and the override that mends it.
    """
    name = config.data.name
    ours = tuple(config.data.shape)
    fits = tuple(a if b is None else b for a, b in zip(ours, shape, strict=True))
    if ours != fits:
        raise ValueError(
            f"data.shape={ours}, but the images of {name} are {fits}; "
            f'use --config.data.shape="{fits}"'
        )
    if config.model.num_classes != num_classes:
        raise ValueError(
            f"model.num_classes={config.model.num_classes}, but {name} has {num_classes}; "
            f"use --config.model.num_classes={num_classes}"
        )
    if config.batch_size > train:
        raise ValueError(
            f"batch_size={config.batch_size} is larger than the training split of {name}, {train}"
        )
    if config.chunk_steps * config.batch_size > train:
        raise ValueError(
            f"chunk_steps={config.chunk_steps} is more than an epoch of {name}, whose error could "
            f"not be told; at most {train // config.batch_size}"
        )


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """{'model.depth': 110, ...} of a ConfigDict or of its JSON."""
    flat = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = tuple(value) if isinstance(value, list) else value
    return flat


def seeds(config: Config) -> range:
    """The seed of each replica."""
    return range(config.seed, config.seed + config.replicas)


# What may change between two starts in one directory without changing what is computed.
MAY_CHANGE = (
    *("data.dir", "data.stream", "checkpoint_every", "checkpoint_minutes", "remat", "unroll"),
    *("parallel", "nonfinite"),
)


def differences(config: Config, saved: dict[str, Any]) -> list[str]:
    """The keys whose values keep `config` from going on where `saved` stopped, with both values.

    More steps may be asked for: the schedule's boundaries are absolute and part of the identity.
    """
    now, then = flatten(config), flatten(saved)
    lines = []
    for key in sorted(now.keys() | then.keys()):
        old, new = then.get(key, "absent"), now.get(key, "absent")
        longer = key == "steps" and isinstance(old, int) and new >= old
        # One device's share became a number when the run was created, and keeps it.
        kept = key == "norm.group_size" and new == -1 and isinstance(old, int) and old > 0
        if old != new and key not in MAY_CHANGE and not longer and not kept:
            lines.append(f"{key}: {old} there, {new} now")
    return lines


def to_json(config: Config) -> str:
    """The complete config as JSON."""
    return json.dumps(config.copy_and_resolve_references().to_dict(), indent=2) + "\n"


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.0)
    return f"; nearest: {near[0]}" if near else ""

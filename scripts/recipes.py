"""Write docs/recipes.md from the config files: `python scripts/recipes.py`."""

import json
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resnet_jax import config as configs  # noqa: E402
from resnet_jax import config_file, families  # noqa: E402
from resnet_jax.keys import Config  # noqa: E402
from resnet_jax.models import measure  # noqa: E402
from resnet_jax.recipe import LogUniform, OneOf, Published, Source, Uniform  # noqa: E402
from resnet_jax.tasks import TASKS  # noqa: E402

PAGE = ROOT / "docs" / "recipes.md"
STEPS = ROOT / "benchmarks" / "results" / "throughput_H200.json"
# The measured steps that the estimates of cost are made of: (net, batch) in STEPS and its config.
MEASURED = {
    ("resnet110", 128): "cifar10.py:depth=110",
    ("resnet50", 256): "imagenet_torchvision.py:depth=50",
}
# The estimate of every measured step is within this factor of it.
FACTOR = 2
# The `count` of a network by its values: many recipes train a network in several ways, and tracing
# a DenseNet takes seconds.
COUNTED: dict[str, tuple[int, int]] = {}
# The training examples of the data sets as published.
EXAMPLES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "mnist": 60_000,
    "imagenet2012": 1_281_167,
    "svhn_cropped": 604_388,
}
# The switches that choose a network, and keys that follow from the data or are told elsewhere.
NETWORK = ("family", "block", "skip", "merge", "norm")
OF_DATA = ("model.depth", "model.num_classes", "norm.group_size")
HEAD = """# Recipes

This page is made from the files in `configs/` by `python scripts/recipes.py`; do not change it by
hand. A recipe names its source, the networks that it is for, what is not as published, and the
errors that the source gives, with their protocol. Training another network by it is refused;
`configs/cifar10_any.py` and a config file of your own take any. None of these runs was repeated
here at full length: the errors are the sources'.

The first column of a table of errors is what follows `configs/NAME.py:` and the flags that the
network needs. `python -m resnet_jax.train --config=configs/NAME.py:ARGUMENT --help` prints every
value that the recipe trains with.

Decay. The papers of 2015 decay the kernels of convolutions and of the classifier; the Torch code
that many later papers use (fb.resnet.torch) decays all parameters. `optimizer.decay` follows the
paper's own runs; if text and code disagree, the recipe says which of them it takes. Biases of gates
decay in no recipe.
"""


COSTS = """Cost. "Expected on an H200" is an estimate: none of these runs was made. It is computed
from the time of a step of two networks that were measured on an H200 in bfloat16, ResNet-110 on
CIFAR-10 at batch 128 and ResNet-50 on ImageNet at batch 256
([benchmarks](../benchmarks/README.md#on-a-gpu)). By these two, a step takes

    layers x {layer:.3f} ms + 3 x multiply-adds of an image x batch / {speed:.0f}e12 a second

The other measured steps, of ResNets of 20 to 1202 layers on CIFAR-10, are within a factor of
{factor} of this formula. No step of another family was measured, so that their estimates may be off
by a factor of 3. Layers of DenseNets and layers with gates, dropout or grouped convolutions launch
more kernels. A multiply-add takes less time in VGG, Wide ResNets and ViT than in ResNet-50, and it
takes more in DenseNets: on an RTX 3090, 0.6 of ResNet-50's time in VGG-19, 0.7 in ViT-B/16 and 2.1
in DenseNet-201 (computed from timm's `results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv`).

The estimate is for `--config.dtype=bfloat16` on one H200, whose memory may be too small for the
batch. It counts training steps only: compiling, evaluation and waiting for images take more time.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")


def page() -> str:
    """Return the page."""
    found = list(recipes())
    rows = [
        f"| [`{name}`](#{name.replace('.py', 'py')}) | {source.paper} | {networks(source)} "
        f"| {data(config)} | {first(source)} |"
        for name, config, source in found
    ]
    table = ["| recipe | source | networks | data | published error |", "|---|---|---|---|---|"]
    ours = ", ".join(f"`{name}` ({expected(load(name))})" for name in without_source())
    parts = [
        HEAD,
        how_costs_are_estimated(),
        "\n".join([*table, *rows]),
        f"\nThese recipes are ours, and take any network: {ours}. In brackets is what "
        "the default network is expected to take on an H200.\n",
        *(section(*recipe) for recipe in found),
    ]
    return "\n".join(parts)


def recipes() -> Iterator[tuple[str, Config, Source]]:
    """Yield the name, the default config and the source of each config file that has a source."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem != "__init__" and (source := config_file.source(str(path))) is not None:
            yield path.name, load(path.name), source


def load(name: str, row: Published | None = None) -> Config:
    """Return the config of a file in configs/: of its default network, or of a published one."""
    path = str(ROOT / "configs" / name)
    if row is None:
        return config_file.load(path)
    changes = {key: str(value) for key, value in row.changes.items()}
    return config_file.load(f"{path}:{row.argument}", changes)


def how_costs_are_estimated() -> str:
    """Return the formula of the estimates, with its numbers, and how far off it is."""
    a_layer, a_product = rates()
    return COSTS.format(layer=1e3 * a_layer, speed=1e-12 / a_product, factor=FACTOR)


def without_source() -> list[str]:
    """Return the names of the recipes that follow no source."""
    paths = sorted((ROOT / "configs").glob("*.py"))
    names = [path for path in paths if path.stem != "__init__"]
    return [path.name for path in names if config_file.source(str(path)) is None]


def networks(source: Source) -> str:
    """Return the networks of a recipe in words."""
    return source.says().replace("model.", "")


def data(config: Config) -> str:
    """Return the data set of a recipe, with its validation split."""
    aside = f", {config.data.validation:,} for validation" if config.data.validation else ""
    return config.data.name + aside


def first(source: Source) -> str:
    """Return the first published error."""
    row = source.published[0]
    return f"{error(row)} ({network(row)})"


def error(row: Published) -> str:
    """Return an error with its unit."""
    return f"{row.error} %" if row.error[0].isdigit() else row.error


def network(row: Published) -> str:
    """Return the argument and the flags of a network, as a shell takes them."""
    return " ".join(f"`{shlex.quote(word)}`" for word in (row.argument, *row.words()))


def section(name: str, config: Config, source: Source) -> str:
    """Return all that is known of a recipe."""
    lines = [f"## `{name}`", "", f"{source.paper}.", ""]
    lines += [f"- **Networks.** {networks(source)}; the default is {default(config)}."]
    lines += [f"- **Run.** {run(config)}"]
    lines += [f"- **Optimizer.** {optimizer(config)}"]
    lines += [f"- **Data.** {data(config)}: {inputs(config)}"]
    lines += [f"- **Cost.** {cost(config, source)}"]
    lines += [f"- **Text and code disagree.** {text}" for text in source.disagree]
    lines += [f"- **Differs.** {text}" for text in source.differs]
    lines += ["", "| network | error | protocol | expected on an H200 |", "|---|---|---|---|"]
    lines += [
        f"| {network(row)} | {error(row)} | {row.protocol} | {expected(load(name, row))} |"
        for row in source.published
    ]
    lines += [
        "",
        f"    python -m resnet_jax.train --config=configs/{name} --data_dir=DIR --workdir=RUN",
    ]
    if config.data.validation:
        lines += ["    python -m resnet_jax.evaluate --workdir=RUN --best"]
    if ranges := config_file.ranges(str(ROOT / "configs" / name)):
        search = f"python -m experiments.search --config=configs/{name}"
        lines += [f"    {search} --data_dir=DIR --workdir=RUNS", ""]
        lines += [f"The search draws {'; '.join(range_of(key, r) for key, r in ranges.items())}."]
    return "\n".join([*lines, ""])


def range_of(key: str, values: Uniform | LogUniform | OneOf) -> str:
    """Return in words what a search draws for a key."""
    if isinstance(values, OneOf):
        return f"`{key}` from {' or '.join(map(str, values.values))}"
    scale = " on a logarithmic scale" if isinstance(values, LogUniform) else ""
    return f"`{key}` from {values.low:g} to {values.high:g}{scale}"


def default(config: Config) -> str:
    """Return the network of the default argument: its choices, and all keys with other values."""
    chosen = {c.name: c.value for c in configs.choices_of(config) if len(c.switch.parts) > 1}
    words = [f"{name}={value}" for name, value in chosen.items() if name in NETWORK]
    flat = configs.flatten(config)
    for name, key in configs.keys_of(config).items():
        if (
            name.startswith(("model.", "norm."))
            and name not in OF_DATA
            and flat[name] != key.default
        ):
            words.append(f"{name.removeprefix('model.')}={flat[name]}")
    return f"{words[0]}, depth={config.model.depth}, {', '.join(words[1:])}"


def run(config: Config) -> str:
    """Return the length of a run and its schedule in words."""
    schedule, steps = config.schedule, config.steps
    examples = EXAMPLES[config.data.name] - config.data.validation
    epochs = steps * config.batch_size / examples
    words = f"{steps:,} steps of {config.batch_size:,} examples ({epochs:.0f} epochs)"
    if schedule.kind == "piecewise":
        at = ", ".join(f"{step:,}" for step in schedule.boundaries)
        words += f"; the rate is multiplied by {schedule.factor:g} at steps {at}"
    elif schedule.kind == "exponential":
        words += f"; the rate falls smoothly, by a factor of {schedule.factor:g} in "
        words += f"{schedule.every:,} steps"
    else:
        words += f"; the rate follows a {schedule.kind}"
    if schedule.warmup_steps:
        start = schedule.warmup_factor * config.optimizer.learning_rate
        how = "are at rate" if schedule.warmup == "constant" else "rise linearly from rate"
        words += f"; the first {schedule.warmup_steps:,} steps {how} {start:g}"
    return f"{words}."


def optimizer(config: Config) -> str:
    """Return the optimizer in words."""
    keys = config.optimizer
    words = f"{keys.name}, rate {keys.learning_rate:g}"
    if keys.name == "sgd":
        words += f", momentum {keys.momentum:g}" + (" in Nesterov's form" if keys.nesterov else "")
    words += f", decay {keys.weight_decay:g} on {keys.decay}" if keys.weight_decay else ", no decay"
    words += f", gradients clipped to norm {keys.clip_norm:g}" if keys.clip_norm else ""
    for pattern, rate, decay in keys.groups:
        words += f"; `{pattern}`: rate x {rate:g}, decay x {decay:g}"
    return f"{words}."


def cost(config: Config, source: Source) -> str:
    """Return the estimate for the default network, and what the source's own runs cost."""
    words = f"The default network is expected to take {expected(config)} on an H200."
    return f"{words} {source.cost}." if source.cost else words


def expected(config: Config) -> str:
    """Return in words how long the training steps of a run are expected to take on an H200."""
    minutes = config.steps * step_seconds(config) / 60
    if minutes < 1:
        return "less than a minute"
    if minutes < 90:
        return f"{minutes:.2g} minutes"
    hours = minutes / 60
    return f"{hours:.2g} hours" if hours < 48 else f"{hours / 24:.2g} days"


def step_seconds(config: Config) -> float:
    """Return the estimated seconds of a training step on an H200 in bfloat16."""
    a_layer, a_product = rates()
    layers, products = work(config, config.batch_size)
    return config.accumulate * layers * a_layer + products * a_product


@cache
def rates() -> tuple[float, float]:
    """Return the seconds of a layer and of a multiply-add by which the MEASURED steps are exact."""
    rows = json.loads(STEPS.read_text("utf-8"))["rows"]
    milliseconds = {
        (row["net"], row["batch"]): row["step_ms"] for row in rows if row["program"] == "ours"
    }
    works = [work(config_file.load(f"{ROOT}/configs/{MEASURED[key]}"), key[1]) for key in MEASURED]
    a_layer, a_product = np.linalg.solve(works, [milliseconds[key] / 1e3 for key in MEASURED])
    return float(a_layer), float(a_product)


def work(config: Config, batch: int) -> tuple[int, int]:
    """Return a network's layers and the multiply-adds of a training step on a batch.

    A training step has three times the multiply-adds of an evaluation: the two gradients of a
    product take as many as the product.
    """
    parts = configs.flatten(config)
    of_network = {k: v for k, v in parts.items() if k.startswith(("model.", "norm.", "data.shape"))}
    key = repr((config.task, sorted(of_network.items())))
    if key not in COUNTED:
        COUNTED[key] = count(config)
    layers, macs = COUNTED[key]
    return layers, 3 * macs * batch


def count(config: Config) -> tuple[int, int]:
    """Return a network's layers and the multiply-adds of an image, as measure.count does.

    The network is traced once, not twice as there.
    """
    net = families.build(config)
    image = jax.ShapeDtypeStruct((1, *TASKS[config.task].example(config).shape), jnp.float32)
    init = lambda image: net.init_with_output(jax.random.key(0), image)
    jaxpr, (_, variables) = jax.make_jaxpr(init, return_shape=True)(image)
    return measure.layers(net, variables["params"]), measure.macs(jaxpr)


NORMALISED = {
    "per_pixel": "the mean image subtracted",
    "channel": "channels of mean 0 and variance 1",
    "constants": "channels normalised by constants",
    "contrast": "the contrast of each image normalised",
}


def inputs(config: Config) -> str:
    """Return what happens to an image in words."""
    keys = config.data
    words = [NORMALISED[keys.normalisation]]
    if keys.pad:
        words.append(f"padded by {keys.pad} pixels ({keys.padding}) and cropped")
    elif config.data.name == "imagenet2012":
        words.append("crops of random area and aspect ratio")
    words += ["mirrored"] if keys.flip else []
    words += [f"mixup {keys.mixup:g}"] if keys.mixup else []
    if config.norm.kind == "batch":
        size = config.norm.group_size
        words.append(f"batch norm over {f'{size} examples' if size else 'the whole batch'}")
    return ", ".join(words) + "."


if __name__ == "__main__":
    main()

"""Write docs/recipes.md from the config files: `python scripts/recipes.py`."""

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from resnet_jax import config_file  # noqa: E402
from resnet_jax.keys import Config  # noqa: E402
from resnet_jax.recipe import Source  # noqa: E402

PAGE = ROOT / "docs" / "recipes.md"
# The training examples of the data sets as published.
EXAMPLES = {
    "cifar10": 50_000,
    "cifar100": 50_000,
    "mnist": 60_000,
    "imagenet2012": 1_281_167,
    "svhn_cropped": 604_388,
}
HEAD = """# Recipes

This page is made from the files in `configs/` by `python scripts/recipes.py`; do not change it by
hand. A recipe names its source, the networks that it is for, what is not as published, and the
errors that the source gives, with their protocol. Training another network by it is refused; a
config file of your own may take any. None of these runs was repeated here at full length: the
errors are the sources'.

Decay. The papers of 2015 decay the kernels of convolutions and of the classifier; the Torch code
that many later papers use (fb.resnet.torch) decays all parameters. `optimizer.decay` is what the
paper's own code does, or else its text. Biases of gates decay in no recipe.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")


def page() -> str:
    """Return the page."""
    found = list(recipes())
    rows = [
        f"| [`{name}`](#{name.replace('.py', 'py')}) | {source.paper} | {networks(source)} "
        f"| {data(config)} | {best(source)} |"
        for name, config, source in found
    ]
    table = ["| recipe | source | networks | data | published error, % |", "|---|---|---|---|---|"]
    ours = ", ".join(f"`{name}`" for name in without_source())
    parts = [
        HEAD,
        "\n".join([*table, *rows]),
        f"\nThese recipes are ours, and take any network: {ours}.\n",
        *(section(*recipe) for recipe in found),
    ]
    return "\n".join(parts)


def recipes() -> Iterator[tuple[str, Config, Source]]:
    """Yield the name, the default config and the source of each config file that has a source."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        if path.stem != "__init__" and (source := config_file.source(str(path))) is not None:
            yield path.name, config_file.load(str(path)), source


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


def best(source: Source) -> str:
    """Return the first published error."""
    first = source.published[0]
    return f"{first.error} ({first.network})"


def section(name: str, config: Config, source: Source) -> str:
    """Return all that is known of a recipe."""
    lines = [f"## `{name}`", "", f"{source.paper}.", ""]
    lines += [f"- **Networks.** {networks(source)}; the default is {default(config)}."]
    lines += [f"- **Run.** {run(config)}"]
    lines += [f"- **Optimizer.** {optimizer(config)}"]
    lines += [f"- **Data.** {data(config)}: {inputs(config)}"]
    lines += [f"- **Cost.** {source.cost}."]
    lines += [f"- **Text and code disagree.** {text}" for text in source.disagree]
    lines += [f"- **Differs.** {text}" for text in source.differs]
    lines += ["", "| network | error, % | protocol |", "|---|---|---|"]
    lines += [f"| {row.network} | {row.error} | {row.protocol} |" for row in source.published]
    command = f"python -m resnet_jax.train --config=configs/{name} --data_dir=DIR --workdir=RUN"
    return "\n".join([*lines, "", f"    {command}", ""])


def default(config: Config) -> str:
    """Return the network of the default argument."""
    model = config.model
    return f"family={model.family}, depth={model.depth}, block={model.block}, skip={model.skip}"


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
        words += f"; the rate is multiplied by {schedule.factor:g} every {schedule.every:,} steps"
    else:
        words += f"; the rate follows a {schedule.kind}"
    if schedule.warmup_steps:
        words += f", after {schedule.warmup_steps:,} steps of {schedule.warmup} warm-up"
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
        words += f"; `{pattern.replace('|', chr(92) + '|')}`: rate x {rate:g}, decay x {decay:g}"
    return f"{words}."


def inputs(config: Config) -> str:
    """Return what happens to an image in words."""
    keys = config.data
    words = [f"normalised by {keys.normalisation}"]
    if keys.pad:
        words.append(f"padded by {keys.pad} pixels ({keys.padding}) and cropped")
    elif config.data.name == "imagenet2012":
        words.append("cropped at random")
    words += ["mirrored"] if keys.flip else []
    words += [f"mixup {keys.mixup:g}"] if keys.mixup else []
    if config.norm.kind == "batch":
        words.append(f"batch norm over {config.norm.group_size or 'all'} examples")
    return ", ".join(words) + "."


if __name__ == "__main__":
    main()

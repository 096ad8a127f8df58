"""The flags of every experiment, and the options that they ask for."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.plan import Network, Options, argument_of, dataset_name
from resnet_jax import cluster, command, config_file
from resnet_jax.data import sources
from resnet_jax.families import FAMILIES
from resnet_jax.keys import LARGEST_STEP
from resnet_jax.run import directory

# Every run of a plan reads its recipe, which takes milliseconds: more seeds are a typing error.
MOST_SEEDS = 1000
# With --full, a run on a claim's own data set is this many times as long.
LONGER = 3
CONFIGS = Path(__file__).parent.parent / "configs"

# What an experiment sets by flags of its own: keys of a config, and switches.
SET_BY = {
    "data.name": "dataset",
    "model.family": "models",
    "model.depth": "depths",
    "steps": "steps",  # which scales the schedule, too
}
SWITCH_SET_BY = {"family": "models", "depth": "depths"}


def parser(name: str, purpose: str) -> command.Parser:
    """Return the parser of `python -m experiments.NAME`."""
    module, whole = f"experiments.{name}", command.whole
    flags = command.Parser(module, purpose, f"python -m {module} --workdir=runs/{name}")
    flags.add_config(required=False)
    add = flags.add_argument
    add("--workdir", required=True, help="the experiment's directory")
    add("--runs", metavar="DIR", help="the directory of the runs, which claims can share (WORKDIR)")
    add(
        "--dataset",
        metavar="NAME",
        help="trains by configs/NAME.py, or on this data set by the recipe for its image size",
    )
    add("--data_dir", help="tensorflow-datasets folder (data.dir)")
    networks = flags.add_mutually_exclusive_group()
    networks.add_argument("--depths", metavar="N,...", help="layers of the networks, as 20,56,110")
    networks.add_argument("--models", metavar="FAMILY:N,...", help="networks of any families")
    add("--seeds", type=whole(1, MOST_SEEDS), metavar="N", help="runs of each network")
    help_steps = "steps of a run; the schedule scales along"
    add("--steps", type=whole(1, LARGEST_STEP), metavar="N", help=help_steps)
    add(
        "--full",
        action="store_true",
        help="the paper's scale; on the claim's own data, 3 x the steps",
    )
    add("--list", action="store_true", help="print the runs and stop")
    add("--run", type=whole(0), metavar="I", help="do run I of --list, and write no report")
    add("--jobs", type=whole(1), default=1, metavar="N", help="runs at a time on this machine")
    cluster.add_flags(flags)
    return flags


def options(
    arguments: command.Arguments,
    dataset: str,
    depths: Callable[[str, bool], Sequence[int]],
    models: Sequence[Network] = (),
    steps: int | None = None,
) -> Options:
    """Return what the flags ask for, and what the claim asks for if they are not given.

    The claim has a `dataset`, on which its runs have `steps` steps, or the recipe's if it is None,
    and LONGER times as many with --full; and it has `models`, or else `depths(dataset, full)`.
    Raises: ValueError in one line, for example if a flag sets what another flag sets.
    """
    recipe, replaced = _recipe(arguments, dataset)
    data = _data(replaced, arguments.data_dir)
    flag_of = dict.fromkeys(data, "dataset") | {"data.dir": "data_dir"}
    flag_of = {key: flag_of[key] for key in data} | SET_BY
    for key in arguments.overrides:
        if key in flag_of:
            raise ValueError(f"--config.{key} is set by --{flag_of[key]} in an experiment")
    switches = _switches((arguments.config or "").partition(":")[2])
    if arguments.models:
        pairs = [tuple(model.rpartition(":")[::2]) for model in arguments.models.split(",")]
    elif models and not arguments.depths:
        pairs = [(family, str(depth)) for family, depth in models]
    else:
        named = arguments.depths.split(",") if arguments.depths else []
        # The recipe names the family and the data set, whatever the depth.
        depth = {"depth": named[0]} if named else {}
        config = config_file.read(recipe, argument_of({**switches, **depth}))
        named = named or depths(replaced or dataset_name(config), arguments.full)
        pairs = [(config.model.family, str(depth)) for depth in named]
    asked = Options(
        directory.at(arguments.workdir),
        recipe,
        _networks(pairs),
        switches,
        arguments.overrides,
        data,
        arguments.seeds,
        arguments.steps,
        arguments.full,
        directory.at(arguments.runs) if arguments.runs else None,
    )
    own_data = not arguments.config and arguments.dataset in (None, dataset)
    if arguments.steps or not own_data or not (steps or arguments.full):
        return asked
    # No paper has the claim's own data set: what may be lacking there is steps.
    own: int = steps or asked.config(asked.networks[0]).steps
    return asked._replace(steps=LONGER * own if arguments.full else own)


def _recipe(arguments: command.Arguments, default: str) -> tuple[Path, str | None]:
    """Return the config file, and the name of the data set if that is not the file's own.

    A data set without a config file takes the recipe for images of its size.
    """
    if arguments.config:
        return Path(arguments.config.partition(":")[0]), arguments.dataset
    name = arguments.dataset or default
    path = CONFIGS / f"{name}.py"
    # A config file is a program: a name that leads out of the folder is no config's.
    if path.parent == CONFIGS and path.exists():
        return path, None
    height = sources.info(name, arguments.data_dir or "").shape[0]
    size = "imagenet" if height is None else "mnist" if height <= 28 else "cifar10"
    return CONFIGS / f"{size}.py", name


def _data(name: str | None, folder: str | None) -> dict[str, Any]:
    """Return the keys that the data set of this name sets, and data.dir if there is a `folder`."""
    data: dict[str, Any] = {"data.dir": folder} if folder else {}
    if name:
        info = sources.info(name, folder or "")
        data |= {"data.name": name, "model.num_classes": info.num_classes}
        if None not in info.shape:  # otherwise the recipe says to what size images are cropped
            data["data.shape"] = tuple(info.shape)
    return data


def _switches(argument: str) -> dict[str, str]:
    """Return the switches of a config's argument. Raises: ValueError for those that flags set."""
    switches = {}
    for part in filter(None, argument.split(",")):
        name, _, value = part.partition("=")
        if name in SWITCH_SET_BY:
            raise ValueError(f"{part} is set by --{SWITCH_SET_BY[name]} in an experiment")
        switches[name] = value
    return switches


def _networks(pairs: Sequence[tuple[str, ...]]) -> tuple[Network, ...]:
    """Return the networks of (family, depth as text), each once."""
    for family, depth in pairs:
        if not family:  # no colon
            usual = FAMILIES[depth].depth if depth in FAMILIES else 20
            raise ValueError(f"--models: {depth!r} is not FAMILY:DEPTH, such as {depth}:{usual}")
        if not (depth.isascii() and depth.isdecimal() and int(depth)):
            raise ValueError(f"{depth!r} is not a depth, in {family}:{depth}; give layers, as 20")
    return tuple(dict.fromkeys((family, int(depth)) for family, depth in pairs))

"""A random search over the ranges that a config file names in SEARCH.

Srivastava et al. 2015 (arXiv:1507.06228, sec. 3.1) train each network of their figure 1 with the
best of 100 draws; configs/mnist_highway_dense.py has what they searched over. Each draw is a run
of its own in WORKDIR/draw-III, by seed and number alone, so that a search can be stopped, gone on
with and prolonged.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import results
from resnet_jax import command, config_file, train
from resnet_jax import config as configs
from resnet_jax.keys import Config
from resnet_jax.run import directory, records
from resnet_jax.run.start import say


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, train the draws that are missing, and print them, best first."""
    parser = command.Parser(
        "experiments.search",
        "Train a config with values drawn at random from the ranges of its file's SEARCH, and rank "
        "the draws by their training loss over the last epoch.",
        "python -m experiments.search --config=configs/mnist_highway_dense.py:depth=50 --runs=40 "
        "--data_dir=DIR --workdir=runs/highway-50",
    )
    parser.add_config()
    parser.add_argument("--workdir", required=True, help="the folder of the search")
    parser.add_argument("--data_dir", help="tensorflow-datasets folder (data.dir)")
    parser.add_argument(
        "--runs", type=command.whole(1, 10_000), default=40, help="how many draws; each is a run"
    )
    parser.add_argument("--search_seed", type=command.whole(0), default=0, help="seed of the draws")
    arguments = parser.read(words)
    with command.refusals():
        workdir = directory.at(arguments.workdir)
        config = command.load_config(arguments, arguments.data_dir)
        config_file.refuse_other_networks(arguments.config, config)
        ranges = config_file.ranges(arguments.config)
        if not ranges:
            raise ValueError(
                f"{arguments.config} names nothing to search over; define SEARCH in it, as "
                "configs/mnist_highway_dense.py does"
            )
        if fixed := sorted(ranges.keys() & arguments.overrides.keys()):
            raise ValueError(f"--config.{fixed[0]} is what is searched over; leave it out")
        draws = [drawn(ranges, arguments.search_seed, i) for i in range(arguments.runs)]
        tried = [configs.changed(config, **values) for values in draws]
        for one in tried:
            configs.check(one)
    rows = [
        {"draw": i, **values, "loss": loss_of(one, workdir / f"draw-{i:03d}")}
        for i, (values, one) in enumerate(zip(draws, tried, strict=True))
    ]
    rows.sort(key=lambda row: math.inf if row["loss"] is None else row["loss"])
    directory.write(workdir / "search.json", json.dumps(rows, indent=2) + "\n")
    for row in rows:
        values = " ".join(f"{key}={_short(row[key])}" for key in ranges)
        loss = "diverged" if row["loss"] is None else f"training loss {row['loss']:.3g}"
        say(f"draw {row['draw']:3d}: {loss}  {values}")
    best = rows[0]
    if best["loss"] is None:
        say("all draws diverged")
    else:
        flags = " ".join(f"--config.{key}={best[key]}" for key in ranges)
        say(f"best: --config={arguments.config} {flags}")


def drawn(ranges: dict[str, Any], seed: int, number: int) -> dict[str, Any]:
    """Return the values of a draw; they depend on the seed and on the draw's number alone."""
    random = np.random.default_rng([seed, number])
    return {key: span.draw(random) for key, span in ranges.items()}


def loss_of(config: Config, workdir: directory.AnyPath) -> float | None:
    """Train, unless the run is finished, and return its training loss over the last epoch.

    A run that diverged has no loss, and is trained again if the search goes on.
    """
    with command.refusals():
        run = train.prepare(config, workdir)
    if run is not None:
        try:
            train.train(run)
        except FloatingPointError as error:
            say(f"{workdir}: {error}")
            return None
    lines = records.read(workdir / "metrics.jsonl")
    return records.last_epoch(lines, results.examples(config), config.seed)["loss"]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    command.run(main)

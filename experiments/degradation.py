"""The degradation problem: deeper plain networks train worse, residual ones do not.

He et al. 2015 (arXiv:1512.03385), Fig. 1 and Fig. 6, left and middle: on CIFAR-10 the *training*
error of plain nets rises from 20 to 56 layers (and 110 end above 60 %), that of residual nets
falls. Every network here is trained by one recipe, the deepest one's; the plain twin has the same
parameters and no skip connection (of a highway about as many a layer: it has no gates).

    python -m experiments.degradation --dataset=digits --workdir=runs/degradation      minutes
    python -m experiments.degradation --dataset=cifar10 --data_dir=DIR --full --workdir=DIR
"""

import math
from collections.abc import Sequence
from typing import Any

from etils import epath

from configs import cifar10
from experiments import sweep
from resnet_jax import command
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.families import FAMILIES
from resnet_jax.reporting import tables
from resnet_jax.training import directory

CLAIM = "Plain networks get worse on their own training data as they get deeper; residual do not."
SOURCE = "He et al. 2015, arXiv:1512.03385, Fig. 1 and 6"
RULE = (
    "on the training error of the last epoch: plain deepest - plain shallowest > max(2 pooled std, "
    "5 points), and residual deepest <= residual shallowest + max(2 pooled std, 1 point)"
)
Row = dict[str, Any]

# He et al. 2015, Table 6: test error on CIFAR-10; 110 is the mean of five.
PAPER = {"resnet-20": 0.0875, "resnet-32": 0.0751, "resnet-44": 0.0717, "resnet-56": 0.0697}
PAPER |= {"resnet-110": 0.0661, "resnet-1202": 0.0793}


def depths(dataset: str, full: bool) -> sweep.Depths:
    """The networks of the paper's figure, or few enough for minutes."""
    if full:
        return (20, 32, 44, 56, 110)
    return (8, 20, 56, 110) if dataset == "digits" else (20, 56)


def plan() -> list[sweep.Planned]:
    """Plain and residual, every depth, every seed; the seeds outermost, so that n grows evenly.

    The plain twin differs in `skip` alone. Raises: ValueError for a family that has no twin.
    """
    config = sweep.base_config()
    networks = sweep.networks(depths(config.data.name, sweep.FULL.value))
    seeds = sweep.SEEDS.value or max(config.replicas, 5 if sweep.FULL.value else 1)
    return [
        _planned(config, networks, (family, depth), plain, seed)
        for seed in sweep.first_seeds(config, seeds)
        for family, depth in networks
        for plain in (True, False)
    ]


def _planned(
    base: Config, networks: Sequence[sweep.Network], one: sweep.Network, plain: bool, seed: int
) -> sweep.Planned:
    family, depth = one
    twins = [f for f in FAMILIES if {"none", "A"} <= {*FAMILIES[f].skips}]
    if family not in twins:
        raise ValueError(
            f"{family} has no twin with or without skip connections; {', '.join(twins)} have"
        )
    deepest = max(d for f, d in networks if f == family)
    config = sweep.network_config(base, family, depth, deepest)
    config.seed = seed
    if "model.skip" in sweep.OVERRIDDEN and config.model.skip == "none":
        raise ValueError("model.skip=none is the plain twin, which is trained anyway; use A or B")
    if plain:
        config.model.skip = "none"
    elif config.model.skip == "none":
        config.model.skip = "A"
    group = groups(family)[not plain]
    model = f"{group}-{depth}"
    return sweep.Planned(model, group, config, sweep.folder(model, seed))


def groups(family: str) -> tuple[str, str]:
    """What the plain and the residual networks of a family are called in tables and figures.

    A family that was published without skip connections (VGG) has a residual twin of ours.
    """
    residual = f"residual-{family}" if FAMILIES[family].plain else family
    return ("plain" if family == "resnet" else f"plain-{family}"), residual


def judge(summary: Sequence[Row], chance: float) -> dict[str, Any]:
    """The verdict by RULE on every family: true, false, or null where this scale cannot show it.

    Of several families it holds where it holds of each, and not where it does not hold of one.
    """
    trained = {row["family"] for row in summary}
    pairs = [pair for pair in map(groups, FAMILIES) if pair[0] in trained]
    verdicts = [(pair, judge_family(summary, chance, *pair)) for pair in pairs]
    if len(verdicts) == 1:
        return verdicts[0][1]
    each = [verdict["holds"] for _, verdict in verdicts]
    holds = False if False in each else None if None in each or not each else True
    said = " ".join(f"[{pair[1]}] {verdict['says']}" for pair, verdict in verdicts)
    return {"holds": holds, "rule": RULE, "says": said or "Nothing was trained."}


def _is_plain(group: str) -> bool:
    return group.startswith("plain")


def judge_family(
    summary: Sequence[Row], chance: float, plain_group: str, group: str
) -> dict[str, Any]:
    """The verdict on one family's plain and residual networks.

    Null: fewer than two depths, or the shallowest plain net or a residual net within 2 points of
    `chance`, the error of always naming the largest class. A deep plain net at chance counts with
    its error.
    """
    verdict = lambda holds, says: {"holds": holds, "rule": RULE, "says": says}
    plain = sorted((r for r in summary if r["family"] == plain_group), key=lambda r: r["depth"])
    residual = sorted((r for r in summary if r["family"] == group), key=lambda r: r["depth"])
    if min(len(plain), len(residual)) < 2:
        return verdict(None, "Fewer than two depths were trained, so there is nothing to compare.")
    for row in (plain[0], *residual):
        if at_chance(row["train_error_mean"], chance):
            said = f"{row['model']} did not train ({_error(row)}), so the comparison means nothing."
            return verdict(None, said)
    worse = _rise(plain) > _threshold(plain, 0.05)
    kept = _rise(residual) <= _threshold(residual, 0.01)
    fewest = min(row["n"] for row in (plain[0], plain[-1], residual[0], residual[-1]))
    said = (
        f"The plain network of {plain[-1]['depth']} layers ends with a training error of "
        f"{_error(plain[-1])}, that of {plain[0]['depth']} layers with {_error(plain[0])}: depth "
        f"{'hurts' if worse else 'does not hurt'}. With skip connections {residual[-1]['depth']} "
        f"layers end with {_error(residual[-1])}, {residual[0]['depth']} with "
        f"{_error(residual[0])}: depth {'does not hurt' if kept else 'hurts'}. (n = {fewest})"
    )
    return verdict(worse and kept, said)


def _as_published(config: Config) -> bool:
    """Whether the paper's numbers are of this network, trained so: its recipe, nothing else."""
    theirs = cifar10.get_config(f"depth={config.model.depth}")
    theirs.schedule.warmup_steps = config.schedule.warmup_steps  # the deepest net's
    lines = configs.differences(config, theirs.to_dict())
    return config.steps == theirs.steps and all(
        line.startswith(("seed:", "replicas:")) for line in lines
    )


def at_chance(error: float, chance: float) -> bool:
    """Whether a network has learned nothing to speak of."""
    return error >= chance - 0.02


def _rise(rows: Sequence[Row]) -> float:
    return rows[-1]["train_error_mean"] - rows[0]["train_error_mean"]


def _threshold(rows: Sequence[Row], points: float) -> float:
    """max(2 pooled standard deviations of the two ends, points); no spread is known at n = 1."""
    spreads = [row["train_error_std"] or 0.0 for row in (rows[0], rows[-1])]
    return max(2 * math.sqrt(sum(s * s for s in spreads) / 2), points)


def _error(row: Row) -> str:
    spread = row["train_error_std"]
    return f"{row['train_error_mean']:.1%}" + (f" ± {spread:.1%}" if spread is not None else "")


def main() -> None:
    """List, run one, or run what is missing and report."""
    with command.refusals():
        runs = plan()
    if sweep.LIST.value:
        sweep.show(runs)
        return
    if sweep.RUN.value is not None:
        with command.refusals():
            runs = [sweep.chosen(runs)]
        sweep.execute(runs)
        return
    sweep.execute(runs)

    dataset = runs[0].config.data.name
    chance = directory.read_starts(runs[0].workdir)[-1]["chance_error"]
    rows = [row for planned in runs for row in sweep.results(planned)]
    for row in rows:
        row["note"] = "did not train" if at_chance(row["train_error"], chance) else None
    summary = tables.summarise(rows)
    if all(_as_published(planned.config) for planned in runs if not _is_plain(planned.group)):
        summary = [row | {"paper": PAPER.get(row["model"])} for row in summary]
    results = {
        "claim": CLAIM,
        "source": SOURCE,
        "dataset": dataset,
        "verdict": judge(summary, chance),
        "runs": rows,
        "summary": summary,
    }
    sweep.report(epath.Path(sweep.WORKDIR.value), results, runs, f"Degradation on {dataset}")


if __name__ == "__main__":
    sweep.parse(main, depths)

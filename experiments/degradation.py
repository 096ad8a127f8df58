"""The degradation problem: deeper plain networks train worse, and deeper residual networks do not.

He et al. 2015 (arXiv:1512.03385), Fig. 1 and Fig. 6, left and middle: on CIFAR-10 the *training*
error of plain networks rises from 20 to 56 layers, and with 110 layers it ends above 60 %; that of
residual networks falls. All networks are trained by one recipe, the deepest network's. The plain
twin of a residual network has no skip connections and as many parameters, if the shortcuts have
none (option A, which CIFAR's networks and imagenet_18_34.py have); projections are left out of it.
(The plain twin of a highway network has no gates, and wider layers instead.)

    python -m experiments.degradation --dataset=digits --workdir=runs/degradation      minutes
    python -m experiments.degradation --dataset=cifar10 --data_dir=DIR --full --workdir=DIR
"""

import math
from collections.abc import Sequence

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, scores
from resnet_jax import command
from resnet_jax.families import FAMILIES
from resnet_jax.reporting.tables import summarise

RULE = (
    "on the training error of the last epoch: plain deepest - plain shallowest > max(2 pooled std, "
    "5 points), and residual deepest <= residual shallowest + max(2 pooled std, 1 point)"
)
# He et al. 2015, Table 6: test error on CIFAR-10; 110 is the mean of five.
PAPER = {"resnet-20": 0.0875, "resnet-32": 0.0751, "resnet-44": 0.0717, "resnet-56": 0.0697}
PAPER |= {"resnet-110": 0.0661, "resnet-1202": 0.0793}


def depths(dataset: str, full: bool) -> tuple[int, ...]:
    """Return the depths of the paper's figure, or few enough for minutes."""
    if full:
        return (20, 32, 44, 56, 110)
    return (8, 20, 56, 110) if dataset == "digits" else (20, 56)


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network of every depth, with every seed.

    The twins differ in `skip` alone. The seeds are the outermost loop, so that n grows evenly.
    Raises: ValueError for a family that has no twin.
    """
    if options.switches.get("skip") == "none":
        raise ValueError("skip=none is the plain twin, which is trained anyway; use skip=A or B")
    return [
        options.run(f"{group}-{network[1]}", network, seed, group=group, switches={"skip": skip})
        for seed in options.seeds(5 if options.full else 1)
        for network in options.networks
        for group, skip in zip(groups(network[0]), ("none", kept(options, network)), strict=True)
    ]


def kept(options: Options, network: tuple[str, int]) -> str:
    """Return the skip of the residual network: the recipe's, or A if the recipe's is plain."""
    skip = options.config(network).model.skip
    return "A" if skip == "none" else skip


def groups(family: str) -> tuple[str, str]:
    """Return what the plain and the residual networks of a family are called.

    A family that was published without skip connections (VGG) has a residual twin of ours.
    """
    known = FAMILIES.get(family)
    residual = f"residual-{family}" if known is not None and known.plain else family
    return ("plain" if family == "resnet" else f"plain-{family}"), residual


def measure(run: Run) -> list[Row]:
    """Return the errors of a run, with a note if it has learned nothing."""
    learned = lambda row: not at_chance(row["train_error"], row["chance_error"])
    return [row | {"note": None if learned(row) else "did not train"} for row in scores(run)]


def judge(rows: Sequence[Row]) -> Verdict:
    """Apply RULE to every family.

    The claim holds of several families if it holds of each; it does not hold if it fails for one.
    """
    summary = summarise(rows)
    trained = {row["family"] for row in summary}
    pairs = [pair for pair in map(groups, FAMILIES) if pair[0] in trained]
    chance = max((row["chance_error"] for row in rows), default=1.0)
    verdicts = [judge_family(summary, chance, *pair) for pair in pairs]
    if len(verdicts) == 1:
        return verdicts[0]
    each = [verdict.holds for verdict in verdicts]
    holds = False if False in each else None if None in each or not each else True
    says = [f"[{pair[1]}] {verdict.says}" for pair, verdict in zip(pairs, verdicts, strict=True)]
    return Verdict(holds, " ".join(says) or "No plain network and its residual twin were trained.")


def judge_family(summary: Sequence[Row], chance: float, plain_group: str, group: str) -> Verdict:
    """Apply RULE to one family's plain and residual networks.

    The verdict is None if there are fewer than two depths, and if the shallowest plain network or a
    residual network has learned nothing. A deep plain network at chance counts with its error.
    """
    plain = sorted((r for r in summary if r["family"] == plain_group), key=lambda r: r["depth"])
    residual = sorted((r for r in summary if r["family"] == group), key=lambda r: r["depth"])
    if min(len(plain), len(residual)) < 2:
        return Verdict(None, "Fewer than two depths were trained, so nothing can be compared.")
    for row in (plain[0], *residual):
        if at_chance(row["train_error_mean"], chance):
            said = f"{row['model']} did not train ({error(row)}), so the comparison means nothing."
            return Verdict(None, said)
    hurts, hurts_residual = rises(plain, 0.05), rises(residual, 0.01)
    fewest = min(row["n"] for row in (plain[0], plain[-1], residual[0], residual[-1]))
    words = {True: "hurts", False: "does not hurt"}
    said = (
        f"The plain network of {plain[-1]['depth']} layers ends with a training error of "
        f"{error(plain[-1])}, that of {plain[0]['depth']} layers with {error(plain[0])}: depth "
        f"{words[hurts]}. With skip connections {residual[-1]['depth']} layers end with "
        f"{error(residual[-1])}, {residual[0]['depth']} with {error(residual[0])}: depth "
        f"{words[hurts_residual]}. (n = {fewest})"
    )
    return Verdict(hurts and not hurts_residual, said)


def at_chance(train_error: float, chance: float) -> bool:
    """Return whether a network is within 2 points of always naming the largest class."""
    return train_error >= chance - 0.02


def rises(rows: Sequence[Row], points: float) -> bool:
    """Return whether the training error rises by more than max(2 pooled std, points).

    It is the deepest network's error less the shallowest's; with one seed the std counts as 0.
    """
    ends = rows[0], rows[-1]
    pooled = math.sqrt(sum((row["train_error_std"] or 0.0) ** 2 for row in ends) / 2)
    return ends[1]["train_error_mean"] - ends[0]["train_error_mean"] > max(2 * pooled, points)


def error(row: Row) -> str:
    """Return the training error of a network in words."""
    deviation = row["train_error_std"]
    return f"{row['train_error_mean']:.1%}" + (
        f" ± {deviation:.1%}" if deviation is not None else ""
    )


CLAIM = Claim(
    name="degradation",
    says="Plain networks get worse on their own training data as they get deeper; residual "
    "networks do not.",
    source="He et al. 2015, arXiv:1512.03385, Fig. 1 and 6",
    rule=RULE,
    plan=plan,
    measure=measure,
    judge=judge,
    depths=depths,
    recipe="cifar10",
    published=PAPER,
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

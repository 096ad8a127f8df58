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

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, scores
from experiments.rows import NEAR_CHANCE, by_depth, learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, interaction, no_rise, rises
from resnet_jax.families import FAMILIES
from resnet_jax.reporting import points

SAYS = (
    "Plain networks get worse on their own training data as they get deeper; residual networks do "
    "not."
)
RULE = (
    "the {column} of the last epoch, as a line in log2(depth) through all depths for each seed, "
    "rises by more than {margin} from the shallowest to the deepest plain network, and by less "
    "than {margin} from the shallowest to the deepest residual network, and the first rise exceeds "
    "the second of the same seed by more than {margin}: one-sided t tests over seeds, p < 0.01 for "
    "each of the three. Not decided if the shallowest plain or a residual network is at chance"
)
# He et al. 2015, Table 6: test error on CIFAR-10; 110 is the mean of five.
PAPER = {"resnet-20": 0.0875, "resnet-32": 0.0751, "resnet-44": 0.0717, "resnet-56": 0.0697}
PAPER |= {"resnet-110": 0.0661, "resnet-1202": 0.0793}


def depths(dataset: str, full: bool) -> tuple[int, ...]:
    """Return the depths of the paper's figure, or few enough for minutes."""
    if full:
        return (20, 32, 44, 56, 110)
    return (8, 20, 56) if dataset == "digits" else (20, 56)


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network of every depth, with every seed.

    The twins differ in `skip` alone. The seeds are the outermost loop, so that n grows evenly.
    Raises: ValueError for a family that has no twin, and for a family with one depth.
    """
    if options.switches.get("skip") == "none":
        raise ValueError("skip=none is the plain twin, which is trained anyway; use skip=A or B")
    options.refuse_one_depth()
    return [
        options.run(f"{group}-{network[1]}", network, seed, group=group, switches={"skip": skip})
        for seed in options.seeds(5 if options.full else 3)
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
    rows = scores(run)
    idle = lambda row: row["train_error"] >= row["chance_error"] - NEAR_CHANCE
    return [
        row | {"note": "did not train"} if idle(row) and "note" not in row else row for row in rows
    ]


def judge(column: str, margin: float, rows: Sequence[Row]) -> Verdict:
    """Apply RULE to every family: the claim holds of several families if it holds of each."""
    trained = {row["family"] for row in rows}
    pairs = [pair for pair in map(groups, FAMILIES) if pair[0] in trained]
    verdicts = [judge_family(column, margin, rows, *pair) for pair in pairs]
    if len(verdicts) == 1:
        return verdicts[0]
    says = " ".join(f"[{pair[1]}] {v.says}" for pair, v in zip(pairs, verdicts, strict=True))
    tests = [verdict.test for verdict in verdicts if verdict.test is not None]
    if not tests or len(tests) < len(verdicts):
        refuted = any(verdict.holds is False for verdict in verdicts)
        return Verdict(False if refuted else None, says or "No plain network has its twin.")
    return Verdict.of(every(*tests), says)


def judge_family(column: str, margin: float, rows: Sequence[Row], flat: str, group: str) -> Verdict:
    """Apply RULE to the plain (`flat`) and the residual networks of one family."""
    plain, residual = (by_depth(rows, column, family=name) for name in (flat, group))
    if min(len(plain), len(residual)) < 2:
        return Verdict(None, "Fewer than two depths were trained, so nothing can be compared.")
    compared = [*where(rows, family=flat, depth=min(plain)), *where(rows, family=group)]
    if idle := learned_nothing(compared):
        return Verdict(None, idle)
    tests = rises(plain, margin), no_rise(residual, margin), interaction(plain, residual, margin)
    shown = ".1%" if column.endswith("error") else ".3f"
    ends = lambda arm: f"{fmean(arm[min(arm)]):{shown}} to {fmean(arm[max(arm)]):{shown}}"
    test = every(*tests)
    says = (
        f"From {min(plain)} to {max(plain)} layers the {column.replace('_', 'ing ')} of plain "
        f"networks goes from {ends(plain)} (fitted rise {tests[0].effect:{shown}}), that of "
        f"residual networks from {ends(residual)} (fitted rise {tests[1].effect:{shown}})."
    )
    # The index shows the effect of the skip connection, whichever of the tests decided.
    shown_test = test._replace(effect=tests[2].effect, interval=tests[2].interval)
    return Verdict.of(shown_test, says)


def control(rows: Sequence[Row]) -> list[Row]:
    """Return the residual networks, and the same networks again in the place of the plain ones."""
    pairs = [groups(family) for family in FAMILIES]
    residual = [(flat, where(rows, family=group)) for flat, group in pairs]
    return [row for flat, own in residual for row in (*own, *relabelled(own, family=flat))]


def depth(rows: list[Row]):
    """Draw the training error against the depth, each seed a point."""
    return points.figure(rows, "depth", "train_error", ".0%")


AGAINST = "the residual networks in the place of the plain ones"
ERROR, LOSS = partial(judge, "train_error", 0.05), partial(judge, "train_loss", 0.1)
CLAIM = Claim(
    name="degradation",
    says=SAYS,
    source="He et al. 2015, arXiv:1512.03385, Fig. 1 and 6",
    rule=RULE.format(column="training error", margin="5 points"),
    plan=plan,
    measure=measure,
    judge=ERROR,
    depths=depths,
    recipe="cifar10",
    published=PAPER,
    figures=(depth,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "degradation_of_the_loss",
            SAYS.replace("worse on", "a higher loss on"),
            "He et al. 2015, arXiv:1512.03385, sec. 4.1 (they show errors)",
            RULE.format(column="training loss", margin="0.1 nats"),
            LOSS,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

"""The degradation problem: deeper plain networks train worse, and deeper residual networks do not.

He et al. 2015 (arXiv:1512.03385), Fig. 1 and Fig. 6, left and middle: on CIFAR-10 the *training*
error of plain networks rises from 20 to 56 layers, and with 110 layers their error ends above 60 %;
that of residual networks falls. All networks are trained by one recipe, the deepest network's, so
that the verdict is about this rate: configs/digits.py has one at which plain networks of 56 layers
no longer fit. `best_rates` gives each network the best of three rates, and
`--config.optimizer.learning_rate` gives all networks another.

    python -m experiments.degradation --dataset=digits --workdir=runs/degradation      minutes
    python -m experiments.degradation --dataset=cifar10 --data_dir=DIR --full --workdir=DIR
"""

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim, twins
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row, scores
from experiments.rows import by_depth, learned_nothing, noted, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, interaction, no_rise, rises
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
    """Return the plain and the residual networks of every depth, with every seed.

    Raises: ValueError for a family that has no twin, and for a family with one depth.
    """
    runs = twins.runs(options, 5)
    options.refuse_one_depth()
    return runs


def measure(run: Run) -> list[Row]:
    """Return the scores of a run, with a note if it has learned nothing."""
    return noted(scores(run))


def judge(column: str, margin: float, rows: Sequence[Row]) -> Verdict:
    """Apply RULE to every family: the claim holds of several families if it holds of each."""
    return Verdict.of_each(
        {pair[1]: judge_family(column, margin, rows, *pair) for pair in twins.pairs(rows)}
    )


def judge_family(column: str, margin: float, rows: Sequence[Row], *arms: str) -> Verdict:
    """Apply RULE to one family; `arms` are what its plain and its residual networks are called."""
    plain, residual = (by_depth(rows, column, arm=arm) for arm in arms)
    if len(plain) < 2 or plain.keys() != residual.keys():
        return Verdict(None, "There are no two depths of both arms, so nothing can be compared.")
    shallowest, deepest = min(plain), max(plain)
    compared = [*where(rows, arm=arms[0], depth=shallowest), *where(rows, arm=arms[1])]
    if idle := learned_nothing(compared):
        return Verdict(None, idle)
    tests = rises(plain, margin), no_rise(residual, margin), interaction(plain, residual, margin)
    shown = "z.1%" if column == "train_error" else "z.3f"
    of_plain, of_residual = (
        f"from {fmean(arm[shallowest]):{shown}} to {fmean(arm[deepest]):{shown}} (fitted rise "
        f"{test.effect:{shown}})"
        for arm, test in zip((plain, residual), tests[:2], strict=True)
    )
    says = (
        f"From {shallowest} to {deepest} layers the training {column.removeprefix('train_')} of "
        f"plain networks goes {of_plain}, and that of residual networks {of_residual}; the first "
        f"rise exceeds the second by {tests[2].effect:{shown}}."
    )
    test = every(*tests)
    if test.holds is not False:  # the effect is that of the skip connection, whichever test decides
        test = test._replace(effect=tests[2].effect, interval=tests[2].interval)
    return Verdict.of(test, says)


def training_error_by_depth(rows: Sequence[Row]) -> Figure:
    """Draw the training error against the depth, each seed a point."""
    return points.figure(rows, "depth", "train_error", ".0%")


CLAIM = Claim(
    name="degradation",
    says=SAYS,
    source="He et al. 2015, arXiv:1512.03385, Fig. 1 and 6",
    rule=RULE.format(column="training error", margin="5 points"),
    plan=plan,
    measure=measure,
    judge=partial(judge, "train_error", 0.05),
    depths=depths,
    recipe="cifar10",
    published=PAPER,
    figures=(training_error_by_depth,),
    control=twins.residual_for_plain,
    against=twins.AGAINST,
    further=(
        Statement(
            name="degradation_of_the_loss",
            says=SAYS.replace("worse on", "a higher loss on"),
            source="He et al. 2015, arXiv:1512.03385, sec. 4.1 (they show errors)",
            rule=RULE.format(column="training loss", margin="0.1 nats"),
            judge=partial(judge, "train_loss", 0.1),
            control=twins.residual_for_plain,
            against=twins.AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

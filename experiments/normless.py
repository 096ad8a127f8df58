"""Deep networks need no norm to train if they have skip connections.

Zhang et al. 2019 (arXiv:1901.09321, "Fixup"), De & Smith 2020 (arXiv:2002.10444, SkipInit) and
Bachlechner et al. 2020 (arXiv:2003.04887, ReZero) train deep residual networks by bodies that start
at or near zero, the first two without any norm. The plain network has the norm and no skip
connection. The other arms are shown beside them: a skip connection alone, both, and neither.

Each arm has the better of two rates. They follow from a pilot of one seed, with which Fixup ended
at training errors of 87, 63, 41 and 90 %, and SkipInit at 81, 54, 1 % and a loss that is not
finite, at the rates 0.003, 0.01, 0.03 and 0.1. Networks with norms are best at 0.1.

    python -m experiments.normless --workdir=runs/normless
"""

from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

MARGIN = 0.05
RATES = (0.03, 0.1)
BARE = {"skip": "A", "norm": "none"}
NORMLESS = {
    "fixup": {**BARE, "block": "fixup_basic"},
    "skipinit": {**BARE, "merge": "rezero"},
}
ARMS = {
    "skip-and-norm": {"skip": "A"},
    "norm-alone": {"skip": "none"},
    "skip-alone": BARE,
    "neither": {"skip": "none", "norm": "none"},
    "rezero-with-norm": {"skip": "A", "merge": "rezero"},
    **NORMLESS,
}


def plan(options: Options) -> list[Run]:
    """Return every arm. Raises: ValueError for several networks."""
    options.refuse_several()
    return rates.arms(options, ARMS, RATES, 5)


def judge(rows: list[Row]) -> Verdict:
    """Test whether the normless residual networks train better than the plain one with norms."""
    rows = rates.best(rows)
    if idle := learned_nothing(where(rows, arm="skip-and-norm")):
        return Verdict(None, idle)
    plain = sample(rows, "train_error", arm="norm-alone")
    errors = {name: sample(rows, "train_error", arm=name) for name in NORMLESS}
    normed = sample(rows, "train_error", arm="skip-and-norm")
    test = every(
        *(larger(plain, of, MARGIN) for of in errors.values()),
        *(no_worse(of, normed, MARGIN) for of in errors.values()),
    )
    names = dict.fromkeys(row["arm"] for row in rows)
    mean = lambda name: fmean(sample(rows, "train_error", arm=name))
    said = ", ".join(f"{name.replace('-', ' ')} {mean(name):.1%}" for name in names)
    return Verdict.of(test, f"Training errors: {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the plain network without norms in the place of Fixup and SkipInit."""
    neither = where(rows, arm="neither")
    kept = where(rows, arm="norm-alone") + where(rows, arm="skip-and-norm")
    return kept + [row for name in NORMLESS for row in relabelled(neither, arm=name, model=name)]


def training_error(rows: list[Row]):
    """Draw the training error of each arm at its better rate."""
    return points.by_group(rates.best(rows), "train_error", ".0%")


CLAIM = Claim(
    name="normless",
    says="Deep residual networks need no norm to train: without any norm, those whose bodies start "
    "at zero train better than a plain network with batch norm, and as well as a residual one.",
    source="Zhang et al. 2019, arXiv:1901.09321; De & Smith 2020, arXiv:2002.10444",
    rule="each arm at the rate, 0.03 or 0.1, with the least mean training loss: the training error "
    "of the plain network with batch norm exceeds that of the residual networks without norm, "
    "Fixup and SkipInit, by more than 5 points each, and these exceed that of the residual network "
    "with norm by less than 5 points: one-sided Welch tests over seeds, p < 0.01 for each of the "
    "four. Not decided if the residual network with norm is at chance",
    plan=plan,
    measure=rates.measured,
    judge=judge,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(training_error,),
    control=control,
    against="the plain network without norms in the place of Fixup and SkipInit",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

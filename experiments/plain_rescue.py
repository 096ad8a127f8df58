"""Plain networks can be rescued: deep networks train without skip connections and without norms.

This is evidence against the thesis that depth needs skip connections. Xiao et al. 2018
(arXiv:1806.05393) train plain tanh networks of up to 10,000 layers from a delta-orthogonal start.
Zhang et al. 2022 (arXiv:2203.08120) tailor the slope of a leaky ReLU to the depth (TAT), and train
plain networks about as well as residual ones, with more steps. Balduzzi et al. 2017
(arXiv:1702.08591) start plain ReLU networks so that they look linear. None of the three needs a
norm.

Each arm has the best of three learning rates; in a pilot of one seed each of the rescues was best
at the first or the second of them. The papers report that a rescue costs steps; --full trains all
arms for three times the steps.

    python -m experiments.plain_rescue --workdir=runs/plain_rescue
"""

from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

MARGIN = 0.1
RATES = (0.003, 0.01, 0.03)
BARE = {"skip": "none", "norm": "none", "model.kernel_start": "delta_orthogonal"}
RESCUED = {
    "orthogonal-tanh": {**BARE, "model.activation": "tanh"},
    "tat": {**BARE, "model.activation": "tat"},
}
LINEAR = {"looks-linear": {**BARE, "model.kernel_start": "looks_linear"}}
USUAL = {
    "residual": {"skip": "A"},
    "plain": {"skip": "none"},
    "plain-without-norm": {"skip": "none", "norm": "none"},
}


def plan(options: Options) -> list[Run]:
    """Return every arm at one depth. Raises: ValueError for several networks."""
    options.refuse_several()
    return rates.arms(options, USUAL | RESCUED | LINEAR, RATES, 5)


def judge(rows: list[Row]) -> Verdict:
    """Test whether both rescued networks train to within the margin of the residual network."""
    chosen = rates.best(rows)
    if idle := learned_nothing(where(chosen, arm="residual")):
        return Verdict(None, idle)
    names = [*USUAL, *RESCUED]
    of = {name: sample(chosen, "train_error", arm=name) for name in names}
    tests = [no_worse(of[name], of["residual"], MARGIN) for name in RESCUED]
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    return Verdict.of(every(*tests), f"Training errors: {said}.")


def rescue(rows: list[Row]) -> Verdict:
    """Test whether both rescues lower the training error of the network without norm."""
    chosen = rates.best(rows)
    bare = sample(chosen, "train_error", arm="plain-without-norm")
    of = {name: sample(chosen, "train_error", arm=name) for name in RESCUED}
    test = every(*(larger(bare, own, MARGIN) for own in of.values()))
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    return Verdict.of(test, f"Training errors: usual start {fmean(bare):.1%}, {said}.")


def linear(rows: list[Row]) -> Verdict:
    """Test whether the looks-linear network trains to within the margin of the residual network."""
    chosen = rates.best(rows)
    if idle := learned_nothing(where(chosen, arm="residual")):
        return Verdict(None, idle)
    names = ("residual", "plain-without-norm", *LINEAR)
    of = {name: sample(chosen, "train_error", arm=name) for name in names}
    test = no_worse(of["looks-linear"], of["residual"], MARGIN)
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    return Verdict.of(test, f"Training errors: {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the usual start without norm in the place of all rescues."""
    bare = where(rows, arm="plain-without-norm")
    kept = [row for row in rows if row["arm"] in USUAL]
    rescues = (*RESCUED, *LINEAR)
    return kept + [row for name in rescues for row in relabelled(bare, arm=name)]


def training_error(rows: list[Row]):
    """Draw the training error of each arm at its best rate."""
    return points.by_group(rates.best(rows), "train_error", ".0%")


BEST = "each arm at the rate, 0.003, 0.01 or 0.03, with the least mean training loss"
AGAINST = "the network without norm and with the usual start in the place of both"
XIAO, ZHANG = "Xiao et al. 2018, arXiv:1806.05393", "Zhang et al. 2022, arXiv:2203.08120"
CLAIM = Claim(
    name="plain_rescue",
    says="Plain networks can be rescued: from a delta-orthogonal start with tanh, or with a "
    "tailored leaky ReLU, they train as well as residual networks.",
    source=f"{XIAO}; {ZHANG}",
    rule=f"{BEST}: the training errors of the delta-orthogonal tanh network and of the TAT network "
    "each exceed the residual network's by less than 10 points: non-inferiority tests over seeds, "
    "p < 0.01 for both. Not decided if the residual network is at chance",
    plan=plan,
    measure=rates.measured,
    judge=judge,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(training_error,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "plain_rescue_against_the_usual_start",
            "A delta-orthogonal start with tanh and a tailored leaky ReLU each let a plain network "
            "without norm train better than from the usual start.",
            f"{XIAO}; {ZHANG}",
            f"{BEST}: the training error from the usual start, without norm, exceeds each of the "
            "two by more than 10 points: one-sided Welch tests over seeds, p < 0.01 for both",
            rescue,
            control,
            AGAINST,
        ),
        Statement(
            "looks_linear_rescue",
            "A plain ReLU network without norm that starts as a linear map trains as well as a "
            "residual network.",
            "Balduzzi et al. 2017, arXiv:1702.08591, sec. 4",
            f"{BEST}: the training error of the looks-linear network exceeds the residual "
            "network's by less than 10 points: non-inferiority test over seeds, p < 0.01. Not "
            "decided if the residual network is at chance",
            linear,
            control,
            "the network without norm and with the usual start in its place",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

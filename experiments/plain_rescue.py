"""Plain networks can be rescued: deep networks train without skip connections and without norms.

This is evidence against the thesis that depth needs skip connections. Xiao et al. 2018
(arXiv:1806.05393) train plain tanh networks of up to 10,000 layers from a delta-orthogonal start.
Zhang et al. 2022 (arXiv:2203.08120) tailor the slope of a leaky ReLU to the depth (TAT), and train
plain networks about as well as residual ones, with more steps. Both need no norm.

The rescued networks also train for three times the steps, at the smaller of the two learning rates,
because the papers report that a rescue costs steps. All other arms have the better of both rates.

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

MARGIN, LONGER = 0.1, 3
RATES = (0.01, 0.03)
BARE = {"skip": "none", "norm": "none", "model.kernel_start": "delta_orthogonal"}
RESCUED = {
    "orthogonal-tanh": {**BARE, "model.activation": "tanh"},
    "tat": {**BARE, "model.activation": "tat"},
}
USUAL = {
    "residual": {"skip": "A"},
    "plain": {"skip": "none"},
    "plain-without-norm": {"skip": "none", "norm": "none"},
}


def plan(options: Options) -> list[Run]:
    """Return every arm at one depth, and the rescued ones with three times the steps.

    Raises: ValueError for several networks.
    """
    network, *others = options.networks
    if others:
        raise ValueError("the claim compares networks of one depth; give one network")
    steps = LONGER * options.config(network).steps
    longer = {f"{name}-3x": arm for name, arm in RESCUED.items()}
    return [
        *rates.arms(options, USUAL | RESCUED, RATES, 5),
        *rates.arms(options, longer, RATES[:1], 5, steps),
    ]


def judge(suffix: str, rows: list[Row]) -> Verdict:
    """Test whether a rescued network trains to within the margin of the residual network."""
    chosen = rates.best(rows)
    if idle := learned_nothing(where(chosen, family="residual")):
        return Verdict(None, idle)
    names = dict.fromkeys(row["family"] for row in rows)
    of = {name: sample(chosen, "train_error", family=name) for name in names}
    tests = [no_worse(of[name + suffix], of["residual"], MARGIN) for name in RESCUED]
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    return Verdict.of(every(*tests), f"Training errors: {said}.")


def at_once(rows: list[Row]) -> Verdict:
    """Test whether rescued networks train as well in as many steps."""
    return judge("", rows)


def in_time(rows: list[Row]) -> Verdict:
    """Test whether rescued networks train as well in three times the steps."""
    return judge("-3x", rows)


def rescue(rows: list[Row]) -> Verdict:
    """Test whether both rescues lower the training error of the network without norm."""
    chosen = rates.best(rows)
    bare = sample(chosen, "train_error", family="plain-without-norm")
    of = {name: sample(chosen, "train_error", family=name) for name in RESCUED}
    test = every(*(larger(bare, own, MARGIN) for own in of.values()))
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    return Verdict.of(test, f"Training errors: usual start {fmean(bare):.1%}, {said}.")


def control(rows: list[Row]) -> list[Row]:
    """Return the usual start without norm in the place of both rescues, at both lengths."""
    bare = where(rows, family="plain-without-norm")
    kept = [row for row in rows if row["family"] in USUAL]
    names = [name + suffix for name in RESCUED for suffix in ("", "-3x")]
    return kept + [row for name in names for row in relabelled(bare, family=name)]


def training_error(rows: list[Row]):
    """Draw the training error of each arm at its best rate."""
    return points.by_group(rates.best(rows), "train_error", ".0%")


BEST = "each arm at the rate, 0.01 or 0.03, with the least mean training loss"
RULE = (
    f"{BEST}: the training errors of the delta-orthogonal tanh network and of the TAT network{{}} "
    "each exceed the residual network's by less than 10 points: non-inferiority tests over seeds, "
    "p < 0.01 for both. Not decided if the residual network is at chance"
)
AGAINST = "the network without norm and with the usual start in the place of both"
XIAO, ZHANG = "Xiao et al. 2018, arXiv:1806.05393", "Zhang et al. 2022, arXiv:2203.08120"
CLAIM = Claim(
    name="plain_rescue",
    says="Plain networks can be rescued: from a delta-orthogonal start with tanh, or with a "
    "tailored leaky ReLU, they train as well as residual networks, in three times the steps.",
    source=f"{XIAO}; {ZHANG}",
    rule=RULE.format(", which train for three times the steps at a rate of 0.01,"),
    plan=plan,
    measure=rates.measured,
    judge=in_time,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(training_error,),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "plain_rescue_in_as_many_steps",
            "Rescued plain networks train as well as residual networks in as many steps.",
            f"{ZHANG} (they need more steps)",
            RULE.format(""),
            at_once,
            control,
            AGAINST,
        ),
        Statement(
            "plain_rescue_against_the_usual_start",
            "A delta-orthogonal start with tanh and a tailored leaky ReLU each let a plain network "
            "without norm train that does not from the usual start.",
            f"{XIAO}; {ZHANG}",
            f"{BEST}: the training error from the usual start, without norm, exceeds each of the "
            "two by more than 10 points: one-sided Welch tests over seeds, p < 0.01 for both",
            rescue,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

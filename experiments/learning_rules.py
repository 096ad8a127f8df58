"""Residual networks learn without weight transport: by the signs of their weights.

Back-propagation needs the weights of the way forward on the way back, which neurons cannot know.
Xiao et al. 2018 (arXiv:1811.03567), Table 1, from memory: ResNet-18 on ImageNet has a top-1 error
of 30.2 % with back-propagation, 37.9 % with sign-symmetry and 90.5 % with feedback alignment. The
three rules are in resnet_jax/models/feedback.py. The classifier and the norms learn by
back-propagation. Each rule has the best of three learning rates.

    python -m experiments.learning_rules --workdir=runs/learning_rules
"""

from statistics import fmean

from experiments import claim, rates
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import larger, no_worse
from resnet_jax.reporting import points

MARGIN = 0.1
RATES = (0.003, 0.01, 0.03)
ARMS = {
    "back-propagation": {"skip": "A"},
    "sign-symmetry": {"skip": "A", "model.feedback": "signs"},
    "feedback-alignment": {"skip": "A", "model.feedback": "random"},
}


def plan(options: Options) -> list[Run]:
    """Return a network for each rule and rate. Raises: ValueError for several networks."""
    options.refuse_several()
    return rates.arms(options, ARMS, RATES, 5)


def errors(rows: list[Row]) -> dict[str, list[float]]:
    """Return the test errors of each rule at its best rate."""
    chosen = rates.best(rows)
    return {name: sample(chosen, "test_error", arm=name) for name in ARMS}


def told(of: dict[str, list[float]]) -> str:
    """Return the mean test error of each rule, in words."""
    said = ", ".join(f"{name.replace('-', ' ')} {fmean(own):.1%}" for name, own in of.items())
    return f"Test errors: {said}."


def signs(rows: list[Row]) -> Verdict:
    """Test whether sign-symmetry has nearly the test error of back-propagation."""
    if idle := learned_nothing(where(rates.best(rows), arm="back-propagation")):
        return Verdict(None, idle)
    of = errors(rows)
    return Verdict.of(no_worse(of["sign-symmetry"], of["back-propagation"], MARGIN), told(of))


def alignment(rows: list[Row]) -> Verdict:
    """Test whether feedback alignment has a much higher test error than back-propagation."""
    if idle := learned_nothing(where(rates.best(rows), arm="back-propagation")):
        return Verdict(None, idle)
    of = errors(rows)
    return Verdict.of(larger(of["feedback-alignment"], of["back-propagation"], MARGIN), told(of))


def at_chance(rows: list[Row]) -> list[Row]:
    """Return networks that learned nothing in the place of those of sign-symmetry."""
    own = where(rows, arm="sign-symmetry")
    chance = [row | {"test_error": row["chance_error"]} for row in own]
    return [row for row in rows if row["arm"] != "sign-symmetry"] + chance


def equal_rules(rows: list[Row]) -> list[Row]:
    """Return back-propagation in the place of both other rules."""
    own = where(rows, arm="back-propagation")
    return [row for name in ARMS for row in relabelled(own, arm=name)]


def test_error(rows: list[Row]):
    """Draw the test error of each rule at its best rate."""
    return points.by_group(rates.best(rows), "test_error", ".0%")


XIAO = "Xiao et al. 2018, arXiv:1811.03567, Table 1"
RULE = (
    "each rule at the rate, 0.003, 0.01 or 0.03, with the least mean training loss: the test error "
    "of {} exceeds that of back-propagation by {} than 10 points: one-sided Welch test over seeds, "
    "p < 0.01. Not decided if back-propagation is at chance"
)
CLAIM = Claim(
    name="learning_rules",
    says="A residual network learns by sign-symmetry nearly as well as by back-propagation.",
    source=XIAO,
    rule=RULE.format("sign-symmetry", "less"),
    plan=plan,
    measure=rates.measured,
    judge=signs,
    depths=lambda dataset, full: (56,) if full else (20,),
    figures=(test_error,),
    control=at_chance,
    against="networks that learned nothing in the place of those of sign-symmetry",
    further=(
        Statement(
            "feedback_alignment",
            "A residual network learns much less by feedback alignment than by back-propagation.",
            XIAO,
            RULE.format("feedback alignment", "more"),
            alignment,
            equal_rules,
            "back-propagation in the place of feedback alignment",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

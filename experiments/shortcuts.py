"""What a shortcut may be: the identity, a projection, or a path that is scaled, gated or dropped.

He et al. 2015 (arXiv:1512.03385), Table 3: ResNet-34 has a top-1 error of 25.03, 24.52 and 24.19 %
with the options A (zeros for new channels), B (projections where the shape changes) and C (all
projections); the plain network has 28.54 %. He et al. 2016 (arXiv:1603.05027), Table 1: in
ResNet-110 whatever multiplies the shortcut raises the test error, and so does option C (12.22 %
against 6.61 %), which contradicts the first statement for deep networks. It is the test error that
is judged here, too: with dropout on the shortcut, the training error is that of a damaged network.
All shortcuts have one learning rate in both papers, and here without --full.

    python -m experiments.shortcuts --workdir=runs/shortcuts
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

MARGIN = 0.02
# He et al. 2016, Table 1: what stands on the shortcut instead of the identity. The exclusive gate
# has the best bias of the table. The shortcut-only gate has 0 (12.86 %) and not -6 (6.91 %), with
# which the shortcut starts as nearly the identity.
TABLE_1 = {
    "scaled-0.5": {"merge": "add", "model.gains": (0.5, 0.5)},
    "shortcut-0.5": {"merge": "add", "model.gains": (0.5, 1.0)},
    "exclusive-gate": {"merge": "exclusive_gate", "model.gate_bias": -6.0},
    "shortcut-gate": {"merge": "shortcut_gate", "model.gate_bias": 0.0},
    "dropout": {"model.skip_dropout": 0.5},
}
ARMS = {"plain": {"skip": "none"}, "A": {"skip": "A"}, "B": {"skip": "B"}, "C": {"skip": "C"}}
ARMS |= {name: {"skip": "A", **arm} for name, arm in TABLE_1.items()}


def plan(options: Options) -> list[Run]:
    """Return every arm. Raises: ValueError for several networks."""
    options.refuse_several()
    return rates.repeated_if_full(options, lambda options: options.arms(ARMS))


def alike(rows: list[Row]) -> Verdict:
    """Test whether options A, B and C end with test errors within the margin."""
    rows = rates.best(rows)
    if idle := learned_nothing([row for row in rows if row["arm"] in "ABC"]):
        return Verdict(None, idle)
    errors = {name: sample(rows, "test_error", arm=name) for name in "ABC"}
    pairs = [(a, b) for a in "ABC" for b in "ABC" if a != b]
    test = every(*(no_worse(errors[a], errors[b], MARGIN) for a, b in pairs))
    said = ", ".join(f"{name} {fmean(of):.1%}" for name, of in errors.items())
    return Verdict.of(test, f"Test errors: {said}.")


def harder(rows: list[Row]) -> Verdict:
    """Test whether everything of Table 1 ends with a higher test error than the identity."""
    rows = rates.best(rows)
    identity = where(rows, arm="A")
    if idle := learned_nothing(identity):
        return Verdict(None, idle)
    kept = [row["test_error"] for row in identity]
    errors = {name: sample(rows, "test_error", arm=name) for name in TABLE_1}
    test = every(*(larger(of, kept, 0.0) for of in errors.values()))
    said = ", ".join(f"{name} {fmean(of):.1%}" for name, of in errors.items())
    return Verdict.of(test, f"Test errors: identity {fmean(kept):.1%}; {said}.")


def without(rows: list[Row]) -> list[Row]:
    """Return the plain network in the place of option A."""
    others = [row for row in rows if row["arm"] in "BC"]
    return others + relabelled(where(rows, arm="plain"), arm="A", model="A")


def identities(rows: list[Row]) -> list[Row]:
    """Return the identity in the place of everything."""
    own = where(rows, arm="A")
    return [row for name in ("A", *TABLE_1) for row in relabelled(own, arm=name, model=name)]


def training_error(rows: list[Row]):
    """Draw the training error of each shortcut."""
    return points.by_group(rates.best(rows), "train_error", ".0%")


def test_error(rows: list[Row]):
    """Draw the test error of each shortcut."""
    return points.by_group(rates.best(rows), "test_error", ".0%")


CLAIM = Claim(
    name="shortcuts",
    says="Identity and projection shortcuts are alike: projections hardly matter.",
    source="He et al. 2015, arXiv:1512.03385, Table 3",
    rule=f"{rates.IF_FULL}: no test error of the options A, B and C exceeds another's by 2 points "
    "or more: six non-inferiority tests over seeds, p < 0.01 for each. Not decided if one is at "
    "chance",
    plan=plan,
    measure=rates.measured,
    judge=alike,
    depths=lambda dataset, full: (110,) if full else (56,),
    figures=(training_error, test_error),
    control=without,
    against="the plain network in the place of option A",
    further=(
        Statement(
            "shortcuts_multiplied",
            "A shortcut that is scaled, gated or dropped ends with a higher test error than the "
            "identity.",
            "He et al. 2016, arXiv:1603.05027, Table 1",
            f"{rates.IF_FULL}: the test error with gains of 0.5 and 0.5, with a gain of 0.5 on the "
            "shortcut alone, with the exclusive gate, with the shortcut-only gate and with dropout "
            "on the shortcut each exceeds that with the identity: one-sided Welch tests, p < 0.01 "
            "for each of the five. Not decided if the identity is at chance",
            harder,
            identities,
            "the identity in the place of all five",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

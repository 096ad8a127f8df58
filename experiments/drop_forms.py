"""In each of four forms of stochastic depth evaluation is the mean of training.

Huang et al. 2016 (arXiv:1603.09382), eq. 2 and 5, drops a body for a whole batch and scales it in
evaluation; DropPath as most code has it drops it for each example and scales it in training. Both
choices are free of each other, which gives four forms. In each of them a block in evaluation gives
the mean of what it gives in training, p f or f. Their distributions differ: a batch has one draw or
as many draws as examples, and what a kept body gives is f or f / p.

    python -m experiments.drop_forms --workdir=runs/drop_forms
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.models.stochastic_depth import DROPS

TOLERANCE = 1e-10
SURVIVAL, EXAMPLES, DRAWS = 0.75, 8, 4096


def plan(options: Options) -> list[Run]:
    """Return the four forms, in networks as they start.

    Raises: ValueError for several networks.
    """
    options.refuse_several()
    forms = {name: {"skip": "A", "merge": name} for name in DROPS}
    return options.arms(forms, 1, trained=False)


def measure(run: Run) -> list[Row]:
    """Return the error of the mean, the scale of a kept body, and whether examples share draws.

    The mean is over the two values that a draw gives, with the survival as the probability of the
    kept body. `share_error` is how far the share of kept bodies under DRAWS keys is from the
    survival, in standard deviations of a binomial share.
    """
    with jax.enable_x64(True):
        merge = DROPS[run.arm](survival=SURVIVAL)
        f = jnp.broadcast_to(jnp.arange(1.0, 4.0, dtype=jnp.float64), (EXAMPLES, 3))
        s = jnp.full_like(f, 0.5)
        keys = jax.random.split(jax.random.key(0), DRAWS)
        rows = {"batch": {"row": jnp.arange(EXAMPLES)}}
        one = lambda key: merge.apply(rows, s, f, s, rngs={"drop": key})
        drawn = np.asarray(jax.vmap(one)(keys), np.float64)
        evaluated = np.asarray(merge.apply(rows, s, f, s), np.float64)
    gains = (drawn - np.asarray(s)) / np.asarray(f)  # 0 where the body is dropped
    values = np.unique(gains.round(12))
    kept = float(values.max())
    shared = bool((np.ptp(gains, axis=(1, 2)) < TOLERANCE).all())
    draws = DRAWS * (1 if shared else EXAMPLES)
    deviation = (SURVIVAL * (1 - SURVIVAL) / draws) ** 0.5
    mean = SURVIVAL * (np.asarray(s) + kept * np.asarray(f)) + (1 - SURVIVAL) * np.asarray(s)
    return [
        {
            "mean_error": float(np.abs(mean - evaluated).max()),
            "values": len(values),
            "kept": kept,
            "shared": shared,
            "share_error": float(abs((gains > kept / 2).mean() - SURVIVAL) / deviation),
        }
    ]


def judge(rows: list[Row]) -> Verdict:
    """Ask for evaluations that are means, and for four different distributions of two values."""
    worst = max(row["mean_error"] for row in rows)
    off = max(row["share_error"] for row in rows)
    different = {(round(row["kept"], 9), row["shared"]) for row in rows}
    said = (
        f"Evaluation differs from the mean of training by at most {worst:.1g}, shares of kept "
        f"bodies from the survival by at most {off:.1f} standard deviations; there are "
        f"{len(different)} different distributions."
    )
    two = all(row["values"] == 2 for row in rows)
    all_differ = two and len(different) == len(DROPS) == len({row["arm"] for row in rows})
    return Verdict(worst <= TOLERANCE and off < 5 and all_differ, said)


def one_form(rows: list[Row]) -> list[Row]:
    """Return one form in the place of all four."""
    own = where(rows, arm="drop_path")
    return [row for name in DROPS for row in relabelled(own, arm=name)]


CLAIM = Claim(
    name="drop_forms",
    says="In each of four forms of stochastic depth a block in evaluation gives the mean of what "
    "it gives in training, and no two forms have the same distribution.",
    source="Huang et al. 2016, arXiv:1603.09382, eq. 2 and 5; DropPath as in timm",
    rule="in float64 a block in evaluation differs from the mean of what it gives in training by "
    f"at most {TOLERANCE:g}, in all four forms; a draw gives one of two values; the share of "
    f"kept bodies under {DRAWS:,} keys is within five standard deviations of the survival; and "
    "the forms differ in the factor of a kept body or in whether the examples of a batch share "
    "their draw",
    plan=plan,
    measure=measure,
    judge=judge,
    kind="exact",
    columns={"mean_error": ".1g", "kept": ".3f", "share_error": ".1f"},
    control=one_form,
    against="one form in the place of all four",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

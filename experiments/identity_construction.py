"""Added layers that are the identity leave a plain network's function unchanged.

He et al. 2015 (arXiv:1512.03385), sec. 1: "There exists a solution by construction to the deeper
model: the added layers are identity mapping, and the other layers are copied from the learned
shallower model." Here a plain network without norms, in which each block is two 3x3 convolutions
with ReLUs, is deepened by blocks whose kernels are the identity (Dirac) and whose biases are 0.
The input of a block has passed a ReLU, so that relu(conv(relu(conv(x)))) = x.

    python -m experiments.identity_construction --workdir=runs/identity_construction
"""

from typing import Any

import jax
import jax.numpy as jnp

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.models.residual import stacked_axes

TOLERANCE = 1e-10
BARE = {"skip": "none", "norm": "none"}
ARMS = {
    "identity": {**BARE, "model.kernel_start": "dirac"},
    "random": {**BARE, "model.kernel_start": "he"},
}


def plan(options: Options) -> list[Run]:
    """Return the shallow network, and deeper ones whose layers are the identity, or random.

    Raises: ValueError for one depth, and for networks without basic blocks.
    """
    options.refuse_one_depth()
    for family, depth in options.networks:
        block = options.config((family, depth)).model.get("block")
        if (family, block) != ("resnet", "basic"):
            raise ValueError(
                f"{family}:{depth} with block={block}: the claim deepens a ResNet of basic blocks; "
                "use --models=resnet:20,resnet:56"
            )
    return options.arms(ARMS, 1, trained=False)


def measure(run: Run) -> list[Row]:
    """Return how much the outputs of the deepened network differ from the shallow network's."""
    shallow = shallowest(run)
    with jax.enable_x64(True):
        deep, small = opened(run, wide=True), opened(shallow, wide=True)
        variables = copied(deep, small)
        output = jax.jit(deep.net.apply)(variables, deep.x)
        wanted = jax.jit(small.net.apply)(small.variables, small.x)
        difference = float(jnp.abs(output - wanted).max() / jnp.abs(wanted).max())
    return [
        {"added": run.config.model.depth - shallow.config.model.depth, "difference": difference}
    ]


def shallowest(run: Run) -> Run:
    """Return the run of the network that is deepened: one block in each stage."""
    config = run.config.copy_and_resolve_references()
    config.model.depth, config.model.kernel_start = 8, "he"
    return run._replace(config=config.lock())


def copied(deep: Network, shallow: Network) -> dict[str, Any]:
    """Return the deep network's variables with the shallow network's in its first layers."""
    axes = stacked_axes(shallow.net, shallow.variables["params"])

    def merge(deep: Any, shallow: Any, axes: Any) -> Any:
        if not isinstance(deep, dict):
            return deep.at[: len(shallow)].set(shallow) if axes else shallow
        of = lambda name: (deep[name], shallow[name], axes[name])
        return {name: merge(*of(name)) if name in shallow else deep[name] for name in deep}

    return {"params": merge(deep.variables["params"], shallow.variables["params"], axes)}


def judge(rows: list[Row]) -> Verdict:
    """Ask that no network deepened by identity layers differ from the shallow one."""
    deepened = [row for row in where(rows, arm="identity") if row["added"]]
    if not deepened:
        return Verdict(None, "No network was deepened.")
    worst = max(deepened, key=lambda row: row["difference"])
    return Verdict(
        all(row["difference"] <= TOLERANCE for row in deepened),  # NaN is not
        f"Outputs differ by at most {worst['difference']:.2g} of the largest, with "
        f"{worst['added']} added layers.",
    )


def control(rows: list[Row]) -> list[Row]:
    """Return the networks deepened by random layers in the place of the others."""
    return relabelled(where(rows, arm="random"), arm="identity")


CLAIM = Claim(
    name="identity_construction",
    says="A plain network that is deepened by layers which are the identity computes what it did.",
    source="He et al. 2015, arXiv:1512.03385, sec. 1",
    rule=f"max |deep output - shallow output| / max |shallow output| <= {TOLERANCE:g} in float64, "
    "on 64 images, for every depth",
    plan=plan,
    judge=judge,
    kind="exact",
    measure=measure,
    columns={"added": ".0f", "difference": ".2g"},
    depths=lambda dataset, full: (20, 56, 110),
    control=control,
    against="layers that start at random by He's rule",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

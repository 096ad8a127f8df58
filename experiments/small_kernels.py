"""Large kernels can be replaced by stacks of 3x3 kernels.

Simonyan & Zisserman 2014 (arXiv:1409.1556), sec. 2.3: two 3x3 layers see 5x5 pixels and three see
7x7, as one layer of that size does; for C channels in and out, three 3x3 layers have 27 C^2 weights
and a 7x7 layer has 49 C^2 (81 % more).

The field of a unit is the support of the gradient of its linear stack in float64. Biases are left
out, as in the paper's count. `small_kernels_train` compares trained networks of both.

    python -m experiments.small_kernels --workdir=runs/small_kernels
"""

import jax
import jax.numpy as jnp

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.analysis.support import extent, receptive_field
from resnet_jax.models.conv import Conv
from resnet_jax.models.merges import plain
from resnet_jax.models.residual import Chain, Residual
from resnet_jax.reporting import points

SIDE, CHANNELS = 15, 4
# Layers and their size; a stack of n 3x3 layers takes the place of one layer of 2n+1 pixels.
STACKS = {"stack": [(1, 3), (2, 3), (3, 3)], "single": [(1, 3), (1, 5), (1, 7)]}


def plan(options: Options) -> list[Run]:
    """Return one run, whose network is not looked at: the stacks are the claim's own."""
    if len(options.networks) > 1:
        raise ValueError("the claim has its own stacks of layers; leave out --models and --depths")
    return options.arms({"stacks": {}}, 1, trained=False)[:1]


def measure(run: Run) -> list[Row]:
    """Return the reach and the parameters of every stack."""
    return [
        row(arm, layers, size, run.config.seed)
        for arm, stacks in STACKS.items()
        for layers, size in stacks
    ]


def row(arm: str, layers: int, size: int, seed: int) -> Row:
    """Return the pixels on a side that a unit of a stack sees, and the stack's parameters."""
    with jax.enable_x64(True):
        layer = Residual(Conv(CHANNELS, size, dtype=jnp.float64), merge=plain)
        net = Chain({f"layer{i}": layer for i in range(layers)})
        x = jnp.ones((1, SIDE, SIDE, CHANNELS), jnp.float64)
        variables = net.init(jax.random.key(seed), x)
        centre = (SIDE // 2, SIDE // 2)
        field = receptive_field(net.apply, variables, x, layers - 1, centre)
        reach = {int(side) for side in extent(field)}
        filled = int(field.sum()) == max(reach) ** 2
    return {
        "model": f"{layers}-of-{size}x{size}-{arm}",
        "arm": arm,
        "depth": layers,
        "stands_for": 2 * layers + 1 if arm == "stack" else size,
        "seed": seed,
        "pixels": max(reach) if len(reach) == 1 and filled else 0,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(variables)),
        "weights_by_c2": sum(leaf.size for leaf in jax.tree.leaves(variables)) / CHANNELS**2,
    }


def sees(rows: list[Row]) -> Verdict:
    """Return whether each stack sees the square that the layer it stands for sees."""
    pairs = by_size(rows)
    holds = len(pairs) == 3 and all(s["pixels"] == o["pixels"] == n for n, (s, o) in pairs.items())
    said = "; ".join(
        f"{s['depth']} 3x3 layers see {s['pixels']} pixels on a side, a {n}x{n} layer {o['pixels']}"
        for n, (s, o) in pairs.items()
    )
    return Verdict(holds, f"{said}.")


def fewer(rows: list[Row]) -> Verdict:
    """Return whether two and three 3x3 layers have 18 C^2 and 27 C^2 of 25 C^2 and 49 C^2."""
    pairs = {n: (s["weights_by_c2"], o["weights_by_c2"]) for n, (s, o) in by_size(rows).items()}
    said = "; ".join(f"{n}x{n}: {a:g} C^2 against {b:g} C^2" for n, (a, b) in pairs.items())
    return Verdict(pairs == {3: (9, 9), 5: (18, 25), 7: (27, 49)}, f"{said}.")


def by_size(rows: list[Row]) -> dict[int, tuple[Row, Row]]:
    """Return (stack, single layer) by the size for which they stand."""
    stacks, singles = (
        {row["stands_for"]: row for row in where(rows, arm=arm)} for arm in ("stack", "single")
    )
    return {size: (stacks[size], singles[size]) for size in sorted(stacks.keys() & singles.keys())}


def one_layer(rows: list[Row]) -> list[Row]:
    """Return one 3x3 layer in the place of every stack."""
    one = where(rows, arm="stack", depth=1)
    return where(rows, arm="single") + [
        row for size in (3, 5, 7) for row in relabelled(one, stands_for=size)
    ]


def weights(rows: list[Row]):
    """Draw the weights against the pixels that are seen."""
    x, y = "pixels seen on a side", "weights / C^2"
    shown = [row | {x: row["pixels"], y: row["weights_by_c2"]} for row in rows]
    return points.figure(shown, x, y, "g", log_x=False)


AGAINST = "one 3x3 layer in the place of the stacks"
CLAIM = Claim(
    name="small_kernels",
    says="A stack of 3x3 kernels sees as much as one large kernel: 1, 2 and 3 layers see squares "
    "of 3, 5 and 7 pixels.",
    source="Simonyan & Zisserman 2014, arXiv:1409.1556, sec. 2.3",
    rule="the support of a unit's gradient in float64 is a full square of 3, 5 and 7 pixels on a "
    "side for 1, 2 and 3 linear 3x3 layers, and for one layer of 3x3, 5x5 and 7x7",
    plan=plan,
    measure=measure,
    judge=sees,
    kind="exact",
    columns={"pixels": "g", "weights_by_c2": "g"},
    figures=(weights,),
    control=one_layer,
    against=AGAINST,
    further=(
        Statement(
            "small_kernels_fewer",
            "The stack has fewer weights: 18 C^2 against 25 C^2, and 27 C^2 against 49 C^2.",
            "Simonyan & Zisserman 2014, arXiv:1409.1556, sec. 2.3",
            "the counts of weights are exactly these, for C channels in and out without biases",
            fewer,
            one_layer,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

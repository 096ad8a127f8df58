"""DenseNet: every layer sees every earlier layer directly, and hands on what it was given.

Huang et al. 2017 (arXiv:1608.06993), sec. 1 and 3: a dense block of L layers has L(L+1)/2 direct
connections, where a network without them has L; layers meet by concatenation, not by a sum. A
connection is counted if the gradient of a layer's body with respect to the channels that an earlier
layer added (or the block's input) is not zero. The channels of the input are compared bit for bit
with the first channels of the output. The control is a residual network, whose layers have one
input each and add to it.

The paper's other statement, that DenseNets need fewer parameters for an equal error (Table 2: 4.51
% with 0.8M against 4.62 % with 10.2M of a pre-activation ResNet-1001), needs training on CIFAR-10
and is not tested here.

    python -m experiments.densenet_paths --workdir=runs/densenet_paths
"""

import jax
import numpy as np

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import Network, opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.analysis.blocks import Blocks
from resnet_jax.analysis.census import module_at
from resnet_jax.analysis.observe import blocks_of, observe
from resnet_jax.analysis.probe import INPUT, OUTPUT
from resnet_jax.models.merges import concat
from resnet_jax.reporting import points

EXAMPLES = 4


def plan(options: Options) -> list[Run]:
    """Return each network once. Raises: ValueError unless there is a DenseNet."""
    if "densenet" not in [family for family, _ in options.networks]:
        family, depth = options.networks[0]
        raise ValueError(f"{family}:{depth} is no DenseNet; give one, as --models=densenet:22")
    return [
        options._replace(networks=(network,)).arms(
            {network[0]: {"block": "basic"}}, 1, trained=False
        )[0]
        for network in options.networks
    ]


def measure(run: Run) -> list[Row]:
    """Return the layers, the direct connections and the blocks that keep their input's channels."""
    with jax.enable_x64(True):
        net = opened(run, EXAMPLES, wide=True)
        apply, given = net.net.apply, (net.variables, net.x)
        blocks = blocks_of(apply, *given)
        same = {point: lambda a: a for point in (INPUT, OUTPUT)}
        seen = jax.jit(lambda v, x: observe(apply, v, x, same)[1])(*given)
        stages: dict[str, list[int]] = {}
        kept = 0
        for block, (path, index) in enumerate(blocks.places):
            x, y = (np.asarray(seen[point][path][index]) for point in (INPUT, OUTPUT))
            kept += x.shape[:-1] == y.shape[:-1] and np.array_equal(y[..., : x.shape[-1]], x)
            # What the block's layers add to: stage2 of stage2/layer3, stage2_first and stage2.
            stage = stages.setdefault(path[0].removesuffix("_first"), [])
            stage.append(connections(net, blocks, block, x))
    return [
        {
            "seed": run.config.seed,
            "blocks": len(blocks),
            "kept": kept,
            "stages": list(stages.values()),
            "connections": sum(map(sum, stages.values())),
        }
    ]


def sources(blocks: Blocks, block: int) -> list[int]:
    """Return the first channel of each source of a block's input; a sum is one source."""
    if blocks.parts[blocks.places[block][0]].merge is not concat:
        return [0]
    stage = blocks.places[block][0][:-1]
    earlier = [i for i in range(block) if blocks.places[i][0][:-1] == stage]
    return [0, *(blocks.shape(i, INPUT).shape[-1] for i in earlier)]


def connections(net: Network, blocks: Blocks, block: int, x) -> int:
    """Return how many sources of its input a block's body depends on."""
    (path, index), own = blocks.places[block], {}
    for name, tree in net.variables.items():
        for part in (*path, "body"):
            tree = tree.get(part, {})
        own[name] = jax.tree.map(lambda a: a[index], tree)
    body = module_at(net.net, path).body
    weights = np.random.default_rng(block).normal(size=blocks.shape(block, OUTPUT).shape)
    unit = lambda x: (lambda f: (f * weights[..., : f.shape[-1]]).sum())(body.apply(own, x))
    used = np.asarray(jax.jit(jax.grad(unit))(x) != 0).any((0, 1, 2))
    return sum(bool(part.any()) for part in np.split(used, sources(blocks, block)[1:]))


def connected(rows: list[Row]) -> Verdict:
    """Return whether L layers of a stage have L(L+1)/2 connections."""
    own = where(rows, arm="densenet")
    stages = [stage for row in own for stage in row["stages"]]
    holds = bool(stages) and all(sum(s) == len(s) * (len(s) + 1) // 2 for s in stages)
    said = "; ".join(
        f"{row['model']} " + ", ".join(f"{sum(s)} in {len(s)} layers" for s in row["stages"])
        for row in rows
    )
    return Verdict(holds, f"Direct connections by stage: {said}.")


def kept(rows: list[Row]) -> Verdict:
    """Return whether every layer hands on its input unchanged."""
    own = where(rows, arm="densenet")
    said = "; ".join(f"{row['model']} {row['kept']} of {row['blocks']}" for row in rows)
    holds = bool(own) and all(row["kept"] == row["blocks"] for row in own)
    return Verdict(holds, f"Layers whose output contains their input bit for bit: {said}.")


def residual(rows: list[Row]) -> list[Row]:
    """Return the residual networks in the place of the DenseNets."""
    return relabelled(where(rows, arm="resnet"), arm="densenet")


def by_layer(rows: list[Row]):
    """Draw the connections of each layer of the first stage."""
    shown = [
        row | {"layer of a stage": layer, "direct connections": count}
        for row in rows
        for layer, count in enumerate(row["stages"][0], 1)
    ]
    return points.figure(shown, "layer of a stage", "direct connections", "g", log_x=False)


SOURCE = "Huang et al. 2017, arXiv:1608.06993, sec. 1 and eq. 2"
AGAINST = "a residual network in the place of the DenseNet"
CLAIM = Claim(
    name="densenet_paths",
    says="In a DenseNet every layer is directly connected to every later layer of its stage.",
    source=SOURCE,
    rule="every stage of L layers has L(L+1)/2 direct connections: pairs of a layer and an earlier "
    "layer, or the stage's input, for which the gradient of the layer's body with respect to the "
    "earlier one's channels is not 0 in float64",
    plan=plan,
    measure=measure,
    judge=connected,
    kind="exact",
    columns={"blocks": "g", "connections": "g", "kept": "g"},
    models=(("densenet", 22), ("resnet", 20)),
    figures=(by_layer,),
    control=residual,
    against=AGAINST,
    further=(
        Statement(
            "densenet_keeps",
            "The connection is the concatenation of identities: every layer hands on its input "
            "unchanged.",
            SOURCE,
            "in every layer the first channels of the output equal the input bit for bit, on "
            "images, in a network at its random start",
            kept,
            residual,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

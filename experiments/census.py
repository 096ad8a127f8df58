"""The networks of a census, and what is counted in each of them: skips, layers, kernels, costs."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.plan import Network, Options, Run
from experiments.results import Row
from resnet_jax import families
from resnet_jax.analysis.blocks import Blocks
from resnet_jax.analysis.census import module_at, skips
from resnet_jax.analysis.observe import blocks_of
from resnet_jax.analysis.probe import INPUT
from resnet_jax.models import measure as counts
from resnet_jax.models.conv import Conv
from resnet_jax.models.transformer import Mlp

CIFAR = {"data.shape": (32, 32, 3)}
IMAGENET = {"data.shape": (224, 224, 3), "model.width": 64, "model.stem": "7x7"}
LARGE = {"data.shape": (224, 224, 3)}
RESNEXT = {"model.width": 64, "model.widen": 8, "model.cardinality": 8}
VIT = {"model.width": 768, "model.heads": 12, "model.patch": 16}
# Names of networks, each with its family, its depth and its choices.
NETWORKS: dict[str, tuple[Network, dict[str, Any]]] = {
    "v1-basic": (("resnet", 110), {"block": "basic", "skip": "A", **CIFAR}),
    "v1-basic-imagenet": (("resnet", 34), {"block": "basic", "skip": "B", **IMAGENET}),
    "v1-bottleneck": (("resnet", 50), {"block": "bottleneck", "skip": "B", **IMAGENET}),
    "v2-basic": (("resnet", 110), {"block": "preact_basic", "skip": "A", **CIFAR}),
    "v2-bottleneck": (("resnet", 164), {"block": "preact_bottleneck", "skip": "B", **CIFAR}),
    "plain": (("resnet", 110), {"block": "basic", "skip": "none", **CIFAR}),
    "ladder": (("ladder", 110), {"block": "basic", "skip": "A", **CIFAR}),
    "wide": (("wide", 28), {"block": "preact_basic", "skip": "B", "model.widen": 10, **CIFAR}),
    "resnext": (("resnext", 29), {"skip": "B", **RESNEXT, **CIFAR}),
    "highway": (("highway", 19), {"block": "single", "merge": "exclusive_gate", **CIFAR}),
    "highway-dense": (("highway", 50), {"block": "dense", "merge": "exclusive_gate"}),
    "densenet": (("densenet", 40), {"block": "basic", **CIFAR}),
    "densenet-bc": (("densenet", 100), {"block": "bottleneck", **CIFAR}),
    "vit": (("vit", 12), {**VIT, **LARGE}),
    "vgg": (("vgg", 16), LARGE),
    "vgg-bn": (("vgg_bn", 16), LARGE),
    "lenet": (("lenet", 5), CIFAR),
    "alexnet": (("alexnet", 8), LARGE),
}
KINDS = ("identity", "padded", "projected", "gated", "other", "none")


MODELS = tuple(dict.fromkeys(network for network, _ in NETWORKS.values()))


def plan(options: Options) -> list[Run]:
    """Return the networks of the table that --models names. Raises: ValueError for others."""
    for family, depth in options.networks:
        if (family, depth) not in MODELS:
            known = ", ".join(f"{family}:{depth}" for family, depth in MODELS)
            raise ValueError(f"{family}:{depth} is not of the census; --models takes {known}")
    return [
        options._replace(networks=(network,)).arms({name: arm}, 1, trained=False)[0]
        for name, (network, arm) in NETWORKS.items()
        if network in options.networks
    ]


def measure(run: Run) -> list[Row]:
    """Return the counts of a network's skips, of its layers, and of what stands on its skips."""
    net = families.build(run.config)
    x = jax.ShapeDtypeStruct((1, *run.config.data.shape), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    blocks = blocks_of(net.apply, variables, x)
    seen, layers = skips(net, blocks), counts.layers(net, variables["params"])
    inside = [skip for skip in seen if not skip.block.endswith("_first")]
    kept = [skip for skip in seen if (skip.same or skip.passes) and skip.kind != "none"]
    row = {kind: sum(skip.kind == kind for skip in seen) for kind in KINDS}
    row |= {
        "seed": run.config.seed,
        "net": run.config.model.family,
        "blocks": len(seen),
        "layers": layers,
        "skips": len(seen) - row["none"],
        "pass": sum(skip.passes for skip in kept),
        "keep": len(kept),
        "inside": len(inside),
        "reshape_inside": sum(not skip.same for skip in inside),
        "operations": sum(len(skip.operations) for skip in seen),
        "operations_inside": [len(skip.operations) for skip in inside],
        "kernels": kernels(variables["params"]),
        "layers_a_depth": (layers - 2) / run.config.model.depth,
        "blocks_a_depth": len(seen) / run.config.model.depth,
        "body_macs": body_macs(net, blocks),
    }
    return [row | (forms() if row["net"] == "vit" else {})]


def kernels(params: Any) -> list[int]:
    """Return the sizes of all convolutions, without repetition."""
    return sorted({leaf.shape[0] for leaf in jax.tree.leaves(params) if len(leaf.shape) == 4})


def body_macs(net: Any, blocks: Blocks) -> int | None:
    """Return the multiply-adds of the body of the first block that keeps its shape."""
    kept = [block for block in range(len(blocks)) if blocks.same(block)]
    if not kept:
        return None
    body = module_at(net, blocks.places[kept[0]][0]).body
    given = blocks.shape(kept[0], INPUT)
    own = jax.eval_shape(body.init, jax.random.key(0), given)
    return counts.macs(jax.make_jaxpr(body.apply)(own, given))


def forms(width: int = 32) -> Row:
    """Return how far an MLP block is from two 1x1 convolutions in float64, and its widening."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 9, width), jnp.float64)
        mlp, key = Mlp(), jax.random.key(1)
        variables: Any = mlp.init(key, x)
        y: Any = mlp.apply(variables, x)
        one, two = (variables["params"][name] for name in ("dense1", "dense2"))

        def conv(x: Any, dense: Any) -> Any:
            kernel, bias = dense["kernel"], dense["bias"]
            layer = Conv(len(bias), 1, bias=True, dtype=jnp.float64)
            return layer.apply({"params": {"kernel": kernel[None, None], "bias": bias}}, x)

        hidden = jax.nn.gelu(conv(x.reshape(2, 3, 3, width), one), approximate=False)
        difference = float(abs(conv(hidden, two).reshape(y.shape) - y).max())
    return {"mlp_widening": one["kernel"].shape[1] / width, "form_difference": difference}

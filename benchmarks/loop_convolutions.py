"""Convolutions inside loops that XLA:CPU would run 30 times too slowly: there must be none.

    python -m benchmarks.loop_convolutions [--json=FILE]

Compiles a chunk of training steps, a `lax.scan` around the whole step, so that stem and transitions
are inside a loop too, and reads the optimised HLO. A convolution in a loop is fast where its
layout is b01f_01io->b01f (NHWC, HWIO, NHWC); see resnet_jax/models/conv.py. The last row is what
one would write without it, an `nn.scan` of lax convolutions: it shows that the counter counts.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import common, hlo, peers
from configs import digits, imagenet
from resnet_jax.config import Config
from resnet_jax.families import build
from resnet_jax.models.resnet import resnet_stages
from resnet_jax.training import step as steps
from resnet_jax.training.compile import program

FAST = "b01f_01io->b01f"
BATCH, STEPS = 8, 2


def loop_convolutions(text: str) -> list[str]:
    """`dim_labels` of every convolution that some `while` body of this HLO module reaches."""
    bodies, _ = hlo.computations(text)
    uses = {name: {u for line in lines for u in hlo.used(line)} for name, lines in bodies.items()}
    reached: set[str] = set()
    ahead = re.findall(r"\bbody=(%[\w.\-]+)", text)
    while ahead:
        if (name := ahead.pop()) not in reached and name in bodies:
            reached.add(name)
            ahead += uses[name]
    found = r" convolution\(.*dim_labels=([\w?]+->[\w?]+)"
    lines = (line for name in sorted(reached) for line in bodies[name])
    return [label for line in lines for label in re.findall(found, line)]


def compiled_chunk(config: Config, net: Any) -> str:
    """The optimised HLO of a chunk of training steps."""
    shape = (4 * BATCH, *config.data.shape)
    source = steps.Resident(jnp.zeros(shape), jnp.zeros(shape[0], jnp.int32))
    one = common.train_step(config, net)
    chunk = functools.partial(steps.chunk, step=one, fetch=steps.gather, axis=None)
    state = jax.eval_shape(lambda: common.create_state(config, net))
    inputs = tuple(jax.ShapeDtypeStruct((STEPS, BATCH), kind) for kind in (jnp.int32, jnp.bool_))
    compiled: Any = program(chunk, state, source, inputs)
    return compiled.as_text()


def cases() -> dict[str, tuple[Config, Any]]:
    """Name -> config and net: every block, shortcut, kernel and image size, and the trap last."""
    configs = {
        "ours, v1 basic 20, A": common.cifar(20, BATCH, "basic", "A"),
        "ours, v1 basic 20, C": common.cifar(20, BATCH, "basic", "C"),
        "ours, v1 bottleneck 29, B": common.cifar(29, BATCH, "bottleneck", "B"),
        "ours, pre-activation basic 20, A": common.cifar(20, BATCH, "preact_basic", "A"),
        "ours, pre-activation bottleneck 29, B": common.cifar(29, BATCH, "preact_bottleneck", "B"),
        "ours, pre-activation bottleneck 29, C": common.cifar(29, BATCH, "preact_bottleneck", "C"),
        "ours, v1 basic 20, A, 8x8 images": digits.get_config("depth=20"),
        "ours, v1 basic 18, B, 64x64 images, 7x7 stem": _imagenet("depth=18"),
        "ours, Fixup basic 20, A": common.cifar(20, BATCH, "fixup_basic", "A"),
        "ours, gated basic 20, A": common.recipe("depth=20", BATCH, merge="exclusive_gate"),
        "ours, Wide ResNet 10": common.recipe("family=wide,depth=10", BATCH, widen=2),
        "ours, ResNeXt 29, 8 groups": common.recipe("family=resnext", BATCH, width=16),
        "ours, highway 19": common.recipe("family=highway", BATCH),
        "ours, VGG 11": common.recipe("family=vgg", BATCH, width=8),
        "ours, VGG 11 with norm": common.recipe("family=vgg_bn", BATCH, width=8),
        "ours, LeNet-5": common.recipe("family=lenet", BATCH),
        "ours, AlexNet, 64x64 images": _imagenet("family=alexnet", width=8),
        "ours, DenseNet 22": common.recipe("family=densenet,depth=22", BATCH),
    }
    trap = peers.Plain(resnet_stages(20, "basic", image=32), pre=False, scan=True)
    nets = {name: (config, build(config)) for name, config in configs.items()}
    return nets | {"nn.scan of lax, v1 basic 20, A": (common.cifar(20, BATCH), trap)}


def _imagenet(argument: str, **model: Any) -> Config:
    config = imagenet.get_config(argument)
    config.data.shape, config.batch_size, config.norm.group_size = (64, 64, 3), BATCH, 0
    config.model.update(model)
    return config


def measure() -> tuple[list[common.Row], common.Ratios]:
    """Count in every case; the ratio is the sum over ours."""
    rows = []
    for name, (config, net) in cases().items():
        labels = loop_convolutions(compiled_chunk(config, net))
        slow = [label for label in labels if label != FAST]
        rows.append(
            {
                "net": name,
                "in_loops": len(labels),
                "noncanonical": len(slow),
                "layouts": " ".join(sorted(set(slow))),
            }
        )
    ours = sum(row["noncanonical"] for row in rows if row["net"].startswith("ours"))
    # Only the CPU backend leaves convolutions in the HLO in this form and minds their layout.
    return rows, {"noncanonical_convolutions": ours if jax.default_backend() == "cpu" else None}


if __name__ == "__main__":
    common.run("loop_convolutions", measure)

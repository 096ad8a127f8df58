"""Convolutions in loops that XLA:CPU would run 30 times too slowly: the count must be 0.

    python -m benchmarks.loop_convolutions [--json=FILE]

A chunk of training steps is compiled, and its optimised HLO is read. It is a `lax.scan` of whole
steps, so that stem and transitions are in a loop too. A convolution in a loop is fast if its layout
is b01f_01io->b01f (NHWC, HWIO, NHWC); see resnet_jax/models/conv.py. The last row is an `nn.scan`
of lax convolutions, as it would be written without this package. It shows that the counter counts.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import common, hlo, peers
from configs import digits, imagenet
from resnet_jax.families import build
from resnet_jax.keys import Config
from resnet_jax.models.stages import resnet_stages
from resnet_jax.training import feeds
from resnet_jax.training import step as steps
from resnet_jax.training.compile import program

FAST = "b01f_01io->b01f"
BATCH, STEPS = 8, 2


def loop_convolutions(text: str) -> list[str]:
    """Return the `dim_labels` of all convolutions that a `while` body of the HLO module reaches."""
    bodies, _ = hlo.computations(text)
    uses = {name: {u for line in lines for u in hlo.used(line)} for name, lines in bodies.items()}
    reached: set[str] = set()
    ahead = re.findall(r"\bbody=(%[\w.\-]+)", text)
    while ahead:
        if (name := ahead.pop()) not in reached and name in bodies:
            reached.add(name)
            ahead += uses[name]
    convolution = r" convolution\(.*dim_labels=([\w?]+->[\w?]+)"
    lines = (line for name in sorted(reached) for line in bodies[name])
    return [label for line in lines for label in re.findall(convolution, line)]


def compiled_chunk(config: Config, net: Any) -> str:
    """Return the optimised HLO of a chunk of training steps."""
    shape = (4 * BATCH, *config.data.shape)
    source = jnp.zeros(shape), jnp.zeros(shape[0], jnp.int32)
    step = common.train_step(config, net)
    chunk = functools.partial(steps.chunk, step=step, fetch=feeds.gather, axis=None)
    state = jax.eval_shape(lambda: common.create_state(config, net))
    inputs = tuple(jax.ShapeDtypeStruct((STEPS, BATCH), kind) for kind in (jnp.int32, jnp.bool_))
    compiled: Any = program(chunk, state, source, inputs)
    return compiled.as_text()


def cases() -> dict[str, tuple[Config, Any]]:
    """Return configs and networks by name.

    They cover every kind of block, skip, kernel and image size. The last is the slow `nn.scan`.
    """
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
        "ours, gated basic 20, A": common.recipe("depth=20,merge=exclusive_gate", BATCH),
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
    config = common.whole_batch(imagenet.get_config(argument), BATCH)
    config.data.shape = (64, 64, 3)
    config.model.update(model)
    return config


def measure() -> tuple[list[common.Row], common.Ratios]:
    """Count the convolutions of every case; the ratio is the sum over our networks."""
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
    # Only on the CPU backend does the HLO show convolutions in this form and their layout matter.
    return rows, {"noncanonical_convolutions": ours if jax.default_backend() == "cpu" else None}


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    arguments = common.parser("loop_convolutions", __doc__).read(words)
    common.run("loop_convolutions", arguments, measure)


if __name__ == "__main__":
    common.start(main)

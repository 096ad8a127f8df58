"""Say what a config's network is and what it costs, without data and without training.

python -m resnet_jax.describe --config=configs/cifar10.py:depth=110 [--json=FILE]
"""

import functools
import json
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from resnet_jax import command, families
from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.models import measure
from resnet_jax.models.residual import Remat, Stack
from resnet_jax.training import metrics
from resnet_jax.training import state as states
from resnet_jax.training import step as steps
from resnet_jax.training.optimizer import optimizer


def main(config: Config, file: str | None) -> None:
    """Print the description, and write it to `file` as JSON."""
    with command.refusals():
        configs.check(config)
        if file is not None:
            command.check_file("--json", Path(file), "describe.json")
    found = describe(config)
    print(text(found))
    if file is not None:
        with command.refusals():
            Path(file).write_text(json.dumps(found, indent=2) + "\n")


def describe(config: Config) -> dict[str, Any]:
    """Layers, blocks, parameters, multiply-adds and bytes of the config's network and train step.

    `macs` are one image's, in evaluation. `activation_bytes` and `peak_bytes` are a train step's on
    one device, with the config's batch and policy (`remat`); `policies` has them for every policy.
    `parts` has the counts, and the size of the output, of each part from the stem to the head.
    """
    net = families.build(config)
    x = jax.ShapeDtypeStruct((1, *config.data.shape), jnp.float32)
    total, _ = measure.count(net, x)
    parts = []
    for name, part in net.blocks.items():
        counts, x = measure.count(part, x)
        parts.append({"name": name, "output": list(x.shape[1:]), **counts._asdict()})
    names = get_args(Remat)
    remat = next((m.remat for m, _ in measure.modules(net) if isinstance(m, Stack)), names[0])
    policies = {}
    for name in names:
        variant = config.copy_and_resolve_references()
        variant.remat = name
        policies[name] = {
            "activation_bytes": activation_bytes(variant),
            "peak_bytes": peak_bytes(variant),
        }
    return {
        **total._asdict(),
        **policies[remat],
        "batch_size": config.batch_size,
        "remat": remat,
        "policies": policies,
        "parts": parts,
    }


def activation_bytes(config: Config) -> int:
    """Bytes that a train step keeps from its forward for its backward pass."""
    net = families.build(config)
    state, batch = _inputs(config)

    def loss(params, batch_stats, image, label):
        variables = {"params": params, "batch_stats": batch_stats}
        rngs = {"drop": jax.random.key(0)}
        logits, _ = net.apply(variables, image, mutable=["batch_stats"], rngs=rngs)
        return metrics.sums(logits, label, jnp.ones_like(label, bool))["loss"] / label.size

    return measure.held_bytes(loss, state.params, state.batch_stats, batch.image, batch.label)


def peak_bytes(config: Config) -> int | None:
    """Bytes in use at the peak of a train step, by its compiler: state, batch and temporaries.

    The data set and its augmentation come on top. None where the compiler does not tell, or
    refuses because the device has not as much.
    """
    step = functools.partial(
        steps.train_step,
        axis=None,
        apply=families.build(config).apply,
        prepare=lambda _, batch: batch.image,
        optimizer=optimizer(config),
    )
    lowered = jax.jit(step, donate_argnums=0).lower(*_inputs(config))
    # Its memory is laid out before machine code is made, which never runs and need not be fast.
    options: Any = (
        {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else None
    )
    try:
        used = lowered.compile(options).memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None
    if used is None:
        return None
    # The new state is written over the old one, which is donated.
    new = used.output_size_in_bytes - used.alias_size_in_bytes
    return used.argument_size_in_bytes + new + used.temp_size_in_bytes


def _inputs(config: Config) -> tuple[states.TrainState, steps.Batch]:
    """Shapes and types of a train step's state and batch."""
    net, optim, shape = families.build(config), optimizer(config), tuple(config.data.shape)
    state = jax.eval_shape(functools.partial(states.create, config.seed, net, shape, optim))
    array = lambda dtype, *shape: jax.ShapeDtypeStruct((config.batch_size, *shape), dtype)
    image, row = array(jnp.float32, *shape), array(jnp.int32)
    return state, steps.Batch(image=image, label=row, row=row, mask=array(jnp.bool_))


def text(found: dict[str, Any]) -> str:
    """The description for people: the network, the memory by policy, the parts."""
    batch = f"a batch of {found['batch_size']}, remat={found['remat']}"
    facts = [
        ("layers", f"{found['layers']:,}", "weighted, on the longest path"),
        ("blocks", f"{found['blocks']:,}", ""),
        ("identity skips", f"{found['identity_skips']:,}", "neither padded nor projected"),
        ("parameters", f"{found['parameters']:,}", ""),
        ("multiply-adds", f"{found['macs'] / 1e9:.4f} G", "an image"),
        ("activations", _mega(found["activation_bytes"]), f"kept for the gradient of {batch}"),
        ("peak", _mega(found["peak_bytes"]), f"of a train step on {batch}"),
    ]
    policies = [("remat", "activations", "peak")] + [
        (name, _mega(used["activation_bytes"]), _mega(used["peak_bytes"]))
        for name, used in found["policies"].items()
    ]
    parts = [("part", "blocks", "layers", "output", "parameters", "multiply-adds")] + [
        (
            part["name"],
            f"{part['blocks']:,}",
            f"{part['layers']:,}",
            "x".join(map(str, part["output"])),
            f"{part['parameters']:,}",
            f"{part['macs'] / 1e6:,.3f} M",
        )
        for part in found["parts"]
    ]
    return "\n\n".join((_table(facts, "<><"), _table(policies, "<>>"), _table(parts, "<>>>>>")))


def _table(rows: list[tuple[str, ...]], sides: str) -> str:
    columns = [
        [f"{cell:{side}{max(map(len, column))}}" for cell in column]
        for column, side in zip(zip(*rows, strict=True), sides, strict=True)
    ]
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))


def _mega(number: int | None) -> str:
    return "not known" if number is None else f"{number / 1e6:,.1f} MB"


if __name__ == "__main__":
    # Defined here, not on import: flags are global, and other commands have some of these names.
    config: Any = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,...]")
    file: Any = flags.DEFINE_string("json", None, "file to write the numbers to")
    flags.mark_flag_as_required("config")
    command.run(lambda: main(config.value, file.value))

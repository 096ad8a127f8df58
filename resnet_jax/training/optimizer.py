"""The optimizer. `OPTIMIZERS` is the table of those that a config can choose."""

import jax
import optax

from resnet_jax.keys import ANY, FRACTION, NOT_NEGATIVE, POSITIVE, Config, Key, Part, choice
from resnet_jax.training.schedule import schedule


def optimizer(config: Config) -> optax.GradientTransformation:
    """Return the config's optimizer, with its learning rate."""
    return OPTIMIZERS[config.optimizer.name].build(config, schedule(config))


def sgd(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return SGD with momentum and L2 decay: g += decay * p;  v = momentum * v + g;  p -= rate * v.

    Nesterov's form steps by g + momentum * v. The decay is coupled, as in the papers. Their code
    (Caffe) keeps the rate inside v, which is the same at a constant rate and differs just after the
    rate drops.
    """
    keys = config.optimizer
    mask = None if keys.decay == "all" else kernels
    return optax.chain(
        optax.add_decayed_weights(keys.weight_decay, mask),
        optax.sgd(rate, keys.momentum, keys.nesterov),
    )


def kernels(params):
    """Return True for the kernels of convolutions and dense layers, False for norms and biases.

    The mask goes by name: in a Stack the scale of a norm has two axes, so that the number of axes
    tells nothing.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )


def _check_sgd(config: Config) -> None:
    keys = config.optimizer
    if keys.nesterov and not keys.momentum:
        raise ValueError(
            "optimizer.nesterov=True changes nothing, because optimizer.momentum=0; leave it out "
            "or set optimizer.momentum"
        )
    if keys.decay != "all" and not keys.weight_decay:
        raise ValueError(
            f"optimizer.decay={keys.decay} changes nothing, because optimizer.weight_decay=0; "
            "leave it out or set optimizer.weight_decay"
        )


OPTIMIZERS: dict[str, Part] = {
    "sgd": Part(
        "SGD with momentum",
        build=sgd,
        keys={
            "optimizer.learning_rate": Key(0.1, POSITIVE, "the rate's peak, for the whole batch"),
            "optimizer.momentum": Key(0.9, FRACTION, "of the gradients' moving sum"),
            "optimizer.nesterov": Key(False, ANY, "Nesterov's form of the momentum"),
            "optimizer.weight_decay": Key(1e-4, NOT_NEGATIVE, "added to the gradient, per weight"),
            "optimizer.decay": Key(
                "all", choice("all", "kernels"), "what decays: all parameters (2015) or kernels"
            ),
        },
        check=_check_sgd,
    ),
}

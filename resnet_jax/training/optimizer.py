"""The optimizers, as chains of optax. `OPTIMIZERS` is the table of those that a config can choose.

Every chain clips the gradient if the config says so, then applies the optimizer's own rule with its
weight decay, and at last multiplies the step of each parameter by its group's multiple of the rate
(groups.py).
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from resnet_jax import families
from resnet_jax.keys import ANY, FRACTION, NOT_NEGATIVE, POSITIVE, Config, Key, Part, choice
from resnet_jax.models.residual import stacked_axes
from resnet_jax.training import groups
from resnet_jax.training.schedule import schedule


def optimizer(config: Config) -> optax.GradientTransformation:
    """Return the config's optimizer, with its learning rate."""
    keys = config.optimizer
    rule = OPTIMIZERS[keys.name].build(config, schedule(config))
    # What is not used is left out of the chain: a checkpoint names states by their place in it.
    if keys.clip_norm:
        rule = optax.chain(optax.clip_by_global_norm(keys.clip_norm), rule)
    if any(rate != 1 for _, rate, _ in keys.groups):
        rule = optax.chain(rule, optax.stateless(lambda steps, params: _scaled(config, steps)))
    return rule


def sgd(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return SGD with momentum and L2 decay: g += decay * p;  v = momentum * v + g;  p -= rate * v.

    Nesterov's form steps by g + momentum * v. The decay is coupled, as in the papers. Their code
    (Caffe) keeps the rate inside v, which is the same at a constant rate and differs just after the
    rate changes: at a drop, and at the end of a warm-up, when the old v is multiplied by the new
    rate here.
    """
    keys = config.optimizer
    return optax.chain(_decay(config), optax.sgd(rate, keys.momentum, keys.nesterov))


def adamw(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return Adam with decoupled decay: p -= rate * (m' / (sqrt(v') + epsilon) + decay * p).

    m and v are moving averages of g and g^2 with beta1 and beta2, and m' = m / (1 - beta1^t) and
    v' = v / (1 - beta2^t) correct their start at zero (t is the number of steps).
    Source: Loshchilov & Hutter 2019, arXiv:1711.05101, Algorithm 2, with the decay multiplied by
    the learning rate, as PyTorch and optax do.
    """
    return optax.chain(_adam(config), _decay(config), optax.scale_by_learning_rate(rate))


def lamb(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """Return LAMB: Adam's step u = m' / (sqrt(v') + epsilon) + decay * p, scaled for each tensor.

        p -= rate * u * |p| / |u|

    The factor is 1 for a tensor whose |p| or |u| is 0. Layers of a Stack are tensors of their own,
    although one array holds them.
    Source: You et al. 2020, arXiv:1904.00962, Algorithm 2, with phi(z) = z.
    """
    net = families.build(config)

    def trust(steps, params):
        return jax.tree.map(_trusted, steps, params, stacked_axes(net, params))

    step = optax.scale_by_learning_rate(rate)
    return optax.chain(_adam(config), _decay(config), optax.stateless(trust), step)


def _adam(config: Config) -> optax.GradientTransformation:
    keys = config.optimizer
    adam = optax.scale_by_adam(keys.beta1, keys.beta2, keys.epsilon)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        # optax raises beta to the power of an integer array, which strict promotion refuses.
        with jax.numpy_dtype_promotion("standard"):
            return adam.update(updates, state, params)

    return optax.GradientTransformation(adam.init, update)


def _trusted(step, p, stacked: int):
    axes = tuple(range(stacked, p.ndim))
    norm = lambda a: jnp.sqrt(jnp.square(a).sum(axes, keepdims=True))
    of_p, of_step = norm(p), norm(step)
    both = (of_p > 0) & (of_step > 0)
    return step * jnp.where(both, of_p / jnp.where(both, of_step, 1), 1)


def _decay(config: Config) -> optax.GradientTransformation:
    """Return the transformation that adds weight_decay * p, times the multiple of p's group."""
    decay = config.optimizer.weight_decay

    def add(steps, params):
        multiples = groups.multiples(config, params)
        return jax.tree.map(
            lambda step, p, m: step + decay * m.decay * p if m.decay else step,
            *(steps, params, multiples),
        )

    return optax.stateless(add)


def _scaled(config: Config, steps):
    multiples = groups.multiples(config, steps)
    return jax.tree.map(lambda s, m: s if m.rate == 1 else m.rate * s, steps, multiples)


def _check_sgd(config: Config) -> None:
    keys = config.optimizer
    if keys.nesterov and not keys.momentum:
        raise ValueError(
            "optimizer.nesterov=True changes nothing, because optimizer.momentum=0; leave it out "
            "or set optimizer.momentum"
        )


_COMMON = {
    "optimizer.decay": Key(
        "kernels",
        choice("kernels", "all"),
        "what decays: kernels, or all parameters but biases of gates",
    ),
    "optimizer.groups": Key(
        (), groups.ROWS, "rows (pattern of paths, multiple of the rate, multiple of the decay)"
    ),
    "optimizer.ema_decay": Key(
        0.0,
        FRACTION,
        "decay of moving averages of parameters and statistics, which are evaluated; 0 is none",
    ),
    "optimizer.clip_norm": Key(
        0.0, NOT_NEGATIVE, "largest norm of the gradient, over all parameters; 0 is no limit"
    ),
}


def _adaptive(rate: float, decay: float, epsilon: float) -> dict[str, Key]:
    return _COMMON | {
        "optimizer.learning_rate": Key(rate, POSITIVE, "the rate's peak, for the whole batch"),
        "optimizer.weight_decay": Key(decay, NOT_NEGATIVE, "times the rate, per weight and step"),
        "optimizer.beta1": Key(0.9, FRACTION, "of the gradients' moving average"),
        "optimizer.beta2": Key(0.999, FRACTION, "of the squared gradients' moving average"),
        "optimizer.epsilon": Key(epsilon, POSITIVE, "added to the root of the squares' average"),
    }


OPTIMIZERS: dict[str, Part] = {
    "sgd": Part(
        "SGD with momentum",
        build=sgd,
        keys=_COMMON
        | {
            "optimizer.learning_rate": Key(0.1, POSITIVE, "the rate's peak, for the whole batch"),
            "optimizer.momentum": Key(0.9, FRACTION, "of the gradients' moving sum"),
            "optimizer.nesterov": Key(False, ANY, "Nesterov's form of the momentum"),
            "optimizer.weight_decay": Key(1e-4, NOT_NEGATIVE, "added to the gradient, per weight"),
        },
        check=_check_sgd,
    ),
    "adamw": Part("Adam with decoupled decay", build=adamw, keys=_adaptive(1e-3, 0.01, 1e-8)),
    "lamb": Part(
        "Adam's step times |parameter| / |step|, of each tensor",
        build=lamb,
        keys=_adaptive(2e-3, 0.01, 1e-6),
    ),
}

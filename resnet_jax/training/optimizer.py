"""The learning rate as a function of the step, and the optimiser."""

import jax
import jax.numpy as jnp
import optax

from resnet_jax.config import Config


def learning_rate(
    peak: float,
    kind: str,
    boundaries: tuple[int, ...],
    factor: float,
    warmup_steps: int,
    warmup: str,
    warmup_factor: float,
) -> optax.Schedule:
    """Rate at a step, a pure function; boundaries are absolute steps, warm-up or not.

        piecewise   peak * factor^(number of boundaries <= step)
        cosine      peak / 2 * (1 + cos(pi (step - warmup_steps) / (end - warmup_steps)))
        constant    peak

    During warm-up: peak * warmup_factor (constant; He et al. 2016, sec. 5.1), or linear from
    there to the peak at `warmup_steps` (Goyal et al. 2017, arXiv:1706.02677, sec. 2.2).
    """

    def rate(step):
        step = jnp.asarray(step, jnp.float32)
        if kind == "piecewise":
            value = peak * factor ** sum(jnp.where(step >= b, 1.0, 0.0) for b in boundaries)
        elif kind == "cosine":
            part = (step - warmup_steps) / max(1, boundaries[0] - warmup_steps)
            value = 0.5 * peak * (1 + jnp.cos(jnp.pi * jnp.clip(part, 0, 1)))
        else:
            value = jnp.full((), peak)
        if warmup_steps:
            done = step / warmup_steps if warmup == "linear" else 0.0
            start = peak * (warmup_factor + (1 - warmup_factor) * done)
            value = jnp.where(step < warmup_steps, start, value)
        return jnp.asarray(value)

    return rate


def schedule(config: Config) -> optax.Schedule:
    """The config's learning rate."""
    s = config.schedule
    return learning_rate(
        config.optimizer.learning_rate,
        s.kind,
        tuple(s.boundaries),
        s.factor,
        s.warmup_steps,
        s.warmup,
        s.warmup_factor,
    )


def optimizer(config: Config) -> optax.GradientTransformation:
    """SGD with momentum and L2 decay: g += decay * p;  v = momentum * v + g;  p -= rate * v.

    Nesterov steps by g + momentum * v. The decay is coupled, as in the papers. Their code (Caffe)
    keeps the rate inside v: the same at a constant rate, different just after it drops.
    """
    o = config.optimizer
    mask = None if o.decay == "all" else kernels
    return optax.chain(
        optax.add_decayed_weights(o.weight_decay, mask),
        optax.sgd(schedule(config), o.momentum, o.nesterov),
    )


def kernels(params):
    """True for convolutions' and matrices' weights, False for norms and biases.

    By name: in a Stack a norm's scale has two axes, so the number of axes tells nothing.
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: getattr(path[-1], "key", None) == "kernel", params
    )

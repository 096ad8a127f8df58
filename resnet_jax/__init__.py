"""Residual networks of every kind and depth in JAX: what a skip connection changes.

One equation carries every network here (He et al. 2016, arXiv:1603.05027, eq. 1-2, with the `+`
made a parameter):

    z      = before(x_l)
    x_l+1  = after(merge(skip(z), body(z), z))

    resnet_jax.load(workdir)        a trained run: its config, network, state, and predictions
    resnet_jax.init(config, seed)   the variables of a network, compiled quickly

Axes in shape annotations: b batch, h w space, c channels in, d channels out, l layers of a stack,
t tokens, k steps of a chunk, y classes. Errors are fractions in [0, 1] in files and percent in
tables.
"""

# ruff: noqa: E402
from resnet_jax.run.interrupt import end_silently

# First of all: from here on Ctrl-C ends a command without a traceback while imports still run.
end_silently(__name__)

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_jax.trained import init, load

__version__ = metadata.version("resnet_jax")
__all__ = ("__version__", "init", "load")


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that `import resnet_jax` itself stays quick."""
    if name in ("init", "load"):
        from resnet_jax import trained

        return getattr(trained, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

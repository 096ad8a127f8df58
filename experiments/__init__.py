"""Claims about trained networks, one in each file: `python -m experiments` lists them."""

from resnet_jax.run.interrupt import end_silently

# First of all: from here on Ctrl-C ends a command without a traceback while imports still run.
end_silently(__name__)

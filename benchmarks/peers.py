"""The same networks in plain flax.linen: lax convolutions, nn.BatchNorm, autodiff.

They do not depend on `resnet_jax.models`, so that a benchmark compares with what would be written
without that package. Only `from_ours` knows its parameters. They are CIFAR ResNets of basic blocks
with option A (He et al. 2015, sec. 4.2), original and pre-activation (2016), in training mode.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nn.Module):
    """A basic block.

    In a pre-activation network the first block of a stage activates the input of both paths.
    """

    width: int
    stride: int = 1
    pre: bool = False
    first: bool = False

    @nn.compact
    def __call__(self, x, _=None):
        """Return (x', None), the form that a scan needs."""
        norm1, norm2 = _norm("norm1"), _norm("norm2")
        conv1 = _conv(self.width, self.stride, "conv1")
        conv2 = _conv(self.width, 1, "conv2")
        if self.pre:
            z = nn.relu(norm1(x))
            f = conv2(nn.relu(norm2(conv1(z))))
            return self._skip(z if self.first else x) + f, None
        f = norm2(conv2(nn.relu(norm1(conv1(x)))))
        return nn.relu(self._skip(x) + f), None

    def _skip(self, x):
        new = self.width - x.shape[-1]
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, new)))


class Plain(nn.Module):
    """The network, with every block written out or with a stage's equal blocks in an `nn.scan`."""

    stages: Sequence[int]
    pre: bool
    scan: bool = False
    width: int = 16
    num_classes: int = 10

    @nn.compact
    def __call__(self, x):
        """Return the logits (b, y) of images (b, h, w, c), normalised by the batch."""
        x = _conv(self.width, 1, "stem_conv")(x)
        if not self.pre:
            x = nn.relu(_norm("stem_norm")(x))
        for i, count in enumerate(self.stages):
            width, stride = self.width * 2**i, 1 if i == 0 else 2
            x, _ = Block(width, stride, self.pre, True, name=f"stage{i}_block0")(x)
            if self.scan:
                x, _ = nn.scan(
                    Block,
                    variable_axes={"params": 0, "batch_stats": 0},
                    split_rngs={"params": True},
                    length=count - 1,
                )(width, 1, self.pre, name=f"stage{i}_rest")(x, None)
                continue
            for j in range(1, count):
                x, _ = Block(width, 1, self.pre, name=f"stage{i}_block{j}")(x)
        if self.pre:
            x = nn.relu(_norm("norm")(x))
        return nn.Dense(self.num_classes, name="dense")(x.mean((1, 2)))


def _conv(width, stride, name):
    return nn.Conv(width, (3, 3), stride, padding=1, use_bias=False, name=name)


def _norm(name):
    return nn.BatchNorm(use_running_average=False, momentum=0.9, name=name)


def from_ours(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return this package's parameters of such a network, by the names of the unrolled `Plain`."""
    plain = {"stem_conv": params["stem"]["conv"], "dense": params["head"]["dense"]}
    if "norm" in params["stem"]:
        plain["stem_norm"] = params["stem"]["norm"]
    if "norm" in params:
        plain["norm"] = params["norm"]
    for i in range(sum(name.startswith("stage") for name in params)):
        blocks = []
        if first := params.get(f"stage{i + 1}_first"):
            lead = {"norm1": first["before"]} if "before" in first else {}
            skip = {f"skip_{part}": p for part, p in first.get("skip", {}).items()}
            blocks.append({**first["body"], **lead, **skip})
        if rest := params.get(f"stage{i + 1}"):
            layers = rest["layers"]["body"]
            depth = jax.tree.leaves(layers)[0].shape[0]
            blocks += [jax.tree.map(lambda a, l=l: a[l], layers) for l in range(depth)]
        plain |= {f"stage{i}_block{j}": block for j, block in enumerate(blocks)}
    return plain


def stack(params: Mapping[str, Any], stages: Sequence[int]) -> dict[str, Any]:
    """Return the parameters of the unrolled `Plain` in the form of the scanned `Plain`."""
    stacked = dict(params)
    for i, count in enumerate(stages):
        rest = [stacked.pop(f"stage{i}_block{j}") for j in range(1, count)]
        stacked[f"stage{i}_rest"] = jax.tree.map(lambda *a: jnp.stack(a), *rest)
    return stacked


def count(params: Any) -> int:
    """Return how many numbers a tree holds."""
    return sum(a.size for a in jax.tree.leaves(params))

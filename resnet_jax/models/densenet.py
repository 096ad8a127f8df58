"""DenseNet: every layer sees all layers before it, and adds k channels to them.

Huang et al. 2017 (arXiv:1608.06993):

| net | image | layers per stage | stem | depth | block |
|---|---|---|---|---|---|
| DenseNet (L, k), sec. 4.2 | < 64 | n, n, n | 16 | 3n+4 | basic: norm-relu-conv3 |
| DenseNet-BC (L, k) | < 64 | n, n, n | 2k | 6n+4 | bottleneck: norm-relu-conv1 to 4k first |
| DenseNet-BC, Table 1 | >= 64 | below | 2k | 121 161 169 201 264 | bottleneck |

BC also halves the channels between stages. Channels grow from layer to layer, so that a stage is a
loop and not a scan: compile time grows with depth.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn

from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.heads import Head, Pool
from resnet_jax.models.merges import concat
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Chain, Residual
from resnet_jax.models.resnet import SMALL, Stem, StemKind

IMAGENET = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
    264: (6, 12, 64, 48),
}


def densenet(
    stages: Sequence[int],
    *,
    growth: int,
    bottleneck: bool,
    num_classes: int,
    stem: StemKind = "3x3",
    dropout: float = 0.0,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = BatchNorm,
) -> Chain:
    """`stages[i]` layers of `growth` channels each; BC where `bottleneck`.

    `dropout` is its rate after every convolution (sec. 4.2: 0.2 without augmentation).
    """

    def body(*layers):
        return bodies.PreActivation(layers, dropout=dropout, conv=conv, norm=norm)

    new = bodies.Layer(growth)
    layer = body(bodies.Layer(4 * growth, 1), new) if bottleneck else body(new)
    channels = 2 * growth if bottleneck else 16
    blocks: dict[str, nn.Module] = {"stem": Stem(channels, stem, stem == "7x7", conv, norm)}
    for i, count in enumerate(stages, 1):
        blocks[f"stage{i}"] = Chain(
            {f"layer{j}": Residual(layer, merge=concat) for j in range(1, count + 1)}
        )
        channels += count * growth
        if i < len(stages):
            channels = channels // 2 if bottleneck else channels
            blocks[f"transition{i}"] = body(bodies.Layer(channels, 1))
            blocks[f"pool{i}"] = Pool(2, 2, kind="mean")
    blocks["norm"] = norm(relu=True)
    blocks["head"] = Head(num_classes)
    return Chain(blocks)


def densenet_stages(depth: int, bottleneck: bool, image: int) -> tuple[int, ...]:
    """Layers per stage. Raises: ValueError with the rule and the nearest two depths."""
    if image >= SMALL:
        if depth not in IMAGENET:
            low, high = sorted(sorted(IMAGENET, key=lambda d: abs(d - depth))[:2])
            raise ValueError(
                f"depth {depth} is no ImageNet DenseNet ({', '.join(map(str, IMAGENET))}); "
                f"nearest {low} and {high}"
            )
        return IMAGENET[depth]
    step = 6 if bottleneck else 3
    n, rest = divmod(depth - 4, step)
    if rest or n < 1:
        low = max(n, 1) * step + 4
        kind = "DenseNet-BC" if bottleneck else "DenseNet"
        raise ValueError(f"depth {depth} is not {step}n+4 ({kind}); nearest {low} and {low + step}")
    return (n, n, n)

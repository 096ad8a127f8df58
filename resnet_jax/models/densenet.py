"""DenseNet: every layer sees all layers before it, and adds k channels to them.

Huang et al. 2017 (arXiv:1608.06993):

| net | image | layers per stage | stem | depth | block |
|---|---|---|---|---|---|
| DenseNet (L, k), sec. 4.2 | < 64 | n, n, n | 16 | 3n+4 | basic: norm-relu-conv3 |
| DenseNet-BC (L, k) | < 64 | n, n, n | 2k | 6n+4 | bottleneck: norm-relu-conv1 to 4k first |
| DenseNet-BC, Table 1 | >= 64 | below | 2k | 121 161 169 201 264 | bottleneck |

BC also halves the channels between stages. Channels grow from layer to layer, so that a stage is a
loop in Python and not a scan: the time to compile grows with depth.
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn

from resnet_jax.keys import FRACTION, POSITIVE, SIZES, Config, Key, Part, choice, default
from resnet_jax.models import bodies
from resnet_jax.models.conv import Conv
from resnet_jax.models.family import (
    SMALL,
    Family,
    Layers,
    check_strides,
    given_stages,
    side,
    switches,
)
from resnet_jax.models.heads import Head, Pool
from resnet_jax.models.layout import Layout, Row
from resnet_jax.models.merges import concat
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Chain, Residual
from resnet_jax.models.stages import published
from resnet_jax.models.stem import Stem, StemKind

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
    num_outputs: int,
    stem: StemKind = "3x3",
    dropout: float = 0.0,
    conv: Callable[..., nn.Module] = Conv,
    norm: Callable[..., nn.Module] = BatchNorm,
) -> Chain:
    """Return `stages[i]` layers of `growth` channels each; DenseNet-BC if `bottleneck`.

    `dropout` is the rate of dropout after every convolution (sec. 4.2: 0.2 without augmentation).
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
    blocks["head"] = Head(num_outputs)
    return Chain(blocks)


def densenet_stages(depth: int, bottleneck: bool, image: int) -> tuple[int, ...]:
    """Return the layers in each stage.

    Raises: ValueError with the rule and the nearest two depths.
    """
    if image >= SMALL:
        return published(IMAGENET, depth, "ImageNet DenseNet")
    step = 6 if bottleneck else 3
    n, rest = divmod(depth - 4, step)
    if rest or n < 1:
        low = max(n, 1) * step + 4
        kind = "DenseNet-BC" if bottleneck else "DenseNet"
        raise ValueError(f"depth {depth} is not {step}n+4 ({kind}); nearest {low} and {low + step}")
    return (n, n, n)


def build(config: Config, layers: Layers) -> Chain:
    """Return the config's network."""
    model = config.model
    bottleneck = model.block == "bottleneck"
    stages = given_stages(config, 2 if bottleneck else 1, len(model.stages) + 1)
    stages = stages or densenet_stages(model.depth, bottleneck, side(layers.shape))
    check_strides(layers.shape, len(stages), model.stem)
    return densenet(
        stages,
        growth=model.growth,
        bottleneck=bottleneck,
        num_outputs=layers.num_outputs,
        stem=model.stem,
        dropout=model.dropout,
        conv=layers.conv,
        norm=layers.norm,
    )


def preset(depth: int, block: str | None, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return DenseNet (L, k), or DenseNet-BC of growth 32 (161 layers: 48) on large images.

    On small images it is BC if the depth is 6n+4 and not 40: the paper's DenseNet-40 is not BC.
    """
    large = side(shape) >= SMALL
    bottleneck = large or ((depth - 4) % 6 == 0 and depth != 40)
    return {
        "model.block": block or ("bottleneck" if bottleneck else "basic"),
    } | ({"model.growth": 48 if depth == 161 else 32} if large else {})


_ROWS = (
    Row("stem.conv", "features.conv0"),
    Row("stem.norm", "features.norm0"),
    Row("stage{s}.layer{j}.body.norm{k}", "features.denseblock{s}.denselayer{j}.norm{k}"),
    Row("stage{s}.layer{j}.body.conv{k}", "features.denseblock{s}.denselayer{j}.conv{k}"),
    Row("transition{s}.norm1", "features.transition{s}.norm"),
    Row("transition{s}.conv1", "features.transition{s}.conv"),
    Row("norm", "features.norm5"),
    Row("head.dense", "classifier"),
)

FAMILY = Family(
    "DenseNet and DenseNet-BC",
    build=build,
    keys={
        "model.stages": Key((), SIZES, "layers in each stage; () is the published network's"),
        "model.growth": Key(12, POSITIVE, "channels that each layer adds"),
        "model.stem": Key(default(densenet, "stem"), choice("3x3", "7x7"), "first convolution"),
        "model.dropout": Key(
            default(densenet, "dropout"), FRACTION, "rate of dropout after every convolution"
        ),
    },
    switches=switches(
        {
            "basic": Part("norm-relu-conv3"),
            "bottleneck": Part("norm-relu-conv1 to 4 x growth, norm-relu-conv3 (BC)"),
        },
        skips=("A",),
        merges=("concat",),
    ),
    preset=preset,
    depth=40,
    layouts=tuple(
        Layout(
            library,
            ("bottleneck",),
            lambda _: {"model.stem": "7x7", "norm.epsilon": 1e-5},
            lambda _: _ROWS,
            # The files that torchvision distributes have older names.
            old=((r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2"),),
        )
        for library in ("torchvision", "timm")
    ),
    unrolled=True,
)

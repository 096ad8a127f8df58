"""Write small networks of PyTorch's libraries, with an input and its logits, to tests/fixtures/.

    python scripts/make_fixtures.py [NAME...]        # without a name: all fixtures

It needs torch, torchvision and timm, which the package and its tests do not need. A fixture is a
safetensors file with the tensors `weights.*` under the library's names, `input` (NCHW, normalised)
and `logits`. Its metadata name the layout and the config of the same network in this package. A
fixture is a line of FIXTURES. Every parameter and statistic is drawn at random, so that no norm is
the identity and no bias zero, and two tensors of the same shape cannot be mixed up.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

FOLDER = Path(__file__).parent.parent / "tests" / "fixtures"
CLASSES = 5


class Fixture(NamedTuple):
    """A library's network and the config of the same network in this package.

    The images have `size` pixels on each side.
    """

    layout: str
    make: Callable[[], nn.Module]
    config: str  # configs/NAME.py:ARGUMENT
    changes: dict[str, Any]
    size: int = 32


def torchvision_resnet(
    block: str, stages: tuple[int, ...], width: int, **options: Any
) -> nn.Module:
    """Return torchvision's ResNet of any width; torchvision has no argument for widths but 64."""
    from torchvision.models import resnet

    class Narrow(resnet.ResNet):
        def _make_layer(self, block, planes, *rest, **options):
            if planes == 64:  # the first stage: the stem has just been made
                self.inplanes = width
                self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
                self.bn1 = nn.BatchNorm2d(width)
            return super()._make_layer(block, planes * width // 64, *rest, **options)

    kind = getattr(resnet, block)
    net = Narrow(kind, list(stages), num_classes=CLASSES, **options)
    net.fc = nn.Linear(8 * width * kind.expansion, CLASSES)
    return net


def torchvision_vgg(norm: bool, stages: tuple[int, ...]) -> nn.Module:
    """Return torchvision's VGG with one map in its first stage and 64 hidden units."""
    from torchvision.models.vgg import VGG, make_layers

    widths = [min(2**i, 8) for i in range(len(stages))]
    row = [v for w, n in zip(widths, stages, strict=True) for v in (*[w] * n, "M")]
    net = VGG(make_layers(row, norm), CLASSES)
    net.classifier = hidden(net.classifier, (49 * widths[-1], 64, 64, CLASSES))
    return net


def torchvision_alexnet() -> nn.Module:
    """Return torchvision's AlexNet with one map in its first layer and 64 hidden units."""
    from torchvision.models import AlexNet

    net, channels = AlexNet(CLASSES), 3
    for i, layer in enumerate(net.features):
        if isinstance(layer, nn.Conv2d):
            maps, place = layer.out_channels // 64, (layer.kernel_size, layer.stride, layer.padding)
            net.features[i], channels = nn.Conv2d(channels, maps, *place), maps
    net.classifier = hidden(net.classifier, (36 * channels, 64, 64, CLASSES))
    return net


def hidden(head: nn.Sequential, widths: tuple[int, ...]) -> nn.Sequential:
    """Return the same head with matrices of these widths."""
    pairs = iter(zip(widths, widths[1:], strict=False))
    return nn.Sequential(
        *(nn.Linear(*next(pairs)) if isinstance(m, nn.Linear) else m for m in head)
    )


def torchvision_densenet(stages: tuple[int, ...], growth: int) -> nn.Module:
    """Return torchvision's DenseNet-BC."""
    from torchvision.models import DenseNet

    return DenseNet(growth, stages, 2 * growth, num_classes=CLASSES)


def timm_resnetv2(stages: tuple[int, ...], width: int) -> nn.Module:
    """Return timm's ResNetV2, made as timm makes resnetv2_50."""
    from timm.layers import BatchNormAct2d, create_conv2d
    from timm.models.resnetv2 import ResNetV2

    return ResNetV2(
        list(stages),
        channels=tuple(4 * width * 2**i for i in range(len(stages))),
        num_classes=CLASSES,
        stem_chs=width,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )


def torchvision_vit(**sizes: int) -> nn.Module:
    """Return torchvision's Vision Transformer, whose MLP is four times as wide."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(mlp_dim=4 * sizes["hidden_dim"], num_classes=CLASSES, **sizes)


def timm_vit(**sizes: int) -> nn.Module:
    """Return timm's Vision Transformer, made as timm makes vit_base_patch16_224."""
    from timm.models import VisionTransformer

    return VisionTransformer(num_classes=CLASSES, **sizes)


class AkamasterBlock(nn.Module):
    """The block of github.com/akamaster/pytorch_resnet_cifar10, with option A."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.new = stride, width - channels

    def forward(self, x):
        """Return the block's output."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        side = self.new // 2
        kept = nn.functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, self.new - side)
        )
        return (y + kept).relu()


class Akamaster(nn.Module):
    """The network of github.com/akamaster/pytorch_resnet_cifar10."""

    def __init__(self, stages: tuple[int, ...], width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for i, count in enumerate(stages):
            out, blocks = width * 2**i, []
            for j in range(count):
                blocks.append(AkamasterBlock(channels, out, 2 if i and not j else 1))
                channels = out
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.stages = len(stages)
        self.linear = nn.Linear(channels, CLASSES)

    def forward(self, x):
        """Return the logits (b, y) of images (b, c, h, w)."""
        x = self.bn1(self.conv1(x)).relu()
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.linear(x.mean((2, 3)))


def resnet(stages: tuple[int, ...], width: int, layers: int = 2) -> dict[str, Any]:
    """Return the config values of a narrow ResNet, whose blocks have `layers` layers."""
    return {"model.stages": stages, "model.width": width, "model.depth": layers * sum(stages) + 2}


def vit(depth: int, width: int, heads: int, patch: int) -> dict[str, int]:
    """Return the config values of a small Vision Transformer."""
    sizes = {"depth": depth, "width": width, "heads": heads, "patch": patch}
    return {f"model.{key}": value for key, value in sizes.items()}


V15 = {"model.stride_at": "3x3"}
FIXTURES = {
    "torchvision_basic": Fixture(
        "torchvision",
        partial(torchvision_resnet, "BasicBlock", (2, 1, 3, 1), 2),
        "imagenet:depth=18",
        resnet((2, 1, 3, 1), 2),
    ),
    "torchvision_bottleneck": Fixture(
        "torchvision",
        partial(torchvision_resnet, "Bottleneck", (1, 3, 2, 1), 2),
        "imagenet:depth=50",
        resnet((1, 3, 2, 1), 2, layers=3) | V15,
    ),
    "torchvision_wide": Fixture(
        "torchvision",
        partial(torchvision_resnet, "Bottleneck", (1, 2, 1, 1), 2, width_per_group=128),
        "imagenet:family=wide,depth=50",
        resnet((1, 2, 1, 1), 2, layers=3),
        size=64,
    ),
    "torchvision_resnext": Fixture(
        "torchvision",
        partial(torchvision_resnet, "Bottleneck", (1, 2, 1, 1), 2, groups=2, width_per_group=64),
        "imagenet:family=resnext,depth=50",
        resnet((1, 2, 1, 1), 2, layers=3) | {"model.cardinality": 2},
    ),
    "torchvision_vgg": Fixture(
        "torchvision",
        partial(torchvision_vgg, False, (1, 1, 2, 2, 2)),
        "imagenet:family=vgg,depth=11",
        {"model.width": 1},
        size=64,
    ),
    "torchvision_vgg_bn": Fixture(
        "torchvision",
        partial(torchvision_vgg, True, (2, 2, 2, 2, 2)),
        "imagenet:family=vgg_bn,depth=13",
        {"model.width": 1},
        size=64,
    ),
    "torchvision_alexnet": Fixture(
        "torchvision",
        torchvision_alexnet,
        "imagenet:family=alexnet",
        {"model.width": 1},
        size=96,
    ),
    "torchvision_densenet": Fixture(
        "torchvision",
        partial(torchvision_densenet, (2, 3, 1, 2), 4),
        "imagenet:family=densenet,depth=121",
        {"model.stages": (2, 3, 1, 2), "model.growth": 4, "model.depth": 21},
    ),
    "timm_resnetv2": Fixture(
        "timm",
        partial(timm_resnetv2, (1, 3), 8),
        "imagenet:depth=50,block=preact_bottleneck",
        resnet((1, 3), 8, layers=3) | V15,
    ),
    "torchvision_vit": Fixture(
        "torchvision",
        partial(
            torchvision_vit, image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=12
        ),
        "imagenet:family=vit",
        vit(3, 12, 2, 8),
    ),
    "timm_vit": Fixture(
        "timm",
        partial(timm_vit, img_size=32, patch_size=8, depth=2, num_heads=3, embed_dim=12),
        "imagenet:family=vit",
        vit(2, 12, 3, 8),
    ),
    "akamaster": Fixture(
        "akamaster",
        partial(Akamaster, (2, 1, 2), 4),
        "cifar10_akamaster",
        resnet((2, 1, 2), 4),
        size=16,
    ),
}


def randomise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw parameters and statistics at random.

    Kernels get the variance 2 / fan-in, tokens and positions that of their addends, 1. All others
    are drawn around 1 or 0.
    """
    normal = lambda tensor: torch.randn(tensor.shape, generator=generator)
    for name, tensor in net.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.ndim == 3:  # a token, or positions
            tensor.copy_(normal(tensor))
        elif tensor.ndim > 1:
            tensor.copy_(normal(tensor) * (2 / tensor[0].numel()) ** 0.5)
        elif name.endswith("var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif name.endswith("weight"):
            tensor.copy_(1 + 0.3 * normal(tensor))
        else:
            tensor.copy_(0.3 * normal(tensor))


def write(name: str, fixture: Fixture) -> None:
    """Make, run and save a network."""
    generator = torch.Generator().manual_seed(0)
    net = fixture.make().eval()
    size, kept = fixture.size, {}
    with torch.no_grad():
        randomise(net, generator)
        images = torch.randn((2, 3, size, size), generator=generator)
        logits = net(images)
    for key, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            kept[f"weights.{key}"] = tensor.contiguous()
    changes = fixture.changes | {"data.shape": (size, size, 3), "model.num_classes": CLASSES}
    about = {"layout": fixture.layout, "config": fixture.config, "changes": json.dumps(changes)}
    path = FOLDER / f"{name}.safetensors"
    save_file(kept | {"input": images, "logits": logits}, path, about)
    print(f"{path}: {path.stat().st_size:,} bytes, logits to {logits.abs().max():.3g}")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or FIXTURES:
        write(name, FIXTURES[name])

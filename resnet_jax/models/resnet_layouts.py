"""The names of other libraries for residual networks and their blocks."""

from resnet_jax.models import layout
from resnet_jax.models.layout import Layout, Row

_COMMON_ROWS = (
    Row("stem.conv", "conv1"),
    Row("stem.norm", "bn1"),
    Row("stage{s}.{i}.body.conv{k}", "layer{s}.{i}.conv{k}"),
    Row("stage{s}.{i}.body.norm{k}", "layer{s}.{i}.bn{k}"),
)
TORCHVISION_ROWS = (
    *_COMMON_ROWS,
    Row("stage{s}.{i}.skip.conv", "layer{s}.{i}.downsample.0"),
    Row("stage{s}.{i}.skip.norm", "layer{s}.{i}.downsample.1"),
    Row("head.dense", "fc"),
)
RESNETV2_ROWS = (
    Row("stem.conv", "stem.conv"),
    # The first norm of a stage stands before both paths: ours belongs to the block.
    Row("stage{s}.{i}.before", "stages.{s-1}.blocks.{i}.norm1"),
    Row("stage{s}.{i}.body.norm{k}", "stages.{s-1}.blocks.{i}.norm{k}"),
    Row("stage{s}.{i}.body.conv{k}", "stages.{s-1}.blocks.{i}.conv{k}"),
    Row("stage{s}.{i}.skip.conv", "stages.{s-1}.blocks.{i}.downsample.conv"),
    Row("norm", "norm"),
    Row("head.dense", "head.fc", layout.ONE_TAP),
)
_IMAGENET = {
    "model.skip": "B",
    "model.merge": "add",
    "model.gains": (1.0, 1.0),
    "model.stem": "7x7",
    "norm.epsilon": 1e-5,
}
_CIFAR = _IMAGENET | {"model.skip": "A_split", "model.stem": "3x3"}
_STRIDE_AT_3X3 = _IMAGENET | {"model.stride_at": "3x3"}
# torchvision.models.resnet and timm.models.resnet use the same names.
BOTTLENECK_LAYOUTS = tuple(
    Layout(library, ("bottleneck",), lambda _: _STRIDE_AT_3X3, lambda _: TORCHVISION_ROWS)
    for library in ("torchvision", "timm")
)
LAYOUTS = (
    *(
        Layout(library, ("basic",), lambda _: _IMAGENET, lambda _: TORCHVISION_ROWS)
        for library in ("torchvision", "timm")
    ),
    *BOTTLENECK_LAYOUTS,
    # timm.models.resnetv2, resnetv2_50 and deeper. Its basic blocks project where ours keep.
    Layout("timm", ("preact_bottleneck",), lambda _: _STRIDE_AT_3X3, lambda _: RESNETV2_ROWS),
    # github.com/akamaster/pytorch_resnet_cifar10
    Layout(
        "akamaster",
        ("basic",),
        lambda _: _CIFAR,
        lambda _: (*_COMMON_ROWS, Row("head.dense", "linear")),
    ),
)

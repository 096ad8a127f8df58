"""Compare this package's networks with torchvision's and timm's, at full size, on equal weights.

    python scripts/check_parity.py [NAME...] [--markdown]      # without a name: all networks

It needs torch, torchvision and timm. Every parameter and statistic is drawn at random, so that none
is trivial (make_fixtures.randomise). Both networks run in evaluation mode on two random images in
float32. The script prints the number of parameters and max |difference| / max |logit|, which must
be at most 1e-4. The exported weights must be the imported ones bit for bit, and the library must
take them by a strict load_state_dict.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from make_fixtures import randomise  # noqa: E402

from configs import imagenet_torchvision  # noqa: E402
from resnet_jax import families, weights  # noqa: E402

# For each name of a library: layout, the argument of the config, pixels on each side of an image,
# and further values of the config.
NETWORKS = {
    "resnet18": ("torchvision", "depth=18", 96),
    "resnet34": ("torchvision", "depth=34", 96),
    "resnet50": ("torchvision", "depth=50", 96),
    "resnet101": ("torchvision", "depth=101", 96),
    "resnet152": ("torchvision", "depth=152", 96),
    "wide_resnet50_2": ("torchvision", "family=wide,depth=50", 96),
    "resnext50_32x4d": ("torchvision", "family=resnext,depth=50", 96),
    "alexnet": ("torchvision", "family=alexnet", 224),
    "vgg11": ("torchvision", "family=vgg,depth=11", 96),
    "vgg13": ("torchvision", "family=vgg,depth=13", 96),
    "vgg16": ("torchvision", "family=vgg,depth=16", 96),
    "vgg19": ("torchvision", "family=vgg,depth=19", 96),
    "vgg11_bn": ("torchvision", "family=vgg_bn,depth=11", 96),
    "vgg16_bn": ("torchvision", "family=vgg_bn,depth=16", 96),
    "vgg19_bn": ("torchvision", "family=vgg_bn,depth=19", 96),
    "densenet121": ("torchvision", "family=densenet,depth=121", 96),
    "densenet169": ("torchvision", "family=densenet,depth=169", 96),
    "densenet201": ("torchvision", "family=densenet,depth=201", 96),
    "densenet161": ("torchvision", "family=densenet,depth=161", 96),
    "vit_b_16": ("torchvision", "family=vit,depth=12", 224),
    "vit_b_32": ("torchvision", "family=vit,depth=12", 224, {"model.patch": 32}),
    "vit_l_16": ("torchvision", "family=vit,depth=24", 224),
    "timm/resnet50": ("timm", "depth=50", 96),
    "timm/wide_resnet50_2": ("timm", "family=wide,depth=50", 96),
    "timm/resnext50_32x4d": ("timm", "family=resnext,depth=50", 96),
    "timm/resnetv2_50": ("timm", "depth=50,block=preact_bottleneck", 96),
    "timm/vgg16_bn": ("timm", "family=vgg_bn,depth=16", 224),
    "timm/densenet121": ("timm", "family=densenet,depth=121", 96),
    "timm/vit_base_patch16_224": ("timm", "family=vit,depth=12", 224),
}
LIMIT = 1e-4


def library_network(name: str) -> torch.nn.Module:
    """Return the library's network of that name, with random weights and statistics."""
    library, _, model = name.rpartition("/")
    if library == "timm":
        import timm

        net = timm.create_model(model)
    else:
        import torchvision

        net = torchvision.models.get_model(model, weights=None)
    with torch.no_grad():
        randomise(net, torch.Generator().manual_seed(0))
    return net.eval()


def compare(name: str) -> tuple[int, float]:
    """Return the number of parameters, and the largest difference over the largest logit."""
    layout, argument, size, *changes = NETWORKS[name]
    net = library_network(name)
    config = imagenet_torchvision.get_config(argument)
    config.update_from_flattened_dict({"data.shape": (size, size, 3), **dict(*changes)})
    tensors = {k: v.numpy() for k, v in net.state_dict().items() if v.is_floating_point()}
    variables = weights.from_tensors(tensors, layout, config)
    images = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(images).numpy()
    nhwc = jnp.asarray(images.numpy().transpose(0, 2, 3, 1))
    ours = np.asarray(jax.jit(families.build(config).apply)(variables, nhwc))
    exported = weights.to_tensors(variables, layout, config)
    assert exported.keys() == tensors.keys()
    assert all((exported[name] == tensor).all() for name, tensor in tensors.items())
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in exported.items()}, strict=True)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return count, float(np.abs(ours - expected).max() / np.abs(expected).max())


def main() -> None:
    """Compare and print; the status is 1 if a difference is beyond the limit."""
    markdown = "--markdown" in sys.argv
    names = [word for word in sys.argv[1:] if word != "--markdown"] or list(NETWORKS)
    row = "| {} | {:,} | {:.1e} |" if markdown else "{:26} {:12,} {:.1e}"
    worst = 0.0
    for name in names:
        count, difference = compare(name)
        worst = max(worst, difference)
        print(row.format(name, count, difference), flush=True)
    sys.exit(0 if worst <= LIMIT else 1)


if __name__ == "__main__":
    main()

"""Our networks against torchvision's and timm's, at full size: logits on the same weights.

    python scripts/check_parity.py [NAME...] [--markdown]      # all of them without a name

Needs torch, torchvision and timm. Every parameter and statistic is drawn at random, none is
trivial (make_fixtures.randomise); both networks run in evaluation mode on two random images in
float32. Printed are the parameters and max |difference| / max |logit|, which must be at most 1e-4;
the weights must come back bit for bit, and into theirs by a strict load_state_dict.
"""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from make_fixtures import randomise  # noqa: E402

from resnet_jax import families, weights  # noqa: E402

# Name there -> layout, our config's argument, pixels a side, and what else our config changes.
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


def theirs(name: str) -> torch.nn.Module:
    """The network of that name, with random weights and statistics."""
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
    """Parameters, and the largest difference of a logit over the largest logit."""
    layout, argument, size, *changes = NETWORKS[name]
    net = theirs(name)
    config = importlib.import_module("configs.imagenet_torchvision").get_config(argument)
    with config.unlocked():
        config.update_from_flattened_dict({"data.shape": (size, size, 3), **dict(*changes)})
    kept = {k: v.numpy() for k, v in net.state_dict().items() if v.is_floating_point()}
    variables = weights.from_tensors(kept, layout, config)
    images = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(images).numpy()
    nhwc = jnp.asarray(images.numpy().transpose(0, 2, 3, 1))
    ours = np.asarray(jax.jit(families.build(config).apply)(variables, nhwc))
    back = weights.to_tensors(variables, layout, config)
    assert back.keys() == kept.keys() and all((back[k] == kept[k]).all() for k in kept)
    net.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in back.items()}, strict=True)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return count, float(np.abs(ours - expected).max() / np.abs(expected).max())


def main() -> None:
    """Compare and print; status 1 where a difference is beyond the limit."""
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

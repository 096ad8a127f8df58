"""What blocks and layers of published networks are: shapes, kernels, costs and projections.

The networks are those of `identity_census`, at their published sizes, and nothing is trained.
Published: He et al. 2015 (arXiv:1512.03385), Fig. 5 (two blocks of "similar" costs), Krizhevsky et
al. 2012, Simonyan & Zisserman 2014 (arXiv:1409.1556) and Vaswani et al. 2017 (arXiv:1706.03762).
The MLP of a Transformer layer is compared with the same weights as 1x1 convolutions.

    python -m experiments.census_blocks --workdir=runs/census_blocks
"""

from experiments import claim
from experiments.census import measure, plan
from experiments.claim import Claim, Statement, Verdict
from experiments.results import Row
from experiments.rows import where
from resnet_jax import command

COST, ROUNDING = 0.1, 1e-12


def shapes(rows: list[Row]) -> Verdict:
    """Return whether blocks change shapes at stage changes alone, and two blocks cost the same."""
    rows = [row for row in rows if row["net"] in ("resnet", "ladder", "wide", "resnext")]
    costs = {row["arm"]: row["body_macs"] for row in rows}
    if not {"v1-basic-imagenet", "v1-bottleneck"} <= costs.keys():
        return Verdict(None, "The costs are those of resnet:34 and resnet:50.")
    changed = sum(row["reshape_inside"] for row in rows)
    ratio = costs["v1-bottleneck"] / costs["v1-basic-imagenet"]
    return Verdict(
        changed == 0 and abs(ratio - 1) <= COST,
        f"{changed} of {sum(row['inside'] for row in rows)} blocks within stages change the shape. "
        f"A bottleneck of ResNet-50 has {ratio:.1%} of the multiply-adds of ResNet-34's block.",
    )


def sizes(rows: list[Row]) -> Verdict:
    """Return whether AlexNet has 8 layers and 11x11 kernels, and VGG has 3x3 alone."""
    of = {name: where(rows, arm=name) for name in ("alexnet", "vgg")}
    if not all(of.values()):
        return Verdict(None, "The statement is about alexnet:8 and vgg:16.")
    (alex,), (vgg,) = of.values()
    holds = (alex["layers"], max(alex["kernels"]), vgg["kernels"]) == (8, 11, [3])
    said = [f"{n} has {r['layers']} layers, kernels {r['kernels']}" for n, (r,) in of.items()]
    return Verdict(holds, f"{'; '.join(said)}.")


def tokens(rows: list[Row]) -> Verdict:
    """Return whether a Transformer layer has the blocks, layers and form of the statement."""
    if not (own := where(rows, net="vit")):
        return Verdict(None, "The statement is about vit:12.")
    row = own[0]
    numbers = (row["blocks_a_depth"], row["layers_a_depth"], row["mlp_widening"])
    return Verdict(
        numbers == (2, 4, 4) and row["form_difference"] <= ROUNDING,
        f"A layer has {numbers[0]:g} blocks and {numbers[1]:g} weighted layers (96 layers: "
        f"{96 * numbers[1]:g}, and 2 more in the network); its MLP widens {numbers[2]:g} times "
        f"and differs from 1x1 convolutions by {row['form_difference']:.0e}.",
    )


CLAIM = Claim(
    name="census_blocks",
    says="Blocks keep the shape of their input except at stage changes, and a bottleneck costs as "
    "much as a basic block of a quarter of its channels.",
    source="He et al. 2015, arXiv:1512.03385, sec. 3.3 and Fig. 5",
    rule="in the networks of ResNet's families no block but the first of a stage changes the "
    f"shape, and the multiply-adds of the two blocks at 56x56 differ by at most {COST:.0%}",
    plan=plan,
    measure=measure,
    judge=shapes,
    kind="exact",
    columns=dict.fromkeys(("layers", "blocks", "inside", "reshape_inside", "body_macs"), "g"),
    models=(
        *(("resnet", depth) for depth in (34, 50, 110, 164)),
        *(("ladder", 110), ("wide", 28), ("resnext", 29), ("vit", 12), ("vgg", 16), ("alexnet", 8)),
    ),
    further=(
        Statement(
            "census_kernels",
            "AlexNet has 8 layers and kernels up to 11x11; VGG stacks 3x3 kernels alone.",
            "Krizhevsky et al. 2012; Simonyan & Zisserman 2014, arXiv:1409.1556, sec. 2.1",
            "AlexNet has 8 weighted layers and its largest kernel is 11x11; VGG's kernels are 3x3",
            sizes,
        ),
        Statement(
            "census_tokens",
            "A Transformer layer is two residual blocks with four projections; its MLP is an "
            "inverse bottleneck, and a linear map of tokens is a 1x1 convolution.",
            "Vaswani et al. 2017, arXiv:1706.03762, sec. 3; Dosovitskiy et al. 2021",
            "ViT has 2 blocks and 4 weighted layers a layer (queries, keys and values are one), "
            f"its MLP widens 4 times, and differs from 1x1 convolutions by at most {ROUNDING:.0e} "
            "in float64",
            tokens,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

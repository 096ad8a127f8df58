"""Two 3x3 layers train to a lower test error than one 5x5 layer that sees as much.

Simonyan & Zisserman 2014 (arXiv:1409.1556), sec. 2.3 and 4.1: their network B, each pair of 3x3
layers replaced by one 5x5 layer, has a top-1 error on ImageNet that is 7 points higher. Here every
body of a plain network is two 3x3 layers or one 5x5 layer, with a norm and a ReLU behind each
layer, so that both networks see the same pixels behind the same bodies and have 18 and 25 weights
for each pair of channels. At the two changes of stage a pair sees 7x7 pixels, because its first
layer has the stride. The second network has about half as many layers.

    python -m experiments.small_kernels_train --workdir=runs/small_kernels_train
"""

from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import larger
from resnet_jax.reporting import points


def plan(options: Options) -> list[Run]:
    """Return a plain network of 3x3 pairs, and the one in which a 5x5 layer stands for each pair.

    Raises: ValueError for several networks, and for a network that is no ResNet of basic blocks.
    """
    options.refuse_several()
    ((family, depth),) = options.networks
    bodies, rest = divmod(depth - 2, 2)
    if family != "resnet" or rest or bodies % 3:
        raise ValueError(
            f"{family}:{depth} has no three equal stages of pairs of layers; use a ResNet of 6n+2 "
            "layers, such as --models=resnet:20"
        )
    single = {"block": "single", "skip": "none"}
    return [
        run
        for seed in options.seeds(5)
        for run in (
            options.run(
                f"two-3x3-{depth}",
                (family, depth),
                seed,
                arm="two-3x3",
                switches={"block": "basic", "skip": "none"},
            ),
            options.run(
                f"one-5x5-{bodies + 2}",
                (family, bodies + 2),
                seed,
                arm="one-5x5",
                switches=single,
                values={"model.kernel_size": 5},
            ),
        )
    ]


def judge(rows: list[Row]) -> Verdict:
    """Test whether the network of 5x5 layers has the higher test error."""
    if idle := learned_nothing(rows):
        return Verdict(None, idle)
    small, large = (sample(rows, "test_error", arm=name) for name in ("two-3x3", "one-5x5"))
    counts = {row["arm"]: row["parameters"] for row in rows}
    return Verdict.of(
        larger(large, small, 0.0),
        f"The test error is {fmean(large):.2%} with 5x5 layers ({counts['one-5x5']:,} parameters) "
        f"and {fmean(small):.2%} with pairs of 3x3 layers ({counts['two-3x3']:,}).",
    )


def control(rows: list[Row]) -> list[Row]:
    """Return the networks of 3x3 layers in the place of those of 5x5 layers, too."""
    small = where(rows, arm="two-3x3")
    return small + relabelled(small, arm="one-5x5")


def test_error(rows: list[Row]) -> Figure:
    """Draw the test error of both networks."""
    return points.by_group(rows, "test_error", ".1%")


CLAIM = Claim(
    name="small_kernels_train",
    says="A plain network of pairs of 3x3 layers has a lower test error than one with a 5x5 layer "
    "in the place of each pair.",
    source="Simonyan & Zisserman 2014, arXiv:1409.1556, sec. 4.1",
    rule="the test error with 5x5 layers exceeds that with pairs of 3x3 layers: one-sided Welch "
    "test over seeds, p < 0.01. Not decided if a network is at chance",
    plan=plan,
    judge=judge,
    figures=(test_error,),
    control=control,
    against="the networks of 3x3 layers in the place of those of 5x5 layers",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

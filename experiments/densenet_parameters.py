"""A DenseNet needs fewer parameters than a residual network for an equal test error.

Huang et al. 2016 (arXiv:1608.06993), Table 2 and Fig. 4: on CIFAR-10+ a DenseNet-BC of 100 layers
and 0.8 million parameters has a test error of 4.51 %, the pre-activation ResNet of 1001 layers and
10.2 million parameters has 4.62 %. Here a DenseNet-BC of 22 layers, whose blocks add 12 channels
each, is compared with a residual network of 20 layers.

    python -m experiments.densenet_parameters --workdir=runs/densenet_parameters
"""

from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, sample, where, with_other_seeds
from resnet_jax import command
from resnet_jax.analysis.statistics import no_worse
from resnet_jax.reporting import points

MARGIN, SHARE = 0.01, 0.5


def plan(options: Options) -> list[Run]:
    """Return a DenseNet and a residual network. Raises: ValueError for other networks."""
    families = [family for family, _ in options.networks]
    if sorted(families) != ["densenet", "resnet"]:
        raise ValueError(
            f"{', '.join(families)}: the claim compares one DenseNet with one ResNet, such as "
            "--models=densenet:22,resnet:20"
        )
    return options.each()


def judge(rows: list[Row]) -> Verdict:
    """Test whether the DenseNet is as good with less than half the parameters."""
    if idle := learned_nothing(rows):
        return Verdict(None, idle)
    dense, residual = (sample(rows, "test_error", arm=name) for name in ("densenet", "resnet"))
    counts = {row["arm"]: row["parameters"] for row in rows}
    share = counts["densenet"] / counts["resnet"]
    said = (
        f"The DenseNet has {counts['densenet']:,} parameters, {share:.2f} of the residual "
        f"network's {counts['resnet']:,}; test errors are {fmean(dense):.2%} and "
        f"{fmean(residual):.2%}."
    )
    if share >= SHARE:
        return Verdict(False, said)
    return Verdict.of(no_worse(dense, residual, MARGIN), said)


def control(rows: list[Row]) -> list[Row]:
    """Return residual networks of other seeds in the place of the DenseNets."""
    residual = where(rows, arm="resnet")
    return residual + with_other_seeds(residual, arm="densenet")


def test_error(rows: list[Row]) -> Figure:
    """Draw the test error against the number of parameters."""
    return points.figure(rows, "parameters", "test_error", ".1%")


CLAIM = Claim(
    name="densenet_parameters",
    says="A DenseNet reaches a residual network's test error with less than half the parameters.",
    source="Huang et al. 2016, arXiv:1608.06993, Table 2 and Fig. 4",
    rule="the DenseNet has less than half the parameters, and its test error exceeds the residual "
    "network's by less than 1 point: non-inferiority test over seeds, p < 0.01. Not decided if a "
    "network is at chance",
    plan=plan,
    judge=judge,
    models=(("densenet", 22), ("resnet", 20)),
    figures=(test_error,),
    control=control,
    against="residual networks of other seeds, of full size, in the place of the DenseNets",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

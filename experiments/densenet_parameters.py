"""A DenseNet needs fewer parameters than a residual network for an equal test error.

Huang et al. 2016 (arXiv:1608.06993), Table 2 and Fig. 4: on CIFAR-10+ a DenseNet-BC of 100 layers
and 0.8 million parameters has a test error of 4.51 %, the pre-activation ResNet of 1001 layers and
10.2 million parameters has 4.62 %. Here a DenseNet-BC of 22 layers, whose blocks add 12 channels
each, is compared with a residual network of 20 layers. The control is a residual network of 8
layers, which is as small as the DenseNet: if it is as good, the yes is not about DenseNets.

    python -m experiments.densenet_parameters --workdir=runs/densenet_parameters
"""

from collections.abc import Callable
from statistics import fmean

from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.statistics import no_worse
from resnet_jax.reporting import points

MARGIN, SHARE = 0.01, 0.5


def plan(options: Options) -> list[Run]:
    """Return a DenseNet and two residual networks. Raises: ValueError for other networks."""
    families = [family for family, _ in options.networks]
    if sorted(families) != ["densenet", "resnet", "resnet"]:
        raise ValueError(
            f"{', '.join(families)}: the claim compares one DenseNet with a large and a small "
            "ResNet, such as --models=densenet:22,resnet:20,resnet:8"
        )
    return options.each()


def judge(rows: list[Row]) -> Verdict:
    """Test whether the DenseNet is as good with less than half the parameters."""
    if idle := learned_nothing(rows):
        return Verdict(None, idle)
    dense, large = where(rows, arm="densenet"), residual(rows, max)
    share = dense[0]["parameters"] / large[0]["parameters"]
    errors, reference = ([row["test_error"] for row in own] for own in (dense, large))
    said = (
        f"The DenseNet has {dense[0]['parameters']:,} parameters, {share:.2f} of the residual "
        f"network's {large[0]['parameters']:,}; test errors are {fmean(errors):.2%} and "
        f"{fmean(reference):.2%}."
    )
    if share >= SHARE:
        return Verdict(None, f"{said} The statement is about less than half.")
    return Verdict.of(no_worse(errors, reference, MARGIN), said)


def residual(rows: list[Row], pick: Callable[..., int]) -> list[Row]:
    """Return the rows of the largest (max) or the smallest (min) residual network."""
    own = where(rows, arm="resnet")
    return where(own, parameters=pick(row["parameters"] for row in own))


def control(rows: list[Row]) -> list[Row]:
    """Return the smallest residual network in the place of the DenseNet."""
    return residual(rows, max) + relabelled(residual(rows, min), arm="densenet")


def test_error(rows: list[Row]) -> Figure:
    """Draw the test error against the number of parameters."""
    return points.figure(rows, "parameters", "test_error", ".1%")


CLAIM = Claim(
    name="densenet_parameters",
    says="A DenseNet reaches a residual network's test error with less than half the parameters.",
    source="Huang et al. 2016, arXiv:1608.06993, Table 2 and Fig. 4",
    rule="the DenseNet has less than half the parameters, and its test error exceeds the residual "
    "network's by less than 1 point: non-inferiority test over seeds, p < 0.01. Not decided if a "
    "network is at chance, or the DenseNet has half of the parameters or more",
    plan=plan,
    judge=judge,
    models=(("densenet", 22), ("resnet", 20), ("resnet", 8)),
    figures=(test_error,),
    control=control,
    against="a residual network as small as the DenseNet in its place",
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

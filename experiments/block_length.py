"""How many convolutions a skip connection should pass: bodies of 1, 2, 3 and 4 at equal depth.

He et al. 2016 (arXiv:1603.05027), Table 3: ResNet-110 with skip connections over one convolution
has a test error of 9.90 % on CIFAR-10, with skip connections over two 6.61 %. Zagoruyko & Komodakis
2016 (arXiv:1605.07146), Table 3, from memory: the WRN-40-2 with bodies of 1, 2, 3 and 4
convolutions has 6.69, 5.43, 5.65 and 5.93 %. They show test errors; training errors are judged
here.

The depths 38, 74, 110, ... 36n + 2 have all four, with as many parameters and operations. On digits
110 layers train for 90 steps, three epochs: in a pilot of one seed and 300 steps, bodies of one and
of two convolutions ended with training errors of 0.3 and 0.0 %, which leaves nothing to compare
(with 38 layers every length did). So it is how fast they train that is compared.

    python -m experiments.block_length --workdir=runs/block_length
"""

from statistics import fmean

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import learned_nothing, relabelled, sample, where
from resnet_jax import command
from resnet_jax.analysis.statistics import every, larger, no_worse
from resnet_jax.reporting import points

MARGIN, FLOOR = 0.02, 0.01
LENGTHS = {"one": "single", "two": "basic", "three": "triple", "four": "quadruple"}
STEP = 36  # the smallest number of convolutions that bodies of all lengths fill in three stages


def plan(options: Options) -> list[Run]:
    """Return the network of every length. Raises: ValueError for a depth that not all have."""
    (family, depth), *others = options.networks
    if others:
        raise ValueError("the claim compares bodies at one depth; give one network")
    if (depth - 2) % STEP or depth < STEP:
        near = max(1, round((depth - 2) / STEP)) * STEP + 2
        raise ValueError(
            f"{family}:{depth} has no blocks of 1, 2, 3 and 4 convolutions; their common depths "
            f"are 36n+2, nearest --depths={near}"
        )
    arms = {name: {"block": block, "skip": "A"} for name, block in LENGTHS.items()}
    return options.arms(arms)


def errors(rows: list[Row]) -> dict[str, list[float]]:
    """Return {length: the training errors over seeds}."""
    return {name: sample(rows, "train_error", arm=name) for name in LENGTHS}


def says(rows: list[Row]) -> str:
    """Return the mean training error of each length, in words."""
    said = (f"{name}: {fmean(of):.1%}" for name, of in errors(rows).items() if of)
    return f"Training errors by the number of convolutions in a body: {', '.join(said)}."


def uncomparable(rows: list[Row], *names: str) -> str:
    """Return why the lengths cannot be compared, in words, or ""."""
    if idle := learned_nothing(where(rows, arm="two")):
        return idle
    if all(fmean(errors(rows)[name]) < FLOOR for name in names):
        return f"{says(rows)} Both fit their training data, so that nothing is left to compare."
    return ""


def one_is_worse(rows: list[Row]) -> Verdict:
    """Test whether a body of one convolution trains worse than a body of two."""
    if idle := uncomparable(rows, "one", "two"):
        return Verdict(None, idle)
    of = errors(rows)
    return Verdict.of(larger(of["one"], of["two"], MARGIN), says(rows))


def two_or_three(rows: list[Row]) -> Verdict:
    """Test whether bodies of two and of three convolutions train alike."""
    if idle := uncomparable(rows, "two", "three"):
        return Verdict(None, idle)
    of = errors(rows)
    test = every(no_worse(of["two"], of["three"], MARGIN), no_worse(of["three"], of["two"], MARGIN))
    return Verdict.of(test, says(rows))


def in_the_place_of(own: str, other: str):
    """Return a control: the rows of length `own` in the place of length `other`."""

    def control(rows: list[Row]) -> list[Row]:
        kept = [row for row in rows if row["arm"] != other]
        return kept + relabelled(where(rows, arm=own), arm=other)

    return control


def training_error(rows: list[Row]):
    """Draw the training error of each length."""
    return points.by_group(rows, "train_error", ".1%")


UNDECIDED = "Not decided if the bodies of two are at chance, or if both errors are below 1 point"
CLAIM = Claim(
    name="block_length",
    says="A skip connection over one convolution trains worse than a skip connection over two.",
    source="He et al. 2016, arXiv:1603.05027, Table 3 (test errors)",
    rule="at equal depth and with as many parameters, the training error with bodies of one "
    "convolution exceeds that with bodies of two by more than 2 points: one-sided Welch test over "
    f"seeds, p < 0.01. {UNDECIDED}",
    plan=plan,
    steps=90,
    judge=one_is_worse,
    depths=lambda dataset, full: (110,),
    figures=(training_error,),
    control=in_the_place_of("two", "one"),
    against="bodies of two convolutions in the place of bodies of one",
    further=(
        Statement(
            "two_or_three",
            "Bodies of two and of three convolutions train alike.",
            "He et al. 2015, arXiv:1512.03385, sec. 3.2 (a body has two or three layers)",
            "neither training error exceeds the other by 2 points or more: two non-inferiority "
            f"tests over seeds, p < 0.01 for both. {UNDECIDED}",
            two_or_three,
            in_the_place_of("one", "three"),
            "bodies of one convolution in the place of bodies of three",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

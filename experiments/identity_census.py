"""What the skips of published networks are: a census of every family in this repository.

Each network is built as its paper has it, at its published size, and no weight of a body is drawn:
what a skip hands on is seen if a body of zeros stands in the place of the block's own body, and the
input is random and has both signs. Nothing is trained. Published: He et al. 2015
(arXiv:1512.03385), Fig. 2 (the identity, then a ReLU) and He et al. 2016 (arXiv:1603.05027),
Fig. 1: pre-activation leaves nothing but the sum. `census_blocks` counts the layers.

The first statement is the story's, and is expected to be false: v1 ResNets have a ReLU after each
sum. (On the network's own signal, which is not negative behind a ReLU, that ReLU changes nothing
while all bodies are zero; it cuts the sum as soon as they are not.) BERT, with a norm after the
sum, and AlphaGo Zero, with a ReLU there, would fail too; they, GPT and the LSTM are later networks
and not in this census. Nor are AlphaStar and AlphaFold, which are not built here.

The families are those that we chose to build, so that a share over them is no share over the
literature.

    python -m experiments.identity_census --workdir=runs/identity_census
"""

from statistics import median

from experiments import claim
from experiments.census import MODELS, measure, plan
from experiments.claim import Claim, Statement, Verdict
from experiments.results import Row
from experiments.rows import relabelled, where
from resnet_jax import command
from resnet_jax.reporting import points


def identities(rows: list[Row]) -> Verdict:
    """Return whether every block that has a skip and keeps its shape hands on all inputs."""
    rows = with_skips(rows)
    if not rows:
        return Verdict(False, "No network has a skip connection.")
    cut = [row for row in rows if row["pass"] < row["keep"]]
    said = ", ".join(f"{row['arm']} {row['pass']} of {row['keep']}" for row in rows)
    why = " Where some do not, an activation follows the sum or is shared with the skip." * bool(
        cut
    )
    return Verdict(not cut, f"Blocks with a skip that hand on every input unchanged: {said}.{why}")


def steps(rows: list[Row]) -> Verdict:
    """Return whether v1 has one operation a block on the skip path, and v2 none."""
    of = {v: [r for r in rows if r["arm"].startswith(v)] for v in ("v1", "v2")}
    if not all(of.values()):
        return Verdict(None, "The statement is about resnet:110 or resnet:164, and one of v1.")
    paths = {v: [n for row in own for n in row["operations_inside"]] for v, own in of.items()}
    said = "; ".join(
        f"{v} has {sum(path)} operations in {len(path)} blocks within stages, and "
        f"{sum(row['operations'] for row in of[v]) - sum(path)} in the "
        f"{sum(row['blocks'] for row in of[v]) - len(path)} first ones"
        for v, path in paths.items()
    )
    return Verdict(set(paths["v1"]) == {1} and set(paths["v2"]) == {0}, f"{said}.")


def mostly(rows: list[Row]) -> Verdict:
    """Return whether most networks with skips have mostly identities."""
    own = with_skips(rows)
    shares = {row["arm"]: row["identity"] / row["skips"] for row in own}
    if not shares:
        return Verdict(False, "No network has a skip connection.")
    total = sum(row["identity"] for row in own) / sum(row["skips"] for row in own)
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Verdict(median(shares.values()) > 0.5, f"Identities: {total:.0%} of all skips; {said}.")


def with_skips(rows: list[Row]) -> list[Row]:
    """Return the networks that have skip connections."""
    return [row for row in rows if row["skips"]]


def plain(rows: list[Row]) -> list[Row]:
    """Return the networks that have none."""
    return [row for row in rows if not row["skips"]]


def gated(rows: list[Row]) -> list[Row]:
    """Return the highway networks alone."""
    return where(rows, net="highway")


def v1_for_v2(rows: list[Row]) -> list[Row]:
    """Return the v1 networks in the place of the v2 networks."""
    own = [row for row in rows if row["arm"].startswith("v1")]
    return own + relabelled(own, arm="v2")


def identity_skips(rows: list[Row]):
    """Draw the share of identities among the skips of each network."""
    name = "identities among the skips"
    shown = [row | {name: row["identity"] / row["skips"]} for row in with_skips(rows)]
    return points.by_group(shown, name, ".0%")


V1_V2 = "He et al. 2016, arXiv:1603.05027, Fig. 1"
CLAIM = Claim(
    name="identity_census",
    says="Networks with skip connections keep an identity path through all blocks: with bodies of "
    "zero, every block that keeps its shape hands on any input unchanged.",
    source="the story, row 5, as worded; contradicted by He et al. 2015, arXiv:1512.03385, Fig. 2",
    rule="in every network of the census that has skips, the output of every block that keeps the "
    "shape equals a random input of both signs bit for bit if zeros stand in the place of its body "
    "(a concatenation: its first channels). At least one network has skips",
    plan=plan,
    measure=measure,
    judge=identities,
    kind="exact",
    columns=dict.fromkeys(
        ("layers", "blocks", "identity", "padded", "projected", "gated", "none", "operations"), "g"
    ),
    models=MODELS,
    figures=(identity_skips,),
    control=plain,
    against="the networks without skips: VGG, AlexNet, LeNet and the plain ResNet",
    further=(
        Statement(
            "census_mostly_identities",
            "The skips of today's networks are mostly identities.",
            "the story, row 52; He et al. 2016, arXiv:1603.05027, sec. 3",
            "in more than half of the networks with skips, more than half of the skips are the "
            "identity without a factor (a concatenation counts, an activation after the sum is "
            "not asked for)",
            mostly,
            gated,
            "the highway networks alone",
        ),
        Statement(
            "census_skip_path",
            "Between its blocks, v1 has one operation a block on the skip path; pre-activation "
            "(v2) has none.",
            V1_V2,
            "in the blocks of all stages but their first ones, v1 has exactly one operation a "
            "block on the path from x to x' beside the sum, and v2 has none",
            steps,
            v1_for_v2,
            "v1 in the place of v2",
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

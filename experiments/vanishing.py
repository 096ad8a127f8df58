"""Skip connections help against vanishing gradients, "to some extent".

A gradient vanishes if it falls exponentially with the layers between it and the loss (Hochreiter
1991; Glorot & Bengio 2010). The measure is log10 |dE/dx_first| / |dE/dx_last|, at the inputs of the
first and the last block of a network at its start, in float64, with l2 norms over the batch.

The start matters. He's start (He et al. 2015, arXiv:1502.01852) draws kernels from N(0, 2/n) with n
the fan-in, so that no vanishing is expected in a plain ReLU network of wide layers and large
images; before it the variance was 1/n, which halves the squared gradient in every layer. The first
statement asks for both. On small images zero padding lowers the gradient, too: in the digits' three
stages of 8x8, 4x4 and 2x2 pixels a 3x3 kernel sees 84, 69 and 44 % of its pixels on average, so
that plain networks vanish at He's start as well. `exploding` has the networks with batch norm.

The margin of a decade was chosen before the residual networks were measured.

    python -m experiments.vanishing --workdir=runs/vanishing
"""

from collections.abc import Mapping
from statistics import fmean

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments import claim
from experiments.claim import Claim, Statement, Verdict
from experiments.network import opened
from experiments.plan import Options, Run
from experiments.results import Row
from experiments.rows import by_depth, relabelled, where
from resnet_jax import command
from resnet_jax.analysis.norms import gradient_norms
from resnet_jax.analysis.statistics import every, interaction, no_rise, rises
from resnet_jax.reporting import points

MARGIN = 1.0  # decades
ARMS = {
    "plain-no-norm": {"skip": "none", "norm": "none"},
    "resnet-no-norm": {"skip": "A", "norm": "none"},
}
STARTS = {"he": 1.0, "glorot": 0.5**0.5}  # a factor of the kernels


def plan(options: Options) -> list[Run]:
    """Return every arm at every depth, untrained. Raises: ValueError for one depth."""
    options.refuse_one_depth()
    return options.arms(ARMS, 5, trained=False)


def measure(run: Run, starts: Mapping[str, float] = STARTS) -> list[Row]:
    """Return the decades of each start, and the gradient of every block over the last one's."""
    row = {"seed": run.config.seed}
    with jax.enable_x64(True):
        network = opened(run, wide=True)
        for name, factor in starts.items():
            norms = np.asarray(network.measured(gradients, factor=factor))
            ratios = np.maximum(norms / norms[-1], 1e-300)
            row |= {f"decades_{name}": float(np.log10(ratios[0])), f"ratios_{name}": ratios}
    return [{key: a.tolist() if isinstance(a, np.ndarray) else a for key, a in row.items()}]


def gradients(apply, variables, x, loss, factor):
    """Return the gradient's norm at the input of each block, with kernels times `factor`."""
    scaled = lambda path, a: a * factor if path[-1].key == "kernel" else a
    params = jax.tree.map_with_path(scaled, variables["params"])
    return gradient_norms(apply, {**variables, "params": params}, x, loss, train=True)


def of(rows: list[Row], arm: str, start: str, sign: int = 1) -> dict[int, list[float]]:
    """Return the decades of an arm by depth, times `sign`: -1 makes a fall a rise."""
    own = by_depth(rows, f"decades_{start}", arm=arm)
    return {depth: [sign * value for value in values] for depth, values in own.items()}


def ends(rows: list[Row], arm: str, start: str) -> str:
    """Return the mean decades of the shallowest and the deepest network of an arm in words."""
    own = of(rows, arm, start)
    return f"{fmean(own[min(own)]):+.1f} to {fmean(own[max(own)]):+.1f}"


def helped(rows: list[Row]) -> Verdict:
    """Test whether gradients vanish in plain networks without norms and not in residual ones."""
    tests, said = [], []
    for start in STARTS:
        plain, residual = (of(rows, f"{arm}-no-norm", start, -1) for arm in ("plain", "resnet"))
        tests += [rises(plain, MARGIN), no_rise(residual, MARGIN)]
        tests += [interaction(plain, residual, MARGIN)]
        told = (ends(rows, f"{arm}-no-norm", start) for arm in ("plain", "resnet"))
        said.append("{} start: plain {}, residual {}".format(start.capitalize(), *told))
    depths = sorted(plain)
    return Verdict.of(
        every(*tests),
        f"Decades between the gradients at the first and the last block, from {depths[0]} to "
        f"{depths[-1]} layers without norms. {'; '.join(said)}.",
    )


def kept(rows: list[Row]) -> Verdict:
    """Test whether residual networks without norms keep the gradient's size at any depth."""
    sides = (of(rows, "resnet-no-norm", "he", sign) for sign in (1, -1))
    return Verdict.of(
        every(*(no_rise(side, MARGIN) for side in sides)),
        f"Decades of residual networks without norms: {ends(rows, 'resnet-no-norm', 'he')}.",
    )


def control(rows: list[Row]) -> list[Row]:
    """Return the plain networks in the place of the residual ones."""
    plain = [(name, where(rows, arm=f"plain{name}")) for name in ("", "-no-norm")]
    return [row for name, own in plain for row in (*own, *relabelled(own, arm=f"resnet{name}"))]


def by_start(start: str, rows: list[Row]) -> Figure:
    """Draw the decades of a start against the depth."""
    return points.figure(rows, "depth", f"decades_{start}", "+.1f")


def he(rows: list[Row]) -> Figure:
    """Draw the decades at He's start."""
    return by_start("he", rows)


def glorot(rows: list[Row]) -> Figure:
    """Draw the decades at the start with half the variance."""
    return by_start("glorot", rows)


def by_block(rows: list[Row]) -> Figure:
    """Draw the gradient by block at He's start, for the deepest networks of the first seed."""
    chosen = {"depth": max(row["depth"] for row in rows), "seed": min(row["seed"] for row in rows)}
    label = "gradient over the last block's"
    return points.by_block(where(rows, **chosen), "ratios_he", label, log_y=True)


AGAINST = "the plain networks in the place of the residual ones"
SIZE = (
    "the logarithm to base 10 of the gradient's norm at the input of the first block over that of "
    "the last, as a line in log2(depth) through all depths for each seed, "
)
CLAIM = Claim(
    name="vanishing",
    says="Skip connections help against vanishing gradients: without norms the gradient at the "
    "start falls with depth in plain networks, and not in residual ones.",
    source="Hochreiter 1991; Glorot & Bengio 2010; He et al. 2015, arXiv:1512.03385, sec. 1",
    rule=f"without norms, {SIZE}falls by more than 1 decade over the depths in plain networks and "
    "by less than 1 in residual ones, and the first fall exceeds the second of the same seed by "
    "more than 1; with kernels of variance 2/n, and with 1/n: one-sided t tests over seeds, p < "
    "0.01 for each of the six",
    plan=plan,
    judge=helped,
    kind="init",
    measure=measure,
    columns={f"decades_{start}": "+.2f" for start in STARTS},
    depths=lambda dataset, full: (20, 32, 44, 56, 110) if full else (20, 56, 110),
    figures=(he, glorot, by_block),
    control=control,
    against=AGAINST,
    further=(
        Statement(
            "skips_keep_gradients",
            "Skip connections alone keep the gradient's size at any depth.",
            "ours; against it Zhang et al. 2019, arXiv:1901.09321, sec. 2 (it grows as 2^L)",
            f"in residual networks without norms, with kernels of variance 2/n, {SIZE}neither "
            "falls nor rises by 1 decade: two one-sided t tests over seeds, p < 0.01 for both",
            kept,
            control,
            AGAINST,
        ),
    ),
)
main = claim.command(CLAIM)

if __name__ == "__main__":
    command.run(main)

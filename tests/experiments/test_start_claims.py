"""Claims on signals and gradients: what the rules say of invented rows, the plans, and one network.

The claims are vanishing, exploding, not_vanishing, healthy_gradients, dilution,
shattered_gradients, and those about the loss surface.
"""

import numpy as np
import pytest

from experiments import (
    depth_roughens,
    dilution,
    exploding,
    healthy_gradients,
    loss_landscape,
    network,
    not_vanishing,
    sharpness,
    shattered_gradients,
    vanishing,
)
from experiments.network import opened

GRADIENTS = (vanishing.CLAIM, exploding.CLAIM)
HEALTH = (not_vanishing.CLAIM, healthy_gradients.CLAIM)
SURFACE = (loss_landscape.CLAIM, sharpness.CLAIM, depth_roughens.CLAIM)
CLAIMS = (*GRADIENTS, *HEALTH, dilution.CLAIM, shattered_gradients.CLAIM)
NOISE = 0.01
DEPTHS = (20, 56, 110)


def made(arms, depths=DEPTHS, seeds=5, **common):
    """Return rows; arms = {arm: {column: a value for each depth}}. Each number has own noise."""
    random = np.random.default_rng(0)
    return [
        {"model": f"{arm}-{depth}", "arm": arm, "depth": depth, "seed": seed}
        | {"chance_error": 0.9, **common}
        | {column: of[i] + random.uniform(-NOISE, NOISE) for column, of in columns.items()}
        for seed in range(seeds)
        for i, depth in enumerate(depths)
        for arm, columns in arms.items()
    ]


def verdicts(claims, rows):
    return [of.judge(rows).holds for claim in claims for of in claim.statements]


def of_controls(claims, rows):
    return [of.judge(of.control(rows)).holds for claim in claims for of in claim.statements]


FLAT, FALLS, GROWS = (0.0, 0.0, 0.0), (-1.0, -3.0, -6.0), (1.0, 3.0, 6.0)


def signs(plain_bare, residual_bare, plain, residual, **fields):
    both = lambda of: {"decades_he": of, "decades_glorot": of}
    arms = {"plain-no-norm": plain_bare, "resnet-no-norm": residual_bare}
    arms |= {"plain": plain, "resnet": residual}
    return made({name: both(of) for name, of in arms.items()}, **fields)


@pytest.mark.parametrize(
    "rows,helped,kept,explodes",
    [
        (signs(FALLS, FLAT, GROWS, FLAT), True, True, True),
        (signs(FALLS, GROWS, GROWS, FLAT), True, False, True),
        (signs(FALLS, FALLS, GROWS, GROWS), False, False, False),
        (signs(FLAT, FLAT, FLAT, FLAT), False, True, False),
        (signs(FALLS, FLAT, GROWS, FLAT, seeds=2), None, None, None),
    ],
)
def test_vanishing_and_exploding(rows, helped, kept, explodes):
    assert verdicts(GRADIENTS, rows) == [helped, kept, explodes]
    assert True not in of_controls(GRADIENTS, signs(FALLS, FLAT, GROWS, FLAT))


def degrading(start=GROWS, end=FLAT, errors=(0.0, 0.1, 0.3), **fields):
    plain = {"decades_start": start, "decades_end": end, "train_error": errors}
    return made({"plain": plain, "plain-no-norm": {"decades_start": FALLS}}, **fields)


@pytest.mark.parametrize(
    "rows,holds",
    [
        (degrading(), (True, False, True)),
        (degrading(start=FLAT), (True, True, True)),
        (degrading(start=FALLS), (False, False, True)),
        (degrading(end=(4.0, 4.0, 4.0)), (True, False, False)),  # as large at any depth
        (degrading(end=FALLS), (False, False, False)),
        (degrading(errors=FLAT), (False, False, True)),
        (degrading(errors=(0.9, 0.9, 0.9)), (None, False, None)),
        (degrading(seeds=2), (None, None, None)),
    ],
)
def test_not_vanishing(rows, holds):
    assert verdicts(HEALTH, rows) == list(holds)
    assert True not in of_controls(HEALTH, rows)


def shares(identity, gained, **fields):
    equal = [((depth - 2) / 6) ** -0.5 for depth in DEPTHS]
    columns = lambda log2: {
        "share": [2**v for v in log2],
        "of_equal_share": [2**v / e for v, e in zip(log2, equal, strict=True)],
        "log2_share": log2,
    }
    return made({"identity": columns(identity), "gains-0.5": columns(gained)}, **fields)


def test_dilution():
    power, fast = [-0.8, -1.6, -2.1], [-2.0, -8.0, -17.0]
    holds = lambda rows: verdicts([dilution.CLAIM], rows)
    assert holds(shares(power, fast)) == [True, True]
    assert holds(shares(fast, fast)) == [False, False]
    assert holds(shares(power, power)) == [True, False]
    assert holds(shares(power, fast, seeds=2)) == [None, None]
    assert of_controls([dilution.CLAIM], shares(power, fast)) == [False, False]


def test_shattered_gradients():
    claims = [shattered_gradients.CLAIM]
    arms = lambda *values: dict(
        zip(shattered_gradients.ARMS, ({"autocorrelation": of} for of in values), strict=True)
    )
    falls, less, flat = (0.6, 0.3, 0.0), (0.8, 0.65, 0.5), (0.8, 0.8, 0.8)
    holds = lambda *values, **fields: verdicts(claims, made(arms(*values), **fields))
    assert holds(falls, less, flat) == [True, False, False]
    assert holds(falls, flat, falls) == [True, True, True]
    assert holds(falls, falls, falls) == [False, False, False]
    assert holds(falls, flat, falls, seeds=2) == [None, None, None]
    assert True not in of_controls(claims, made(arms(falls, flat, falls)))


def surfaces(plain, residual, error=0.05, **fields):
    columns = lambda of: {
        **{name: [10**v for v in of] for name in ("rise_running", "rise_batch", "eigenvalue")},
        **{f"log_{name}": of for name in ("rise_running", "rise_batch", "eigenvalue")},
        "train_error": (error,) * 3,
    }
    return made({"plain": columns(plain), "resnet": columns(residual)}, **fields)


def test_loss_landscape():
    holds = lambda *arms, **fields: verdicts(SURFACE, surfaces(*arms, **fields))
    rough, smooth, steep = (-1.0, 0.0, 1.0), (-1.0, -1.0, -1.0), (1.0, 1.0, 1.0)
    assert holds(rough, smooth) == [True, True, True]
    assert holds(steep, smooth) == [True, True, False]
    assert holds((0.0, -1.0, -2.0), (0.0, -2.0, -4.0))[2] is False  # depth smooths both
    assert holds(smooth, smooth) == [False, False, False]
    assert holds(rough, smooth, seeds=2) == [None, None, None]
    assert holds(rough, smooth, error=0.3) == [None, None, None]  # they have not fitted
    assert of_controls(SURFACE, surfaces(rough, smooth)) == [False, False, False]


def test_the_arms_differ_in_what_is_compared(options):
    def keys(run):
        config = run.config
        norm, gains = config.norm.kind, config.model.get("gains")
        return config.model.skip, norm, gains and gains[0], run.trained

    plans = {claim.name: claim.plan(options(20, 56, seeds_per_model=1)) for claim in CLAIMS}
    told = {name: [keys(run) for run in runs if run.config.model.depth == 20]
            for name, runs in plans.items()}  # fmt: skip
    assert told["vanishing"] == [
        ("none", "none", 1, False), ("A", "none", 1, False),
    ]  # fmt: skip
    assert told["exploding"] == [("none", "batch", 1, False), ("A", "batch", 1, False)]
    assert told["not_vanishing"] == [
        ("none", "batch", 1, True), ("A", "batch", 1, True), ("none", "none", 1, False),
    ]  # fmt: skip
    assert [of[2] for of in told["dilution"]] == [1, 0.5]
    assert told["shattered_gradients"] == [
        ("none", "batch", 1, False), ("A", "batch", 1, False), ("none", "none", 1, False),
    ]  # fmt: skip


@pytest.mark.parametrize("claim", [*CLAIMS, *SURFACE], ids=lambda claim: claim.name)
def test_one_depth_is_refused(claim, options):
    with pytest.raises(ValueError, match="only depth"):
        claim.plan(options(20))


def test_dilution_needs_two_blocks_of_a_shape(options):
    with pytest.raises(ValueError, match=r"resnet:8 .* use --depths=20,56"):
        dilution.plan(options(8, 20))


def test_a_data_set_without_the_claims_batch_is_refused_before_it_is_read(options):
    (run,) = options(8).arms({"plain": {"skip": "none"}}, 1)
    network.check(run.config, {"train": 64, "test": 256})
    with pytest.raises(ValueError, match="test has 297 examples; the claim needs 500"):
        network.check(run.config, {"test": 500})
    (run,) = options(8, overrides={"data.stream": "always"}).arms({"plain": {"skip": "none"}}, 1)
    with pytest.raises(ValueError, match="digits is streamed; .*--config.data.stream=never"):
        network.check(run.config, {"test": 256})
    network.check(run.config, {})


def test_seeds_share_a_network_and_what_is_compiled(options):
    first, second = options(8, 14).arms({"plain": {"skip": "none"}}, 2, trained=False)[::2]
    networks = [opened(run, examples=4) for run in (first, second)]
    assert networks[0].net is networks[1].net
    traced = []
    count = lambda apply, variables, x, loss, factor: (
        traced.append(0) or factor * loss(apply(variables, x))
    )
    losses = [float(network.measured(count, factor=2.0)) for network in networks]
    own = [float(2 * n.loss(n.net.apply(n.variables, n.x))) for n in networks]
    assert len(traced) == 1 and losses[0] != losses[1]
    np.testing.assert_allclose(losses, own, rtol=1e-5)


def test_a_network_measured_by_the_claims_of_the_start(options):
    """Eight layers: three blocks, whose last one has the ratio 1 in every claim."""
    (run, *_) = vanishing.plan(options(8, 14, seeds_per_model=1))
    (row,) = vanishing.measure(run)
    assert len(row["ratios_he"]) == 3 and row["ratios_he"][-1] == row["ratios_glorot"][-1] == 1
    assert row["decades_glorot"] < row["decades_he"]
    # Of four layers between the blocks' inputs each halves the square of a gradient.
    assert row["decades_glorot"] - row["decades_he"] == pytest.approx(-2 * np.log10(2), abs=1e-3)


def test_rises_are_those_at_the_distance_on_both_sides():
    losses = np.array([[9.0, 3.0, 9.0, 1.0, 9.0, 2.0, 9.0], [0, 1, 0, 1, 0, 1, 0]])
    assert loss_landscape.rises_of(losses).tolist() == [1.5, 0.0]

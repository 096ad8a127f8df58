"""Claims that are equations or counts: their rules on invented rows, and small networks.

Networks whose float64 programs compile for many seconds are marked slow; their instruments have
tests with closed forms in tests/analysis/.
"""

import pytest

from experiments import (
    census,
    census_blocks,
    densenet_paths,
    identity_census,
    open_gates,
    signal,
    small_kernels,
    small_residuals,
)
from experiments.claim import judged
from experiments.plan import check

CLAIMS = (identity_census, small_kernels, signal, small_residuals, densenet_paths, open_gates)


def row(arm, **columns):
    return {"model": f"{arm}-20", "arm": arm, "depth": 20, "seed": 0} | columns


def verdicts(module, rows):
    """Return {statement: (verdict, verdict on the control)}; rules of untrained runs."""
    result = {}
    for statement in module.CLAIM.statements:
        told = judged(statement, rows, [])
        control = told["control"]["holds"] if told["control"] else None
        result[statement.name] = (told["verdict"]["holds"], control)
    return result


def measured(module, runs):
    return [
        {"model": run.model, "arm": run.arm, "depth": run.config.model.depth} | row
        for run in runs
        for row in module.CLAIM.measure(run)
    ]


def small(options, *networks, **overrides):
    """Options for narrow networks."""
    return options(networks=networks, overrides={"model.width": "4"} | overrides)


@pytest.mark.parametrize("module", CLAIMS)
def test_every_claim_is_exact_and_has_a_control(module):
    assert module.CLAIM.kind == "exact" and module.CLAIM.control is not None
    assert module.__name__ == f"experiments.{module.CLAIM.name}"


def test_the_census_says_no_as_worded_and_yes_of_what_holds(options):
    networks = (("resnet", 110), ("highway", 50), ("vgg", 16), ("alexnet", 8))
    runs = identity_census.plan(options(networks=networks))
    check(runs, options(networks=networks))
    assert [run.arm for run in runs] == [
        "v1-basic", "v2-basic", "plain", "highway-dense", "vgg", "alexnet",
    ]  # fmt: skip
    rows = measured(identity_census, runs)
    v1, v2, plain = rows[:3]
    assert (v1["identity"], v1["padded"], v1["pass"], v1["operations"]) == (52, 2, 0, 56)
    assert (v2["identity"], v2["pass"], sum(v2["operations_inside"])) == (52, 51, 0)
    assert plain["skips"] == plain["operations"] == 0
    told = verdicts(identity_census, rows)
    assert told["identity_census"] == (False, False)
    assert told["census_mostly_identities"] == (True, False)
    assert told["census_skip_path"] == (True, False)
    told = verdicts(census_blocks, rows)
    assert told["census_kernels"] == (True, None)
    assert told["census_tokens"] == (None, None) and told["census_blocks"] == (None, None)
    only = [row for row in rows if row["arm"] == "v2-basic"]
    only = [only[0] | {"pass": 52}]
    assert identity_census.identities(only).holds is True
    assert census_blocks.sizes([rows[-1], rows[-2] | {"kernels": [3, 5]}]).holds is False


def test_the_census_compares_a_transformer_layer_with_convolutions():
    forms = census.forms(8)
    assert forms["mlp_widening"] == 4 and forms["form_difference"] <= 1e-12
    one = row("vit", net="vit", blocks_a_depth=2.0, layers_a_depth=4.0, **forms)
    assert census_blocks.tokens([one]).holds is True
    assert census_blocks.tokens([one | {"form_difference": 1e-6}]).holds is False


def test_the_census_compares_the_costs_of_blocks():
    def blocks(cost, changed=0):
        one = {"net": "resnet", "reshape_inside": changed, "inside": 4}
        return [
            row("v1-basic-imagenet", body_macs=100, **one),
            row("v1-bottleneck", body_macs=cost, **one),
        ]

    assert census_blocks.shapes(blocks(95)).holds is True
    assert census_blocks.shapes(blocks(80)).holds is False
    assert census_blocks.shapes(blocks(95, changed=1)).holds is False


def test_the_census_refuses_what_is_not_published(options):
    with pytest.raises(ValueError, match="resnet:20 is not of the census; --models takes resnet:"):
        identity_census.plan(options(20))


def test_stacks_of_small_kernels_see_as_much(options):
    rows = [small_kernels.row("stack", 2, 3, 0), small_kernels.row("single", 1, 5, 0)]
    assert [(row["pixels"], row["weights_by_c2"]) for row in rows] == [(5, 18), (5, 25)]
    rows = [
        small_kernels_row(group, layers, size, pixels, weights)
        for group, layers, size, pixels, weights in (
            *(("stack", n, 3, 2 * n + 1, 9 * n) for n in (1, 2, 3)),
            *(("single", 1, n, n, n**2) for n in (3, 5, 7)),
        )
    ]
    told = verdicts(small_kernels, rows)
    assert set(told.values()) == {(True, False)}
    assert small_kernels.sees([rows[0] | {"pixels": 5}, *rows[1:]]).holds is False
    with pytest.raises(ValueError, match="the claim has its own stacks of layers"):
        small_kernels.plan(options(8, 20))


def small_kernels_row(group, layers, size, pixels, weights):
    stands_for = 2 * layers + 1 if group == "stack" else size
    columns = {"stands_for": stands_for, "pixels": pixels, "weights_by_c2": weights}
    return row(group, **columns) | {"depth": layers}


def signals(eq4=1e-16, eq5=1e-16, factor=0.5, kept=1.0):
    one = {"eq4": eq4, "eq5": eq5, "factors": [kept] * 3, "log2_product": kept - 1}
    gate = {"eq4": None, "eq5": None, "factors": [factor] * 3, "log2_product": -3.0}
    return [
        *(row(name, **one) for name in signal.SUMS),
        row("v1-start", **one | {"eq4": 0.5, "eq5": 0.5}),
        *(row(name, **gate) for name in signal.FACTORS),
    ]


def test_the_equations_of_the_signal_hold_within_rounding():
    assert set(verdicts(signal, signals()).values()) == {(True, False)}
    assert [v for v, _ in verdicts(signal, signals(eq4=1e-9)).values()] == [False, True, True]
    assert [v for v, _ in verdicts(signal, signals(eq5=1e-9)).values()] == [True, False, True]
    assert [v for v, _ in verdicts(signal, signals(factor=0.95)).values()] == [True, True, False]
    assert [v for v, _ in verdicts(signal, signals(kept=0.9)).values()] == [True, True, False]


@pytest.mark.slow
def test_the_signal_is_a_sum_in_a_small_network(options):
    runs = signal.plan(small(options, ("resnet", 14)))
    assert [run.arm for run in runs] == [*signal.START, "v2-trained"]
    assert [run.trained for run in runs] == [False] * 5 + [True]
    v2, scaled = (dict(run.config.model.items()) for run in (runs[0], runs[2]))
    assert v2["block"] == "preact_basic" and scaled["gains"] == (0.5, 0.5)
    rows = measured(signal, [runs[0], runs[2]])
    assert rows[0]["eq4"] <= 1e-14 and rows[0]["eq5"] <= 1e-14 and rows[0]["log2_product"] == 0
    assert rows[1]["factors"] == [0.5] * 4 and rows[1]["log2_product"] == -4
    with pytest.raises(ValueError, match="vgg:11 has no pre-activation blocks of one"):
        signal.plan(options(networks=(("vgg", 11),)))


def ratios(residual, plain):
    return [row("residual", blocks=2, ratios=residual), row("plain", blocks=2, ratios=plain)]


def test_gradients_survive_small_bodies():
    near, power = [1 + e for e in small_residuals.SCALES], [e**2 for e in small_residuals.SCALES]
    assert set(verdicts(small_residuals, ratios(near, power)).values()) == {(True, False)}
    away = [0.9 + e for e in small_residuals.SCALES]
    assert small_residuals.survives(ratios(away, power)).holds is False
    slower = [e**1.5 for e in small_residuals.SCALES]
    assert small_residuals.vanishes(ratios(near, slower)).holds is False


@pytest.mark.slow
def test_gradients_survive_small_bodies_in_a_small_network(options):
    runs = small_residuals.plan(small(options, ("resnet", 20)))
    residual, plain = (dict(run.config.model.items()) for run in runs)
    assert residual.pop("skip") == "A" and plain.pop("skip") == "none" and residual == plain
    rows = measured(small_residuals, runs)
    assert set(verdicts(small_residuals, rows).values()) == {(True, False)}
    with pytest.raises(ValueError, match="resnet:8 has no run of two blocks; use --models"):
        small_residuals.plan(options(8))


@pytest.mark.slow
def test_dense_layers_see_all_earlier_layers(options):
    runs = densenet_paths.plan(options(networks=(("densenet", 10), ("resnet", 8))))
    rows = measured(densenet_paths, runs)
    assert [row["stages"] for row in rows] == [[[1, 2]] * 3, [[1]] * 3]
    assert [(row["kept"], row["blocks"]) for row in rows] == [(6, 6), (0, 3)]
    rows[1] |= {"stages": [[1, 1]] * 3}  # one block has one connection in both kinds
    assert set(verdicts(densenet_paths, rows).values()) == {(True, False)}
    with pytest.raises(ValueError, match="resnet:8 is no DenseNet; give one, as --models=dense"):
        densenet_paths.plan(options(8))


def test_open_gates_are_a_residual_network():
    def rows(two, coupled):
        arms = {"two-gates": two, "coupled": coupled}
        return [row(name, outputs=d, gradients=d) for name, d in arms.items()]

    falling, stays = [1.0, 1e-2, 1e-4, 1e-7, 1e-14], [1.0] * 5
    assert set(verdicts(open_gates, rows(falling, stays)).values()) == {(True, False)}
    slow = [1.0, 0.5, 0.2, 0.1, 0.05]
    assert {v for v, _ in verdicts(open_gates, rows(slow, stays)).values()} == {False}
    # A rule that the coupled gate fulfils too shows nothing.
    assert {v for v, _ in verdicts(open_gates, rows(falling, falling)).values()} == {None}


@pytest.mark.slow
def test_open_gates_are_a_small_residual_network(options):
    runs = open_gates.plan(small(options, ("resnet", 8)))
    assert [run.config.model.merge for run in runs] == ["two_gate", "exclusive_gate"]
    rows = measured(open_gates, runs)
    assert set(verdicts(open_gates, rows).values()) == {(True, False)}

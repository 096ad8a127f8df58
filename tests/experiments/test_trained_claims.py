"""Claims about trained networks: each rule on invented rows, each plan, what is refused."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from experiments import highway_depth, identity_construction, listing
from experiments.claim import judged
from experiments.rows import lacking, sample
from resnet_jax import config as configs
from resnet_jax import families

CLAIMS = listing.claims()
STATEMENTS = {s.name: s for claim in CLAIMS.values() for s in claim.statements}
# {(arm, depth): {column: mean over the seeds}}
Means = Mapping[tuple[str, int], Mapping[str, Any]]


def rows(means: Means, spread=0.001, seeds=5):
    """Return invented rows: every fraction has a normal error of its own around its mean.

    The error of a response, which is positive, is relative.
    """
    random = np.random.default_rng(1)

    def moved(column, value):
        error = random.normal() * spread
        if isinstance(value, list):
            return [one + error for one in value]
        if not isinstance(value, float):
            return value
        return value * math.exp(error) if column == "response" else value + error

    return [
        {"model": f"{arm}-{depth}", "arm": arm, "depth": depth, "seed": seed}
        | {"train_error": 0.05, "test_error": 0.05, "train_loss": 0.1, "rate": 0.1}
        | {"gate_bias": 0.0}
        | {column: moved(column, value) for column, value in columns.items()}
        | {"chance_error": 0.9}
        for seed in range(seeds)
        for (arm, depth), columns in means.items()
    ]


def trend(arm, column, **by_depth):
    """Return the means of a arm by depth: trend("plain", "train_error", d8=0.1, d20=0.2)."""
    return {(arm, int(depth[1:])): {column: value} for depth, value in by_depth.items()}


def arms(column, **means):
    """Return the means of arms of 56 layers; an underscore in a name stands for a hyphen."""
    return {(name.replace("_", "-"), 56): {column: mean} for name, mean in means.items()}


def lesions(plain, residual, **columns):
    """Return rows of whole and lesioned networks, from (whole, lesioned) errors of both arms."""
    pairs = {"plain": plain, "resnet": residual}
    return {
        (arm, 56): {"whole_error": whole, "lesion_error": lesioned, "swap_error": lesioned}
        | columns
        for arm, (whole, lesioned) in pairs.items()
    }


def paths(relative, decades):
    """Return rows of path lengths of a residual network, beside those of a plain one."""
    resnet = {"relative_length": relative, "decades_a_block": decades}
    plain = {"relative_length": 2.0, "decades_a_block": None}
    common = {"effective_length": 10.0, "blocks": 27}
    return {("plain", 56): plain | common, ("resnet", 56): resnet | common}


def shares(identity, gained):
    """Return the smallest share of a signal over the equal share, by depth, of two arms."""
    arms = {"identity": identity, "gains-0.5": gained}
    return {
        (arm, depth): {"of_equal_share": of, "share": of / depth**0.5}
        for arm, by_depth in arms.items()
        for depth, of in by_depth.items()
    }


def sizes(dense, residual, small=(0.15, 75)):
    """Return a DenseNet and two residual networks, from their (test error, parameters)."""
    own = lambda error, count: {"test_error": error, "parameters": count}
    networks = {("densenet", 22): dense, ("resnet", 20): residual, ("resnet", 8): small}
    return {network: own(*of) for network, of in networks.items()}


def kernels(small, large):
    """Return networks of 3x3 pairs and of 5x5 layers, from their test errors."""
    return {
        ("two-3x3", 20): {"test_error": small, "parameters": 18},
        ("one-5x5", 11): {"test_error": large, "parameters": 25},
    }


def survivals(column, *means):
    """Return networks with survivals 1, 0.75 and 0.5, from the means of a column."""
    names = ("survival-1", "survival-0.75", "survival-0.5")
    return {(name, 56): {column: mean} for name, mean in zip(names, means, strict=True)}


def tied(tied, untied):
    """Return tied and untied networks of two depths, from their test errors, and a plain one."""
    errors = {"tied": tied, "untied": untied, "tied-plain": 0.8}
    return {
        (arm, depth): {"test_error": error, "parameters": 10 * depth}
        for arm, error in errors.items()
        for depth in (20, 56)
    }


class Case(NamedTuple):
    """Means for which a rule says yes and no, and what it says of the control of the first."""

    yes: Means
    no: Means
    control: bool | None
    idle: tuple[str, int] | None  # a network that decides nothing if it is at chance


MULTIPLIED = dict(exclusive_gate=0.08, shortcut_gate=0.09, dropout=0.3)
SCALED = {(f"{name}-0.5", 56): {"test_error": 0.07} for name in ("scaled", "shortcut")}
WITHOUT = {f"without_{count}": 0.1 + 0.05 * count for count in (1, 2, 4, 8)}
FALLING = trend("resnet", "test_error", d8=0.06, d20=0.045, d56=0.03, d110=0.025)
PLAIN_RISES = trend("plain", "train_error", d20=0.1, d50=0.2, d100=0.4, d200=0.85)
HIGHWAY_STAYS = trend("highway", "train_error", d20=0.1, d50=0.11, d100=0.1, d200=0.12)
LOSSES = trend("highway", "train_loss", d20=0.1, d50=0.1, d100=0.12)
PRE = trend("preactivation", "test_error", d20=0.05, d56=0.05, d110=0.05)
RESPONSES = trend("resnet", "response", d8=0.6, d20=0.4, d56=0.3)
RANDOM = trend("random", "train_error", d8=0.1, d20=0.3, d56=0.85)
IDENTITY = trend("identity", "train_error", d8=0.1, d20=0.1, d56=0.11)

CASES = {
    "depth_pays": Case(
        FALLING,
        trend("resnet", "test_error", d8=0.03, d20=0.03, d56=0.04, d110=0.04),
        False,
        ("resnet", 110),
    ),
    "depth_stops_paying": Case(
        trend("resnet", "test_error", d8=0.06, d20=0.03, d56=0.03, d110=0.05),
        FALLING,
        None,
        ("resnet", 110),
    ),
    "best_rates": Case(
        trend("plain", "train_error", d8=0.05, d20=0.1, d56=0.6)
        | trend("resnet", "train_error", d8=0.05, d20=0.04, d56=0.04),
        trend("plain", "train_error", d8=0.05, d20=0.05, d56=0.05)
        | trend("resnet", "train_error", d8=0.05, d20=0.04, d56=0.04),
        False,
        ("resnet", 56),
    ),
    "depth_pays_at_best_rates": Case(
        FALLING,
        trend("resnet", "test_error", d8=0.03, d20=0.03, d56=0.04, d110=0.04),
        False,
        ("resnet", 110),
    ),
    "shortcuts": Case(
        arms("test_error", A=0.03, B=0.031, C=0.029, plain=0.3),
        arms("test_error", A=0.1, B=0.03, C=0.03, plain=0.3),
        False,
        ("A", 56),
    ),
    "shortcuts_multiplied": Case(
        arms("test_error", A=0.03, **MULTIPLIED) | SCALED,
        arms("test_error", A=0.03, **MULTIPLIED | {"dropout": 0.01}) | SCALED,
        None,
        ("A", 56),
    ),
    "normless": Case(
        arms("train_error", skip_and_norm=0.03, norm_alone=0.4, neither=0.85, fixup=0.05)
        | arms("train_error", skipinit=0.06),
        arms("train_error", skip_and_norm=0.03, norm_alone=0.4, neither=0.85, fixup=0.05)
        | arms("train_error", skipinit=0.39),
        False,
        ("skip-and-norm", 56),
    ),
    "preactivation": Case(
        PRE | trend("original", "test_error", d20=0.05, d56=0.08, d110=0.12),
        PRE | trend("original", "test_error", d20=0.05, d56=0.05, d110=0.05),
        False,
        ("original", 20),
    ),
    "preactivation_starts_faster": Case(
        trend("preactivation", "early_loss", d20=1.0, d110=1.0)
        | trend("original", "early_loss", d20=1.0, d110=1.5),
        trend("preactivation", "early_loss", d20=1.0, d110=1.0)
        | trend("original", "early_loss", d20=1.5, d110=1.0),
        False,
        None,
    ),
    "activations": Case(
        arms("test_error", original=0.03, norm_after=0.05, relu_before=0.06, preactivation=0.03)
        | arms("test_error", relu_preactivation=0.03),
        arms("test_error", original=0.03, norm_after=0.05, relu_before=0.06, preactivation=0.06)
        | arms("test_error", relu_preactivation=0.03),
        None,
        ("original", 56),
    ),
    "highway_depth": Case(
        PLAIN_RISES | HIGHWAY_STAYS,
        PLAIN_RISES | trend("highway", "train_error", d20=0.1, d50=0.2, d100=0.3, d200=0.4),
        False,
        ("highway", 20),
    ),
    "highway_not_below_at_20": Case(
        LOSSES | trend("plain", "train_loss", d20=0.1, d50=0.5, d100=2.3),
        LOSSES | trend("plain", "train_loss", d20=0.3, d50=0.5, d100=2.3),
        False,
        ("plain", 20),
    ),
    "layer_responses": Case(
        RESPONSES | trend("plain", "response", d8=0.9, d20=0.9, d56=1.0),
        RESPONSES | trend("plain", "response", d8=0.9, d20=0.3, d56=1.0),
        False,
        ("plain", 56),
    ),
    "corrections_shrink": Case(
        RESPONSES,
        trend("resnet", "response", d8=0.3, d20=0.35, d56=0.4),
        None,
        ("resnet", 56),
    ),
    "lesion": Case(
        lesions((0.2, 0.8), (0.03, 0.05)), lesions((0.2, 0.8), (0.03, 0.2)), False, ("resnet", 56)
    ),
    "reorder": Case(
        lesions((0.2, 0.8), (0.03, 0.07)), lesions((0.2, 0.8), (0.03, 0.4)), False, ("resnet", 56)
    ),
    "learning_rules": Case(
        arms("test_error", back_propagation=0.05, sign_symmetry=0.07, feedback_alignment=0.5),
        arms("test_error", back_propagation=0.05, sign_symmetry=0.3, feedback_alignment=0.5),
        False,
        ("back-propagation", 56),
    ),
    "feedback_alignment": Case(
        arms("test_error", back_propagation=0.05, sign_symmetry=0.07, feedback_alignment=0.5),
        arms("test_error", back_propagation=0.05, sign_symmetry=0.07, feedback_alignment=0.08),
        False,
        ("back-propagation", 56),
    ),
    "tied_depth": Case(
        tied(0.09, 0.1),
        tied(0.3, 0.1),
        False,
        ("untied", 56),
    ),
    "survival": Case(
        survivals("test_error", 0.08, 0.07, 0.05),
        survivals("test_error", 0.05, 0.05, 0.08),
        None,
        ("survival-1", 56),
    ),
    "survival_damages": Case(
        survivals("clean_error", 0.01, 0.03, 0.1),
        survivals("clean_error", 0.1, 0.05, 0.03),
        None,
        ("survival-1", 56),
    ),
    "small_kernels_train": Case(kernels(0.05, 0.1), kernels(0.1, 0.05), None, ("one-5x5", 11)),
    "densenet_parameters": Case(
        sizes((0.05, 71), (0.05, 269)), sizes((0.08, 71), (0.05, 269)), False, ("resnet", 20)
    ),
    "dilution_trained": Case(
        shares({20: 0.9, 56: 0.8}, {20: 0.3, 56: 0.1}),
        shares({20: 0.9, 56: 0.2}, {20: 0.3, 56: 0.1}),
        False,
        ("identity", 56),
    ),
    "open_gates_train": Case(
        arms("train_error", residual=0.05, two_gates=0.055, coupled=0.6),
        arms("train_error", residual=0.05, two_gates=0.1, coupled=0.6),
        False,
        ("residual", 56),
    ),
    "open_gates_curves": Case(
        arms("losses", residual=[2.0, 0.5], two_gates=[2.0, 0.52], coupled=[2.3, 1.9]),
        # The means of the two curves are equal.
        arms("losses", residual=[2.0, 0.5], two_gates=[1.7, 0.8], coupled=[2.3, 1.9]),
        False,
        ("residual", 56),
    ),
    "lesions_add_up": Case(
        {("resnet", 56): {"lesion_error": 0.05, **WITHOUT}}
        | {("plain", 56): {"lesion_error": 0.8, **dict.fromkeys(WITHOUT, 0.9)}},
        {("resnet", 56): {"lesion_error": 0.05, **WITHOUT, "without_8": 0.88}}
        | {("plain", 56): {"lesion_error": 0.8, **dict.fromkeys(WITHOUT, 0.9)}},
        False,
        ("resnet", 56),
    ),
    "path_lengths": Case(paths(0.6, -0.2), paths(0.97, -0.2), False, ("resnet", 56)),
    "long_paths_vanish": Case(paths(0.6, -0.2), paths(0.6, -0.01), None, ("resnet", 56)),
    "identity_start": Case(
        IDENTITY | RANDOM, trend("identity", "train_error", d8=0.1, d56=0.4), False, ("identity", 8)
    ),
    "plain_random_start": Case(
        IDENTITY | RANDOM, trend("random", "train_error", d8=0.1, d56=0.1), False, ("random", 8)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rule_says_yes_no_and_nothing(name):
    case, statement = CASES[name], STATEMENTS[name]
    yes, no = (statement.judge(rows(means)) for means in (case.yes, case.no))
    assert yes.holds is True and no.holds is False
    assert yes.test is not None and yes.test.n == 5
    assert yes.says.endswith(".") and any(letter.isdigit() for letter in yes.says)
    noisy = statement.judge(rows(case.yes, spread=1.0))
    assert noisy.holds is None and noisy.test is not None
    for means in (case.yes, case.no):
        assert statement.judge(rows(means, seeds=2)).holds is None


@pytest.mark.parametrize("name", CASES)
def test_the_control_gets_no_yes_from_rows_that_get_a_yes(name):
    case, statement = CASES[name], STATEMENTS[name]
    assert statement.control is not None
    own = rows(case.yes)
    control = statement.control(own)
    assert control and statement.judge(control).holds is case.control
    assert judged(statement, own, [])["verdict"]["holds"] is True
    assert own == rows(case.yes)  # the control changes copies


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].idle])
def test_a_network_at_chance_leaves_the_statement_open(name):
    case, statement = CASES[name], STATEMENTS[name]
    assert case.idle in case.yes
    for means in (case.yes, case.no):
        if case.idle in means:
            idle = {**means, case.idle: {**means[case.idle], "train_error": 0.89}}
            verdict = statement.judge(rows(idle))
            assert verdict.holds is None and "did not train (8" in verdict.says


def test_networks_that_all_learn_nothing_decide_nothing():
    for name, case in CASES.items():
        if case.idle is None:
            continue
        idle = {network: {**columns, "train_error": 0.9} for network, columns in case.yes.items()}
        assert STATEMENTS[name].judge(rows(idle)).holds is None, name


def test_deep_networks_at_chance_count_if_the_claim_is_that_they_fail():
    deep = {("plain", 200): {"train_error": 0.9}, ("random", 56): {"train_error": 0.9}}
    for name in ("highway_depth", "plain_random_start"):
        assert STATEMENTS[name].judge(rows(CASES[name].yes | deep)).holds is True
    alone = arms("train_error", norm_alone=0.9)
    assert STATEMENTS["normless"].judge(rows(CASES["normless"].yes | alone)).holds is True


def test_a_plain_network_near_chance_has_no_error_left_for_a_lesion():
    verdict = STATEMENTS["lesion"].judge(rows(lesions((0.75, 0.88), (0.03, 0.05))))
    assert verdict.holds is None and "cannot rise by 20%" in verdict.says


def test_the_best_of_several_equal_depths_is_not_shown_to_be_better():
    flat = trend("resnet", "test_error", **{f"d{depth}": 0.03 for depth in range(8, 60, 6)})
    assert STATEMENTS["depth_stops_paying"].judge(rows(flat, spread=0.004)).holds is None


@pytest.mark.parametrize("name", ("layer_responses", "lesion", "lesions_add_up", "path_lengths"))
def test_a_run_that_diverged_has_no_measures_and_leaves_the_statement_open(name):
    own = rows(CASES[name].yes)
    measures = ("response", "lesion_error", "whole_error", "relative_length", "decades_a_block")
    measures += tuple(WITHOUT)
    gone = lambda row: {k: v for k, v in row.items() if k not in measures}
    cut = [gone(row) if (row["arm"], row["seed"]) == ("resnet", 3) else row for row in own]
    for statement in CLAIMS[name].statements:
        verdict = statement.judge(cut)
        assert verdict.holds is None and "for seed 3" in verdict.says
    assert lacking(cut, "seed") == "" and sample(own, "seed", arm="none") == []


def test_the_identity_construction_is_exact():
    judge, control = identity_construction.judge, identity_construction.control
    row = lambda arm, added, difference: {
        "model": f"{arm}-{8 + added}", "arm": arm, "depth": 8 + added, "seed": 0,
        "added": added, "difference": difference,
    }  # fmt: skip
    shallow, random = row("identity", 0, 0.0), row("random", 12, 0.7)
    good = [shallow, row("identity", 12, 2e-16), row("identity", 48, 1e-15), random]
    assert judge(good).holds is True and "48 added layers" in judge(good).says
    assert judge(control(good)).holds is False
    assert judge([*good, row("identity", 102, 1e-9)]).holds is False
    assert judge([shallow, random]).holds is None
    assert judge([*good, row("identity", 102, math.nan)]).holds is False


def test_gates_that_train_better_than_the_identity_do_not_train_alike():
    better = rows(arms("train_error", residual=0.1, two_gates=0.05, coupled=0.6))
    assert STATEMENTS["open_gates_train"].judge(better).holds is False


def test_a_run_that_diverged_has_no_curve_that_it_left_behind(options, finish):
    run = CLAIMS["open_gates_train"].plan(options(8, seeds_per_model=1))[0]
    finish(run, 0.2, diverged="the training loss is nan at step 30")
    (row,) = CLAIMS["open_gates_train"].measure(run)
    assert row["losses"] == [row["train_loss"]] == [pytest.approx(math.log(10))]


def test_highway_networks_of_tens_of_layers_show_nothing_of_hundreds():
    few = {(arm, depth // 10): of for (arm, depth), of in CASES["highway_depth"].yes.items()}
    verdict = STATEMENTS["highway_depth"].judge(rows(few))
    assert verdict.holds is None and "100 layers and more" in verdict.says


def test_a_highway_network_has_its_best_bias():
    of = lambda bias, loss: {("highway", 20): {"train_loss": loss, "gate_bias": bias}}
    both = [*rows(of(-3.0, 2.3), 0.0), *rows(of(-6.0, 0.1), 0.0)]
    assert {row["gate_bias"] for row in highway_depth.best(both)} == {-6.0}


# The keys in which an arm differs from the first arm of a claim, beside the keys of its norm.
GATED = {"model.merge", "model.gate_bias", "model.gains"}
FIXUP = {"model.activation", "model.block", "model.dirac", "model.fan", "model.kernel_start"}
NO_NORM, PRE_BLOCK = {"norm.kind"}, {"model.block", "model.dropout"}
TWINS = {"resnet": set(), "plain": {"model.skip"}}
DIFFER = {
    "depth_pays": {"resnet": set()},
    "shortcuts": {
        "A": set(), "plain": {"model.skip"}, "B": {"model.skip"}, "C": {"model.skip"},
        "scaled-0.5": {"model.gains"}, "shortcut-0.5": {"model.gains"},
        "exclusive-gate": GATED, "shortcut-gate": GATED,
        "dropout": {"model.skip_dropout"},
    },
    "normless": {
        "skip-and-norm": set(), "norm-alone": {"model.skip"}, "skip-alone": NO_NORM,
        "neither": {"model.skip"} | NO_NORM, "rezero-with-norm": {"model.merge", "model.gains"},
        "fixup": FIXUP | {"model.zero_init"} | NO_NORM,
        "skipinit": {"model.merge", "model.gains"} | NO_NORM,
    },
    "preactivation": {"original": set(), "preactivation": PRE_BLOCK},
    "activations": {
        "original": set(), "preactivation": PRE_BLOCK,
        **dict.fromkeys(("norm-after", "relu-before", "relu-preactivation"), {"model.block"}),
    },
    "highway_depth": {"highway": set(), "plain": {"model.skip", "model.gate_bias"}},
    "best_rates": TWINS,
    "reorder": TWINS,
    "survival": {"survival-1": set(), **dict.fromkeys(
        ("survival-0.75", "survival-0.5"), {"model.survival"})},
    "open_gates_train": {
        "residual": set(), "two-gates": GATED | {"model.carry_bias"}, "coupled": GATED,
    },
    "dilution_trained": {"identity": set(), "gains-0.5": {"model.gains"}},
    "learning_rules": {
        "back-propagation": set(), "sign-symmetry": {"model.feedback"},
        "feedback-alignment": {"model.feedback"},
    },
    "tied_depth": {
        "untied": set(), "tied": {"model.tied"}, "tied-plain": {"model.tied", "model.skip"},
    },
    "layer_responses": TWINS,
    "lesion": TWINS,
    "lesions_add_up": TWINS,
    "path_lengths": TWINS,
    "identity_construction": {"identity": set(), "random": {"model.kernel_start"}},
    "identity_start": {"identity": set(), "random": {"model.kernel_start"}},
}  # fmt: skip
OWN = list(DIFFER)


@pytest.mark.parametrize("name", OWN)
def test_arms_differ_in_what_they_should_and_in_nothing_else(name, options):
    claim = CLAIMS[name]
    depths = claim.depths("digits", False)
    runs = claim.plan(options(*depths))
    assert {run.arm for run in runs} == DIFFER[name].keys()
    assert {run.config.model.depth for run in runs} == set(depths)
    seeds = 1 if claim.kind == "exact" else 5
    tried = Counter((run.arm, run.config.model.depth) for run in runs)
    assert len(tried) == len(depths) * len(DIFFER[name])
    assert len(set(tried.values())) == 1  # each arm has as many settings
    assert len(runs) == seeds * len({run.model for run in runs})
    assert len({run.config.seed for run in runs}) == seeds
    base = next(iter(DIFFER[name]))
    flat = {
        (run.arm, run.config.model.depth): configs.flatten(run.config) | {"seed": 0} for run in runs
    }
    for (group, depth), own in flat.items():
        first = flat[base, depth]
        differ = {k for k in own.keys() | first.keys() if str(own.get(k)) != str(first.get(k))}
        norm = {key for key in differ if key.startswith("norm.")}
        wanted = DIFFER[name][group]
        differ.discard("optimizer.learning_rate")
        assert differ - norm == wanted - NO_NORM and bool(norm) == (wanted >= NO_NORM)


@pytest.mark.parametrize("name", OWN)
def test_the_scale_of_the_paper_can_be_planned(name, options):
    claim = CLAIMS[name]
    depths = claim.depths("digits", True)
    runs = claim.plan(options(*depths, full=True, seeds_per_model=1))
    assert {run.config.model.depth for run in runs} == set(depths)
    if name == "preactivation":
        assert {run.config.model.block for run in runs} == {"bottleneck", "preact_bottleneck"}
        assert {run.config.model.skip for run in runs} == {"B"}
        for run in runs[4:6]:
            configs.check(run.config)


SEVERAL = ("shortcuts", "normless", "activations", "lesion", "reorder", "path_lengths")
SEVERAL += (
    "learning_rules",
    "lesions_add_up",
    "survival",
    "open_gates_train",
    "small_kernels_train",
)
PER_DEPTH = [name for name in OWN if name not in SEVERAL]
REFUSED = [
    *((name, {}, (8, 20), "resnet:8, resnet:20 are 2 networks.*--models=resnet:20") for name in
      SEVERAL),
    *((name, {}, (20,), ":20 is the only depth of family=.*give two or more") for name in
      PER_DEPTH),
    *((name, {"overrides": {"replicas": "2"}}, depths, "replicas=2: .*must have one seed; use")
      for name, depths in (("layer_responses", (8, 20)), ("lesion", (26,)), ("path_lengths", (8,)))
      ),
    *((name, {"networks": (("lenet", 5),)}, (), "lenet") for name in OWN),
    ("small_kernels_train", {"networks": (("vgg", 16),)}, (), "vgg:16 has no three equal stages"),
    ("small_kernels_train", {}, (23,), "resnet:23 has no three equal .*--models=resnet:20"),
    ("densenet_parameters", {}, (20, 56), "resnet, resnet: .*--models=densenet:22,resnet:20,res"),
    ("reorder", {"switches": {"block": "preact_basic"}}, (14,), "no stage has two equal blocks"),
    ("not_vanishing", {"networks": (("resnet", 8), ("resnet", 14), ("vgg", 11), ("vgg", 16))}, (),
     "resnet:8 and vgg:11 are of two families"),
    ("highway_depth", {"networks": (("vgg", 11), ("resnet", 16))}, (), "vgg:11 is no highway"),
    ("dilution_trained", {}, (8, 20), "resnet:8 has no two neighbouring .*--depths=20,56"),
    ("lesion", {}, (8,), "plain-8: 1 of its blocks keep the shape; .*2 or more.*resnet:26"),
    ("lesions_add_up", {}, (20,), "plain-20: 7 of its blocks keep .* 8 or more; .*resnet:26"),
    ("depth_pays", {"networks": (("vgg", 16), ("resnet", 8), ("highway", 16))}, (),
     "vgg:16, highway:16 have one depth"),
    ("highway_depth", {"networks": (("vgg", 11), ("vgg", 16))}, (), "vgg:11 is no highway"),
    ("identity_construction", {"networks": (("vgg", 11), ("vgg", 16))}, (),
     "vgg:11 with block=single: .*ResNet of basic blocks"),
    ("identity_construction", {"switches": {"block": "bottleneck"}}, (29, 56),
     "resnet:29 with block=bottleneck: .*--models=resnet:20,resnet:56"),
]  # fmt: skip


@pytest.mark.parametrize("name,fields,depths,message", REFUSED)
def test_what_a_claim_cannot_speak_of_is_refused_in_one_line(
    name, fields, depths, message, options
):
    with pytest.raises(ValueError, match=message) as refusal:
        CLAIMS[name].plan(options(*depths, **fields))
    assert "\n" not in str(refusal.value)


def test_a_5x5_layer_stands_for_each_pair_of_3x3_layers(options):
    small, large = CLAIMS["small_kernels_train"].plan(options(20, seeds_per_model=1))
    assert (small.config.model.depth, large.config.model.depth) == (20, 11)
    differ = configs.flatten(small.config).items() ^ configs.flatten(large.config).items()
    assert {key for key, _ in differ} == {"model.depth", "model.block", "model.kernel_size"}
    kernels = [
        {
            leaf.shape[-4:-2]
            for leaf in jax.tree.leaves(families.shapes(run.config)["params"])
            if len(leaf.shape) >= 4 and leaf.shape[-2] > 1
        }
        for run in (small, large)
    ]
    assert kernels == [{(3, 3)}, {(5, 5)}]


def test_a_yes_is_about_densenets_that_are_small_and_not_about_small_networks():
    statement = STATEMENTS["densenet_parameters"]
    assert statement.judge(rows(sizes((0.01, 140), (0.05, 269)))).holds is None
    verdict = judged(statement, rows(sizes((0.05, 71), (0.05, 269), (0.05, 75))), [])["verdict"]
    assert verdict["holds"] is None and verdict["says"].endswith("says yes to its control.")


def test_what_the_refusals_advise_is_accepted(options):
    assert CLAIMS["small_kernels_train"].plan(options(20))
    three = (("densenet", 22), ("resnet", 20), ("resnet", 8))
    assert CLAIMS["densenet_parameters"].plan(options(networks=three))
    assert CLAIMS["lesion"].plan(options(26)) and CLAIMS["lesions_add_up"].plan(options(26))
    assert CLAIMS["depth_pays"].plan(options(networks=(("alexnet", 8), ("vgg", 11), ("vgg", 16))))
    assert CLAIMS["highway_depth"].plan(options(networks=(("highway", 20), ("highway", 50))))
    assert CLAIMS["identity_construction"].plan(options(20, 56))

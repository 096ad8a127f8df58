"""Plain and residual twins: which are planned, and which are found in rows."""

import pytest

from experiments import twins


def test_twins_differ_in_the_skip_alone(options):
    runs = twins.runs(options(8, 14), 2)
    assert [run.name for run in runs[:5]] == [
        "plain-8, seed 0", "resnet-8, seed 0", "plain-14, seed 0", "resnet-14, seed 0",
        "plain-8, seed 1",
    ]  # fmt: skip
    assert len(runs) == 8 and len(twins.runs(options(8, 14, seeds_per_model=1), 2)) == 4
    plain, residual = (dict(run.config.model.items()) for run in runs[:2])
    assert plain.pop("skip") == "none" and residual.pop("skip") == "A" and plain == residual
    assert runs[0].config.schedule == runs[1].config.schedule


def test_several_families_are_planned_each_with_its_twin(options):
    networks = (("vgg", 11), ("resnet", 8), ("highway", 19))
    runs = twins.runs(options(networks=networks), 1)
    assert [(run.model, run.arm, run.config.model.skip) for run in runs] == [
        ("plain-vgg-11", "plain-vgg", "none"), ("residual-vgg-11", "residual-vgg", "A"),
        ("plain-8", "plain", "none"), ("resnet-8", "resnet", "A"),
        ("plain-highway-19", "plain-highway", "none"), ("highway-19", "highway", "A"),
    ]  # fmt: skip


def test_a_skip_of_the_argument_is_the_residual_twins(options):
    runs = twins.runs(options(8, switches={"skip": "B"}), 1)
    assert [run.config.model.skip for run in runs] == ["none", "B"]
    with pytest.raises(ValueError, match="skip=none is the plain twin, which is trained anyway"):
        twins.runs(options(8, switches={"skip": "none"}), 1)


@pytest.mark.parametrize("network", [("lenet", 5), ("alexnet", 8), ("densenet", 40)])
def test_a_family_without_a_twin_is_refused(options, network):
    with pytest.raises(ValueError, match=f"is not a skip of family={network[0]}"):
        twins.runs(options(networks=(network,)), 1)


def test_rows_name_their_twins():
    names = ("highway", "plain", "resnet", "plain-ladder")
    found = [{"arm": name} for name in names]
    assert set(twins.pairs(found)) == {
        ("plain", "resnet"),
        ("plain-highway", "highway"),
        ("plain-ladder", "ladder"),
    }
    assert twins.pairs([]) == []


def test_the_control_has_the_residual_networks_in_both_arms():
    rows = [
        {"arm": arm, "model": f"{arm}-{depth}", "depth": depth, "seed": 0, "error": error}
        for arm, error in (("plain", 0.5), ("resnet", 0.1))
        for depth in (8, 20)
    ]
    control = twins.residual_for_plain(rows)
    assert [(row["arm"], row["depth"], row["error"]) for row in control] == [
        (arm, depth, 0.1) for arm in ("plain", "resnet") for depth in (8, 20)
    ]

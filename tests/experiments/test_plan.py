"""Options to the configs of runs: one recipe, a network's own keys, and what is refused."""

import numpy as np
import pytest
from etils import epath

from experiments import plan
from experiments.flags import CONFIGS
from resnet_jax import choices
from resnet_jax import config as configs
from resnet_jax.keys import ANY, Key, Part, Switch
from resnet_jax.run import programs


def flat(options, network, *arguments):
    return configs.flatten(options.config(network, *arguments))


def test_all_depths_have_the_recipe_of_the_deepest_network(options):
    both = options(20, 110, recipe=CONFIGS / "cifar10.py")
    shallow, deep = flat(both, ("resnet", 20)), flat(both, ("resnet", 110))
    assert shallow["schedule.warmup_steps"] == deep["schedule.warmup_steps"] == 400
    assert {key for key in deep if deep[key] != shallow[key]} == {"model.depth"}
    alone = flat(options(20, recipe=CONFIGS / "cifar10.py"), ("resnet", 20))
    assert alone["schedule.warmup_steps"] == 0


def test_networks_of_another_family_have_their_own_model_and_norm_alone(options):
    networks = (("vgg", 11), ("resnet", 110))
    both = options(networks=networks, recipe=CONFIGS / "cifar10_any.py")
    vgg, resnet = (flat(both, network) for network in networks)
    assert (vgg["model.width"], vgg["norm.kind"], vgg["schedule.warmup_steps"]) == (64, "none", 400)
    assert "norm.group_size" not in vgg and resnet["norm.group_size"] == 64
    other = {key for key in vgg if vgg[key] != resnet.get(key)}
    assert all(key.startswith(("model.", "norm.")) for key in other)


def test_networks_of_one_family_have_one_block(options):
    both = options(14, 29)
    assert flat(both, ("resnet", 14))["model.block"] == "bottleneck"
    with pytest.raises(ValueError, match=r"depth 14 is not 9n\+2"):
        plan.check([both.run("resnet-14", ("resnet", 14), 0)], both)


@pytest.mark.parametrize("steps,size", [(90, 3), (600, 30), (97, 4), (10, 1)])
def test_a_shortened_run_has_chunks_of_one_length_if_that_is_not_half_as_long(options, steps, size):
    run = options(8, steps=steps).run("resnet", ("resnet", 8), 0)
    assert run.config.chunk_steps == size
    assert (len(set(programs.chunk_lengths(run.config, 0))) == 1) == (steps % size == 0)


def test_steps_scale_the_schedule(options):
    short = flat(options(20, steps=40), ("resnet", 20))
    assert short["schedule.boundaries"] == (20, 30)
    assert (short["chunk_steps"], short["eval_every"], short["checkpoint_every"]) == (2, 8, 20)
    long = flat(options(110, recipe=CONFIGS / "cifar10.py", steps=2_000), ("resnet", 110))
    assert long["schedule.warmup_steps"] == 200
    cosine = flat(options(20, steps=40, switches={"schedule": "cosine"}), ("resnet", 20))
    assert cosine["schedule.end"] == 40 and "schedule.boundaries" not in cosine


def test_a_claim_chooses_switches_and_values_for_a_run(options):
    wide = options(8)
    run = wide.run("wide", ("resnet", 8), 3, switches={"skip": "none"}, values={"model.width": 32})
    assert (run.arm, run.name) == ("resnet", "wide, seed 3")
    assert (run.config.seed, run.config.model.width, run.config.model.skip) == (3, 32, "none")
    assert run.changes == {"skip": "none", "model.width": 32}
    adam = wide.run("slow", ("resnet", 8), 0, switches={"schedule": "constant"})
    assert adam.config.schedule.kind == "constant"
    with pytest.raises(ValueError, match="model.patch is a key of family=vit"):
        wide.run("x", ("resnet", 8), 0, values={"model.patch": 4})


def test_an_override_holds_for_every_run_and_not_for_what_the_claim_sets(options):
    wide = options(8, overrides={"optimizer.learning_rate": "0.5", "model.width": "4"})
    run = wide.run("net", ("resnet", 8), 0)
    assert (run.config.optimizer.learning_rate, run.config.model.width) == (0.5, 4)
    with pytest.raises(ValueError, match="--config.model.width is set by the claim"):
        wide.run("net", ("resnet", 8), 0, values={"model.width": 2})


@pytest.mark.parametrize(
    "fields,message",
    [
        ({"overrides": {"model.patch": "4"}}, "model.patch is a key of family=vit; this config"),
        ({"overrides": {"model.skip": "A"}}, "model.skip is chosen in the config's argument"),
        ({"overrides": {"model.widht": "4"}}, "nearest: --config.model.width"),
        (
            {"overrides": {"norm.group_size": "25"}},
            "--config.norm.group_size does not fit the runs of vgg-11: norm.group_size is a key of "
            "norm=batch; this config has norm=none",
        ),
        ({"switches": {"skip": "B"}}, "skip=B: the claim itself chooses skip|skip=B: this claim"),
    ],
)
def test_options_that_change_nothing_in_some_run_are_refused(options, fields, message):
    asked = options(networks=(("resnet", 8), ("vgg", 11)), **fields)
    runs = [
        asked.run(f"{family}-{depth}", (family, depth), 0, switches={"skip": "A"})
        for family, depth in asked.networks
    ]
    with pytest.raises(ValueError, match=message):
        plan.check(runs, asked)


def test_a_model_is_one_network(options):
    asked = options(8)
    run = asked.run("net", ("resnet", 8), 0)
    plan.check([run, asked.run("net", ("resnet", 8), 1)], asked)
    with pytest.raises(ValueError, match="two runs of net, seed 0 that differ in nothing"):
        plan.check([run, run], asked)
    wide = asked.run("net", ("resnet", 8), 1, values={"model.width": 32})
    with pytest.raises(ValueError, match="two runs of net, seed 1 that differ in model.width"):
        plan.check([run, wide], asked)
    with pytest.raises(ValueError, match="'a b' names a network and a folder"):
        plan.check([asked.run("a b", ("resnet", 8), 0)], asked)
    with pytest.raises(ValueError, match="the plan has no runs"):
        plan.check([], asked)


@pytest.mark.parametrize(
    "overrides,message",
    [
        ({"seed": "4294967295"}, "seed=4294967296 must not be negative and must be below"),
        ({"optimizer.learning_rate": "nan"}, "optimizer.learning_rate=nan must be finite"),
    ],
)
def test_values_are_refused_before_the_first_run(options, overrides, message):
    asked = options(8, overrides=overrides, seeds_per_model=2)
    runs = [asked.run("net", ("resnet", 8), seed) for seed in asked.seeds(1)]
    with pytest.raises(ValueError, match=message):
        plan.check(runs, asked)


def test_data_that_is_missing_is_said_before_anything_runs(options):
    asked = options(20, recipe=CONFIGS / "cifar10.py")
    with pytest.raises(ValueError, match="'cifar10' needs data.dir"):
        plan.check([asked.run("resnet-20", ("resnet", 20), 0)], asked)


def test_data_without_a_training_split_is_refused_before_anything_runs(options, tmp_path):
    images, labels = np.zeros((10, 8, 8, 1), np.uint8), np.arange(10)
    np.savez(tmp_path / "only.npz", x_test=images, y_test=labels)
    asked = options(8, overrides={"data.name": f"npz:{tmp_path}/only.npz"})
    with pytest.raises(ValueError, match="only.npz has no split train, which the experiment need"):
        plan.check([asked.run("resnet-8", ("resnet", 8), 0)], asked)


def test_seeds_are_shared_out_over_replicas(options):
    replicas = {"overrides": {"replicas": "2", "seed": "4"}}
    assert list(options(8, seeds_per_model=4, **replicas).seeds(1)) == [4, 6]
    assert list(options(8, **replicas).seeds(1)) == [4]
    assert list(options(8).seeds(3)) == [0, 1, 2]
    run = options(8, **replicas).run("net", ("resnet", 8), 4)
    assert list(run.seeds) == [4, 5]
    with pytest.raises(ValueError, match="--seeds=3 is not a multiple of replicas=2; nearest --se"):
        options(8, seeds_per_model=3, **replicas).seeds(1)


def test_changes_are_what_differs_from_the_recipe(options):
    assert options(8, 20).changes() == []
    same = {"overrides": {"optimizer.learning_rate": "0.01", "seed": "3", "remat": "none"}}
    assert options(8, steps=300, **same).changes() == []
    asked = options(
        8,
        switches={"block": "preact_basic"},
        overrides={"optimizer.learning_rate": "0.05"},
        data={"data.dir": "x"},
        steps=40,
    )
    assert asked.changes() == ["block=preact_basic", "optimizer.learning_rate=0.05", "steps=40"]


def folder(options, seed=0, overrides=None, **values):
    asked = options(8, overrides=overrides or {})
    return asked.run("net", ("resnet", 8), seed, **values).workdir.name


def test_a_folder_tells_data_network_and_seed(options):
    assert folder(options, 3).startswith("digits-resnet-8-A-")
    assert folder(options, 3).endswith("-seed3")
    plain = folder(options, switches={"skip": "none"})
    assert plain.startswith("digits-resnet-8-none-") and plain.endswith("-seed0")


def test_a_folder_follows_from_what_is_computed(options):
    base = folder(options)
    assert folder(options, 1) == base.removesuffix("0") + "1"
    may_change = {"remat": "block", "checkpoint_every": "30", "data.dir": "elsewhere"}
    assert folder(options, overrides=may_change) == base
    assert folder(options, overrides={"optimizer.learning_rate": "0.01"}) == base, "the recipe's"
    others = [
        folder(options, values={"model.width": 32}),
        folder(options, values={"model.width": 32, "optimizer.learning_rate": 0.5}),
        folder(options, switches={"block": "preact_basic"}),
        folder(options, overrides={"replicas": "2"}),
        folder(options, overrides={"nonfinite": "skip"}),  # a run that diverged would go on
        options(8, steps=40).run("net", ("resnet", 8), 0).workdir.name,
    ]
    assert len({base, *others}) == 1 + len(others)


def test_a_folder_survives_new_keys_and_switches_at_their_defaults(options, monkeypatch):
    base = folder(options)
    monkeypatch.setitem(choices.COMMON, "warmth", Key(3, ANY, "a new key"))
    parts = {"on": Part("on"), "off": Part("off")}
    monkeypatch.setitem(choices.SWITCHES, "glow", Switch("glow.kind", parts, "off", "a new switch"))
    assert folder(options) == base
    assert folder(options, overrides={"warmth": "4"}) != base
    assert folder(options, switches={"glow": "on"}) != base


def test_a_folder_of_data_in_a_file_is_a_file_name(options, tmp_path):
    names = [f"npz:{tmp_path}/{'long' * 60}/{name}.npz" for name in ("a", "b")]
    first, second = (folder(options, overrides={"data.name": name}) for name in names)
    assert first != second and "/" not in first and ":" not in first and len(first) < 100


def test_claims_share_the_directory_of_the_runs(options, tmp_path):
    shared = {"runs": epath.Path(tmp_path / "shared")}
    first, second = (
        options(8, workdir=epath.Path(tmp_path / name), **shared).run(name, ("resnet", 8), 0)
        for name in ("one", "two")
    )
    assert first.workdir == second.workdir and first.workdir.parent == tmp_path / "shared"
    assert options(8).run("net", ("resnet", 8), 0).workdir.parent == tmp_path / "sweep"


def test_one_depth_of_a_family_is_refused(options):
    options(8, 20).refuse_one_depth()
    with pytest.raises(ValueError, match="vgg:11 is the only depth of family=vgg"):
        options(networks=(("resnet", 8), ("vgg", 11), ("resnet", 20))).refuse_one_depth()

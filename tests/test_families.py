"""What every family, merge and norm of the tables must do, on the smallest networks.

The tests follow the tables: a new line of FAMILIES, MERGES or NORMS is tested by itself.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import config as configs
from resnet_jax import families
from resnet_jax.choices import every_switch
from resnet_jax.models import measure
from resnet_jax.models.merges import MERGES
from resnet_jax.models.norm import NORMS
from tests.recipes import changed, recipe
from tests.smallest import (
    deeper,
    longest_stack,
    loss_by_hand,
    shapes,
    smallest,
    train,
    training,
    weighted_layers,
    without_merges,
)

# Choices with which more of a family's code runs; a new family needs none.
VARIED = {
    "ladder": "block=preact_basic",
    "vgg_bn": "skip=B",
    "highway": "norm=batch",
    "densenet": "block=bottleneck",
}
NETWORKS = [(family, VARIED.get(family, "")) for family in families.FAMILIES]
NETWORKS += [("resnet", "block=fixup_basic"), ("highway", "block=dense")]
VALUES = {"vgg_bn:skip=B": {"model__stages": (1, 2)}}
# Rates of dropout, for the networks that have the key.
DROPOUTS = ("model.dropout", "model.skip_dropout")


def named(networks):
    return pytest.mark.parametrize("name", [":".join(network) for network in networks])


def small(name):
    family, argument = name.split(":")
    return smallest(family, argument, **VALUES.get(name, {}))


def without_dropout(config):
    return changed(config, {key: 0.0 for key in DROPOUTS if key in configs.keys_of(config)})


@named(NETWORKS)
def test_a_network_has_the_layers_of_its_depth_and_an_output_for_every_class(name):
    config = small(name)
    net, variables, output = shapes(config)
    assert output.shape == (1, 3) and output.dtype == jnp.float32
    assert measure.layers(net, variables["params"]) == weighted_layers(config), (
        f"the depth of {name} is not its number of weighted layers; add it to LAYERS in smallest.py"
    )


def check_trained(first, last, sums):
    """Check that all numbers are finite float32, and that every kernel has a gradient."""
    assert np.isfinite(sums["loss"]).all() and last.step == len(sums["loss"])
    before = jax.tree_util.tree_leaves_with_path(first.params)
    after = jax.tree.leaves(last.params)
    assert {a.dtype for a in after} == {np.dtype("float32")}
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((after, last.batch_stats)))
    still = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(before, after, strict=True)
        if (path[-1].key == "kernel" or "['merge']" in jax.tree_util.keystr(path))
        and np.array_equal(a, b)
    ]
    assert not still


@named(NETWORKS)
def test_a_network_trains_and_its_stacks_are_loops_over_their_layers(name):
    config = without_dropout(small(name))
    first, last, sums = train(config, steps=3)
    check_trained(first, last, sums)
    if longest_stack(families.build(config)):
        loss = loss_by_hand(config, first, training(config)[2])
        np.testing.assert_allclose(sums["loss"][0], loss, rtol=1e-5)


@pytest.mark.slow
@named(NETWORKS)
def test_a_network_learns_from_its_own_initialisation(name):
    rates = {"optimizer.weight_decay": 0.0, "optimizer.learning_rate": 0.02}
    config = changed(without_dropout(small(name)), rates)
    first, last, sums = train(config, steps=100, initialise=True)
    check_trained(first, last, sums)
    assert sums["loss"].min() < 0.99 * sums["loss"][0]


def equations(jaxpr):
    inner = (p for e in jaxpr.eqns for p in jax.tree.leaves(list(e.params.values())))
    return len(jaxpr.eqns) + sum(equations(p) for p in inner if hasattr(p, "eqns"))


def traced(config):
    """Return the program of a training step, and the shapes of its results."""
    create, one_step, batch = training(config)
    return jax.make_jaxpr(one_step, return_shape=True)(jax.eval_shape(create), batch)


@named(NETWORKS)
def test_a_program_in_bfloat16_keeps_float32_and_is_as_long_at_any_depth(name):
    """Parameters, statistics and sums are float32. Dropout is on."""
    config = small(name)
    rates = {key: 0.1 for key in DROPOUTS if key in configs.keys_of(config)}
    config = changed(config, {"dtype": "bfloat16"} | rates)
    program, (state, sums) = traced(config)
    kept = jax.tree.leaves((state.params, state.batch_stats, sums))
    assert {a.dtype for a in kept} == {jnp.dtype("float32")}
    assert "bf16" in str(program)
    # The layers of LeNet, AlexNet and DenseNet differ, so that none of their networks has a Stack.
    if longest_stack(families.build(config)):
        assert equations(program) == equations(traced(deeper(config))[0]) > 100


@pytest.mark.parametrize(
    "argument,depths",
    [
        pytest.param(
            "family=resnet,block=preact_bottleneck,merge=drop_path",
            (29, 1001),
            marks=pytest.mark.slow,
        ),
        pytest.param("family=ladder,merge=exclusive_gate", (18, 1202), marks=pytest.mark.slow),
        pytest.param("family=resnext", (29, 164), marks=pytest.mark.slow),
        pytest.param("family=highway,block=dense", (10, 900), marks=pytest.mark.slow),
        ("family=vit,merge=drop_path", (4, 1000)),
    ],
)
def test_the_program_is_as_long_at_the_greatest_depths(argument, depths):
    of_depth = lambda depth: recipe("digits", f"{argument},depth={depth}", remat="none")
    shallow, deep = (equations(traced(of_depth(depth))[0]) for depth in depths)
    assert shallow == deep > 100


def owner(name, value):
    """Return the first family that has this value of a switch, by its name."""
    owners = [f for f, part in families.FAMILIES.items() if value in part.switches[name].parts]
    assert owners, f"no family has {name}={value}"
    return owners[0]


def one_stage(family, argument):
    """Return the config of a network of a few blocks with one convolution each, if it exists."""
    part = families.FAMILIES[family]
    stages = {"model__stages": (2,)} if "model.stages" in part.keys else {}
    single = ",block=single" if "single" in part.switches["block"].parts else ""
    return smallest(family, argument + single, **stages)


@pytest.mark.parametrize("name", MERGES)
def test_a_network_with_every_merge_trains_and_has_a_plain_twin(name):
    family = owner("merge", name)
    switches = families.FAMILIES[family].switches
    argument = f"merge={name}" + (",norm=none" if "none" in switches["norm"].parts else "")
    config = one_stage(family, argument)
    check_trained(*train(config, steps=1))
    # The weights of a forget gate are columns of the cell's matrices.
    if "none" in switches["skip"].parts and name != "forget":
        twin = shapes(one_stage(family, f"{argument},skip=none"))[1]["params"]
        assert twin == without_merges(shapes(config)[1]["params"])


@pytest.mark.parametrize("name", NORMS)
def test_a_network_with_every_norm_trains(name):
    check_trained(*train(one_stage(owner("norm", name), f"norm={name}"), steps=1))


CHOICES = {name: {} for name, _ in every_switch()}
for _name, _switch in every_switch():
    CHOICES[_name] |= _switch.parts


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_choice_that_a_family_lacks_is_refused_with_those_that_it_has(family):
    for name, switch in families.FAMILIES[family].switches.items():
        for value in sorted(CHOICES[name].keys() - switch.parts.keys()):
            with pytest.raises(ValueError) as error:
                recipe("mnist", f"family={family},{name}={value}")
            said = f"{name}={value} is not a {name} of family={family}, which has "
            assert str(error.value).startswith(said + ", ".join(switch.parts))
            assert "\n" not in str(error.value)


def others(key, value):
    """Return other values that the key takes: all if they are few."""
    if isinstance(value, str):
        return [other for other in key.rule.choices if other != value] or [f"another {value}"]
    if isinstance(value, tuple):
        return [tuple(2 * number for number in value)]
    if isinstance(value, bool):
        return [not value]
    return [2 * value or type(value)(0.5) or 2]


def changes_nothing(config):
    """Return the keys of the network that a config has and that change nothing in it."""
    keys, flat, merge = configs.keys_of(config), configs.flatten(config), config.model.merge
    # A plain twin keeps the keys of its residual network's skip and merge. norm.precise is for
    # evaluations.
    passed = {"model.depth", "model.stages", "norm.precise"}
    if config.model.skip == "none":
        passed |= {"model.skip_dropout", *MERGES[merge].keys}
    network = lambda config: repr(families.build(config))
    unchanged = network(config)
    return [
        name
        for name, key in keys.items()
        if name.startswith(("model.", "norm."))
        and name not in passed
        and all(
            network(changed(config, {name: other})) == unchanged
            for other in others(key, flat[name])
        )
    ]


def accepted(config):
    try:
        configs.check(config)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_key_of_every_choice_of_a_family_changes_its_networks(family):
    part = families.FAMILIES[family]
    stages = {"model__stages": (3, 2)} if "model.stages" in part.keys else {}
    for name, switch in part.switches.items():
        for value in switch.parts:
            argument = f"{name}={value}"
            config = smallest(family, argument, side=32, channels=3, check=False, **stages)
            idle = changes_nothing(config)
            # Some choices do not go together, such as block=fixup_basic and norm=group.
            assert not idle or not accepted(config), f"{idle} of family={family},{argument}"


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_preset_of_every_family_is_a_config_that_builds(family):
    configs.check(recipe("cifar10", f"family={family}"))

"""Networks that do not exist, or whose values change nothing, are refused in one line."""

import re

import pytest

from resnet_jax import families
from tests.recipes import recipe
from tests.smallest import shapes


def refused(name, argument, **changes):
    """Return the line that refuses a config."""
    with pytest.raises(ValueError) as error:
        recipe(name, argument, check=True, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "argument",
    [
        "depth=111",
        "depth=3,block=single",
        "depth=1000,block=preact_bottleneck",
        "family=ladder,depth=19",
        "family=ladder,depth=5000",
        "family=wide,depth=29",
        "family=wide,depth=1",
        "family=resnext,depth=30",
        "family=vgg,depth=12",
        "family=vgg_bn,depth=35",
        "family=vgg,depth=1",
        "family=highway,depth=3",
        "family=highway,depth=1,block=dense",
        "family=densenet,depth=41",
        "family=densenet,depth=99,block=bottleneck",
        "imagenet:depth=35",
        "imagenet:depth=20,block=basic",
        "imagenet:depth=50,block=basic",
        "imagenet:family=wide,depth=28",
        "imagenet:family=resnext",
        "imagenet:family=densenet,depth=122",
    ],
)
def test_a_depth_that_does_not_exist_is_refused_with_two_that_do(argument):
    name, _, argument = argument.rpartition(":")
    message = refused(name or "cifar10", argument)
    near = re.search(r"nearest (\d+) and (\d+)$", message)
    assert near, message
    rest = [part for part in argument.split(",") if not part.startswith("depth")]
    for depth in near.groups():
        families.build(recipe(name or "cifar10", ",".join([*rest, f"depth={depth}"])))


@pytest.mark.parametrize(
    "argument,says",
    [
        ("family=vit,depth=0", "depth 0 is no Vision Transformer of 1 or more; nearest 1 and 2"),
        ("family=lenet,depth=7", "depth 7 is no lenet, which has 5 layers"),
        ("family=alexnet,depth=7", "depth 7 is no alexnet, which has 8 layers"),
        ("family=vit,depth=1000001", "is more than 1000000, the most layers of any network"),
        ("family=vit,depth=12345678", "is more than 1000000, the most layers of any network"),
        (
            "family=vit,depth=20001,merge=drop_path",
            "is more than 20000, the most layers of a netwo",
        ),
        ("family=densenet,depth=1204", "is more than 1202, the most layers of a densenet"),
    ],
)
def test_a_network_has_as_many_layers_as_its_family_may_have(argument, says):
    assert says in refused("cifar10", argument)


@pytest.mark.parametrize(
    "argument,smallest",
    [
        ("family=lenet", 12),
        ("family=alexnet", 15),
        ("depth=8", 4),
        ("family=wide,depth=10", 4),
        ("family=densenet,depth=10", 4),
        ("family=highway,depth=4", 4),
        ("family=vgg", 1),
    ],
)
def test_images_that_are_too_small_for_the_strides_are_refused_and_larger_ones_have_logits(
    argument, smallest
):
    config = recipe("cifar10", argument, check=True, data__shape=(smallest, smallest + 3, 3))
    assert shapes(config)[2].shape == (1, 10)
    if smallest > 1:
        for shape in ((smallest - 1, smallest, 3), (smallest, smallest - 1, 3)):
            assert "too small for" in refused("cifar10", argument, data__shape=shape)


@pytest.mark.parametrize("groups,nearest", [(8, 4), (3, 2)])
def test_groups_are_refused_with_the_nearest_that_divide_every_layer(groups, nearest):
    """A DenseNet's norms have 16, 28, 40, ... channels."""
    argument = "family=densenet,depth=7,block=basic,norm=group"
    message = refused("cifar10", argument, norm__groups=groups)
    assert message.endswith(f"channels; nearest that does: {nearest}")
    recipe("cifar10", argument, check=True, norm__groups=nearest)


@pytest.mark.parametrize(
    "argument,changes",
    [
        ("family=vgg_bn,depth=11", {"batch_size": 1}),
        ("family=vgg_bn,depth=11", {"norm__group_size": 1}),
        ("family=vgg_bn,depth=11,norm=group", {"model__width": 8, "norm__groups": 64}),
        ("family=vit,depth=1", {"model__width": 1, "model__heads": 1}),
    ],
)
def test_norms_over_one_number_are_refused_before_a_run(argument, changes):
    """VGG's last images on digits have one pixel."""
    message = refused("digits", argument, **changes)
    assert "gives the same output for every input; make " in message


def test_a_network_that_needs_larger_images_behind_its_stem_is_refused_with_the_smaller_stem():
    message = refused("cifar10", "depth=20", data__shape=(12, 12, 3), model__stem="7x7")
    assert message.endswith("need 16 pixels on each side; use model.stem=3x3")


@pytest.mark.parametrize(
    "argument,changes,says",
    [
        (
            "depth=20",
            {"model__survival": 0.3},
            "model.survival is a key of merge=stochastic_depth and merge=stochastic_depth_rescaled "
            "and merge=drop_path and merge=drop_path_unscaled; this config has merge=add",
        ),
        (
            "depth=20",
            {"model__cardinality": 2},
            "; this config has block=basic",
        ),
        (
            "family=highway",
            {"model__stages": (1, 1, 1)},
            "model.stages is a key of family=resnet and family=ladder and family=wide and ",
        ),
        ("family=vgg,skip=A", {"model__skip_dropout": 0.5}, "; this config has family=vgg"),
        ("family=densenet", {"model__zero_init": True}, "; this config has family=densenet"),
        (
            "family=lenet",
            {"norm__kind": "batch"},
            "norm=batch is not a norm of family=lenet, which",
        ),
        ("family=lenet", {"model__width": 8}, "; this config has family=lenet"),
        ("depth=20,block=fixup_basic", {"model__zero_init": True}, "this config has block=fixup_b"),
        (
            "depth=20,block=fixup_basic",
            {"norm__kind": "group"},
            "norm=group with block=fixup_basic, which has no norms; choose norm=none",
        ),
        (
            "depth=20,block=fixup_basic",
            {"norm__kind": "batch"},
            "norm=batch with block=fixup_basic, which has no norms; choose norm=none",
        ),
        (
            "depth=20",
            {"model__patch": 4},
            "model.patch is a key of family=vit; this config has family=resnet",
        ),
        (
            "family=vgg",
            {"model__heads": 3},
            "model.heads is a key of family=vit; this config has family=vgg",
        ),
        ("family=vit", {"model__stages": (1, 2)}, "; this config has family=vit"),
        ("family=vit", {"model__skip_dropout": 0.1}, "; this config has family=vit"),
        (
            "family=vit",
            {"norm__kind": "batch"},
            "norm=batch is not a norm of family=vit, which has",
        ),
        (
            "family=highway,block=dense",
            {"norm__kind": "group"},
            "norm=group with block=dense, which has none; use norm=none",
        ),
        ("depth=20", {"model__gains": (0.0, 0.0)}, "pass nothing on; leave one of them above 0"),
        ("depth=20", {"model__gains": (1.0,)}, "must be two numbers, of the skip and of the body"),
        (
            "depth=8,norm=none",
            {"model__zero_init": True},
            "norm=none has none; choose merge=rezero",
        ),
        (
            "depth=8,skip=none",
            {"model__zero_init": True},
            "pass nothing on and learn nothing; leave one of the two out",
        ),
        (
            "depth=8,block=fixup_basic,skip=none",
            {},
            "pass nothing on and learn nothing; use another block or skip",
        ),
    ],
)
def test_a_value_that_would_change_nothing_is_refused(argument, changes, says):
    assert says in refused("cifar10", argument, **changes)


@pytest.mark.parametrize(
    "changes,says",
    [
        ({"model__patch": 5}, "model.patch=5 does not divide images of 32x32 pixels; .*: 4"),
        ({"model__patch": 64}, "model.patch=64 does not divide images of 32x32 .*: 32"),
        ({"data__shape": (32, 24, 3), "model__patch": 16}, "images of 32x24 pixels; .*: 8"),
        ({"model__heads": 5}, "model.heads=5 does not divide model.width=64; .*: 4"),
        ({"model__width": 66}, "model.heads=4 does not divide model.width=66; .*: 3"),
    ],
)
def test_patches_and_heads_that_do_not_divide_are_refused_with_others_that_do(changes, says):
    assert re.search(says, refused("cifar10", "family=vit", **changes))


@pytest.mark.parametrize(
    "stages,says",
    [
        ((3, 3), "has 14 layers, not depth=20; choose depth=14"),
        ((1,) * 33, "model.stages holds 33 stages; at most 32"),
    ],
)
def test_stages_that_do_not_make_the_depth_are_refused(stages, says):
    assert says in refused("cifar10", "depth=20", model__stages=stages)

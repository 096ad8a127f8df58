"""DenseNets: what a layer adds, what it keeps, and what lies between the stages."""

import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.models import measure
from resnet_jax.models.densenet import densenet, densenet_stages
from resnet_jax.models.residual import Chain
from tests.smallest import drawn


def image(size=8):
    return jax.random.normal(jax.random.key(0), (2, size, size, 3))


@pytest.mark.parametrize("bottleneck", [False, True])
def test_every_layer_adds_its_growth_and_keeps_its_input_unchanged(bottleneck):
    net = densenet((2,), growth=3, bottleneck=bottleneck, num_outputs=5)
    layers = net.blocks["stage1"].blocks
    start = 6 if bottleneck else 16
    x = jnp.abs(jax.random.normal(jax.random.key(1), (2, 4, 4, start)))
    variables = jax.tree.map(jnp.abs, drawn(Chain(layers), x))

    @jax.jit
    def outputs(x):
        states = [x]
        for name, layer in layers.items():
            states.append(layer.apply({k: v[name] for k, v in variables.items()}, states[-1]))
        return states, Chain(layers).apply(variables, x)

    states, whole = outputs(x)
    assert [y.shape[-1] for y in states] == [start + 3 * i for i in range(3)]
    for before, after in zip(states, states[1:], strict=False):
        assert jnp.array_equal(after[..., : before.shape[-1]], before)
    assert_trees_all_close(whole, states[-1])


@pytest.mark.parametrize("bottleneck", [False, True])
def test_only_bottlenecks_halve_the_channels_between_stages(bottleneck):
    net = densenet((2, 2, 1), growth=6, bottleneck=bottleneck, num_outputs=5)
    y, variables = jax.eval_shape(net.init_with_output, jax.random.key(0), image())
    params = variables["params"]
    assert y.shape == (2, 5)
    halves = lambda c: c // 2 if bottleneck else c
    c = 12 if bottleneck else 16
    for i, count in enumerate((2, 2, 1), 1):
        first = params[f"stage{i}"]["layer1"]["body"]
        assert first["norm1"]["scale"].shape == (c,)
        assert first["conv1"]["kernel"].shape[-1] == (24 if bottleneck else 6)
        c += 6 * count
        if i < 3:
            c = halves(c)
            assert params[f"transition{i}"]["conv1"]["kernel"].shape[-1] == c
    assert params["head"]["dense"]["kernel"].shape == (c, 5)


@pytest.mark.parametrize("depth,bottleneck", [(7, False), (10, True), (13, False), (22, True)])
def test_the_weighted_layers_are_the_depth(depth, bottleneck):
    net = densenet(
        densenet_stages(depth, bottleneck, 32), growth=2, bottleneck=bottleneck, num_outputs=3
    )
    variables = jax.eval_shape(net.init, jax.random.key(0), image())
    assert measure.layers(net, variables["params"]) == depth


def test_dropout_depends_on_the_key_alone():
    net = densenet((1,), growth=4, bottleneck=True, num_outputs=3, dropout=0.5)
    x = image()
    variables = jax.tree.map(jnp.abs, drawn(net, x))
    run = jax.jit(lambda key: net.apply(variables, x, rngs={"drop": key}))
    first, other, again = (run(jax.random.key(k)) for k in (1, 2, 1))
    assert jnp.array_equal(first, again) and not jnp.allclose(first, other)


@pytest.mark.parametrize(
    "depth,bottleneck,size",
    [(41, False, 32), (6, False, 32), (99, True, 32), (0, True, 32), (122, True, 224)],
)
def test_a_depth_that_does_not_exist_is_refused_with_its_neighbours(depth, bottleneck, size):
    with pytest.raises(ValueError, match=f"depth {depth} .*nearest") as error:
        densenet_stages(depth, bottleneck, size)
    low, high = (int(d) for d in str(error.value).split("nearest ")[1].split(" and "))
    assert low < high
    for near in (low, high):
        stages = densenet_stages(near, bottleneck, size)
        assert (2 if bottleneck else 1) * sum(stages) + len(stages) + 1 == near

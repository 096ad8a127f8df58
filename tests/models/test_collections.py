"""One rule for every collection and every random stream of a Stack, whatever its name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close
from flax.core import DenyList

from resnet_jax.models.bodies import PostActivation, single
from resnet_jax.models.heads import Head
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.skips import ZeroPad

DEPTH = 5
RUNS = [{}, {"remat": "block"}, {"remat": "sqrt"}, {"unroll": 99}]
X = jnp.arange(10.0).reshape(2, 5) / 10


class Inventive(nn.Module):
    """A body that reads `lesion`, updates `visits`, and reads `weather` of the whole network."""

    @nn.compact
    def __call__(self, x):
        assert self.scope is not None
        lesion = self.get_variable("lesion", "gain", jnp.float32(1))
        visits = self.variable("visits", "count", lambda: jnp.float32(0))
        weather = self.scope.root.get_variable("weather", "rain", jnp.float32(0))
        if self.is_mutable_collection("visits") and not self.is_initializing():
            visits.value = visits.value + x.mean()
        self.sow("probes", "input", x)
        return lesion * jnp.tanh(nn.Dense(5)(x) + visits.value + weather)


def network(**options):
    return Chain({"stem": nn.Dense(5), "stack": Stack(Residual(Inventive()), DEPTH, **options)})


def hand_fold(variables, x, tied):
    """Apply the layers one after the other; return the result, and `visits` and inputs stacked."""
    x = nn.Dense(5).apply({"params": variables["params"]["stem"]}, x)
    visits, probes = [], []
    for l in range(DEPTH):
        own = {
            col: jax.tree.map(lambda a, l=l: a[l], variables[col]["stack"]["layers"])
            for col in ("lesion", "visits")
        }
        params = variables["params"]["stack"]["layers"]
        own["params"] = params if tied else jax.tree.map(lambda a, l=l: a[l], params)
        own["weather"] = variables["weather"]
        probes.append(x)
        x, changed = Residual(Inventive()).apply(own, x, mutable=["visits"])
        visits.append(changed["visits"]["body"]["count"])
    return x, jnp.stack(visits), jnp.stack(probes)


@pytest.mark.parametrize(
    "mutable,options",
    [
        (["visits", "probes"], {}),
        (True, {"remat": "block"}),
        (DenyList(["params"]), {"remat": "sqrt"}),
        ({"visits", "probes", "weather"}, {"unroll": 99}),
        (("visits", "probes"), {"tied": True}),
        (True, {"tied": True, "remat": "sqrt"}),
    ],
)
def test_invented_collections_are_read_updated_and_shown_whole(mutable, options):
    net, tied = network(**options), "tied" in options
    variables = net.init(jax.random.key(0), X)
    assert variables["visits"]["stack"]["layers"]["body"]["count"].shape == (DEPTH,)
    variables = {
        "params": variables["params"],
        "visits": {"stack": {"layers": {"body": {"count": jnp.linspace(0.0, 1.0, DEPTH)}}}},
        "lesion": {"stack": {"layers": {"body": {"gain": jnp.linspace(1.0, 0.0, DEPTH)}}}},
        "weather": {"rain": jnp.float32(0.5)},
    }
    y, changed = jax.jit(lambda v: net.apply(v, X, mutable=mutable))(variables)
    expected, visits, probes = jax.jit(lambda v: hand_fold(v, X, tied))(variables)
    assert_trees_all_close(y, expected, atol=1e-6)
    layers = {col: changed[col]["stack"]["layers"]["body"] for col in ("visits", "probes")}
    assert_trees_all_close(layers["visits"]["count"], visits, atol=1e-6)
    assert_trees_all_close(layers["probes"]["input"], (probes,), atol=1e-6)
    # A collection that no layer changes comes back as it was.
    for col in set(changed) - {"visits", "probes"}:
        assert_trees_all_close(changed[col], variables[col])
    assert_trees_all_close(net.apply({**variables, "visits": changed["visits"]}, X), y, atol=1e-6)


def test_a_stack_in_a_stack_shows_every_layer_the_whole_networks_arrays():
    inner = Stack(Residual(Inventive()), 2)
    nested, flat = Stack(inner, 3), Stack(Residual(Inventive()), 6)
    variables = nested.init(jax.random.key(0), X)
    assert jax.tree.leaves(variables["visits"])[0].shape == (3, 2)
    variables["weather"] = {"rain": jnp.float32(0.5)}
    same = jax.tree.map(
        lambda a: a.reshape(6, *a.shape[2:]), {c: variables[c] for c in ("params", "visits")}
    )
    same = {col: {"layers": tree["layers"]["layers"]} for col, tree in same.items()}
    y = nested.apply(variables, X)
    assert_trees_all_close(y, flat.apply({**same, "weather": variables["weather"]}, X), atol=1e-6)
    assert not jnp.allclose(y, flat.apply(same, X))


def test_a_collection_that_is_passed_in_again_is_extended_as_outside_of_a_stack():
    """flax appends to what was sown before, and so does each layer of a Stack."""
    net = network()
    params = {"params": net.init(jax.random.key(0), X)["params"]}
    _, first = net.apply(params, X, mutable=["probes", "visits"])
    _, second = net.apply({**params, **first}, X, mutable=["probes"])
    (before,) = first["probes"]["stack"]["layers"]["body"]["input"]
    again, after = second["probes"]["stack"]["layers"]["body"]["input"]
    assert jnp.array_equal(again, before) and after.shape == before.shape == (DEPTH, 2, 5)


class Draws(nn.Module):
    """A body that draws from two streams."""

    @nn.compact
    def __call__(self, x):
        return sum(jax.random.normal(self.make_rng(name), x.shape) for name in ("drop", "noise"))


@pytest.mark.parametrize("options", RUNS)
def test_every_stream_reaches_layer_l_folded_with_l(options):
    stack = Stack(Residual(Draws()), DEPTH, **options)
    rngs = {"drop": jax.random.key(1), "noise": jax.random.key(2)}
    keys = nn.apply(lambda m: {name: m.make_rng(name) for name in rngs}, stack)({}, rngs=rngs)
    expected = X
    for l in range(DEPTH):
        own = {name: jax.random.fold_in(key, l) for name, key in keys.items()}
        expected = Residual(Draws()).apply({}, expected, rngs=own)
    assert_trees_all_close(stack.apply({}, X, rngs=rngs), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options,mutable",
    list(zip(RUNS, [False, ["batch_stats"], False, DenyList(["params"])], strict=True)),
)
def test_the_outputs_of_all_blocks_are_captured(options, mutable):
    """Three stages of three blocks give nine outputs, which are those of the loop."""
    body = lambda width, stride=1: PostActivation(single(width, stride))
    blocks = {}
    for i, width in enumerate((2, 4, 8), 1):
        blocks[f"stage{i}_first"] = Residual(body(width, min(i, 2)), ZeroPad(width, min(i, 2)))
        blocks[f"stage{i}"] = Stack(Residual(body(width)), 2, **options)
    net = Chain({**blocks, "head": Head(3)})
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 2))
    variables = jax.jit(net.init)(jax.random.key(0), x)

    @jax.jit
    def capture(variables):
        keep = lambda module, method: isinstance(module, Residual) and method == "__call__"
        _, sown = net.apply(variables, x, capture_intermediates=keep, mutable=mutable)
        outputs = []
        for i in (1, 2, 3):
            outputs += sown["intermediates"][f"stage{i}_first"]["__call__"]
            outputs += list(sown["intermediates"][f"stage{i}"]["layers"]["__call__"][0])
        return outputs

    @jax.jit
    def loop(variables):
        outputs, z = [], x
        for name, block in blocks.items():
            own = {col: tree[name] for col, tree in variables.items()}
            layers = [own]
            if isinstance(block, Stack):
                layers = [
                    {col: jax.tree.map(lambda a, l=l: a[l], t["layers"]) for col, t in own.items()}
                    for l in range(2)
                ]
                block = block.block
            for layer in layers:
                z, _ = block.apply(layer, z, mutable=mutable or [])
                outputs.append(z)
        return outputs

    outputs = capture(variables)
    assert len(outputs) == 9
    assert_trees_all_close(outputs, loop(variables), atol=1e-4)


def test_a_capture_reaches_modules_deep_within_a_layer_and_ends_with_its_call():
    stack = Stack(Chain({"a": Residual(nn.Dense(5)), "b": Stack(Residual(jnp.sin), 2)}), 3)
    variables = stack.init(jax.random.key(0), X)
    _, sown = stack.apply(variables, X, capture_intermediates=True, mutable=["intermediates"])
    shapes = jax.tree.map(jnp.shape, sown["intermediates"]["layers"])
    assert shapes["a"]["body"]["__call__"] == ((3, 2, 5),)
    assert shapes["b"]["layers"]["__call__"] == ((3, 2, 2, 5),)
    assert not stack.apply(variables, X, mutable=["intermediates"])[1]

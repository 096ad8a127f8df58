"""One rule for every collection and every random stream of a Stack, whatever its name."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close
from flax.core import DenyList

from resnet_jax.models.bodies import PostActivation, basic, single
from resnet_jax.models.heads import Head
from resnet_jax.models.merges import add
from resnet_jax.models.norm import BatchNorm
from resnet_jax.models.residual import Chain, Residual, Stack
from resnet_jax.models.skips import ZeroPad

DEPTH = 7
RUNS = [{}, {"remat": "block"}, {"remat": "sqrt"}, {"unroll": 99}, {"tied": True}]
X = jnp.arange(10.0).reshape(2, 5) / 10


class Inventive(nn.Module):
    """A body that reads `lesion`, updates `visits`, and reads `weather` of the whole network."""

    @nn.compact
    def __call__(self, x):
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


@pytest.mark.parametrize("options", RUNS)
@pytest.mark.parametrize(
    "mutable", [["visits", "probes"], True, DenyList(["params"]), {"visits", "probes", "weather"}]
)
def test_invented_collections_are_read_updated_and_shown_whole(options, mutable):
    net, tied = network(**options), "tied" in options
    variables = net.init(jax.random.key(0), X)
    assert variables["visits"]["stack"]["layers"]["body"]["count"].shape == (DEPTH,)
    variables = {
        "params": variables["params"],
        "visits": {"stack": {"layers": {"body": {"count": jnp.linspace(0.0, 1.0, DEPTH)}}}},
        "lesion": {"stack": {"layers": {"body": {"gain": jnp.linspace(1.0, 0.0, DEPTH)}}}},
        "weather": {"rain": jnp.float32(0.5)},
    }
    y, changed = net.apply(variables, X, mutable=mutable)
    expected, visits, probes = hand_fold(variables, X, tied)
    assert_trees_all_close(y, expected, atol=1e-6)
    layers = {col: tree["stack"]["layers"]["body"] for col, tree in changed.items() if "stack" in tree}
    assert_trees_all_close(layers["visits"]["count"], visits, atol=1e-6)
    assert_trees_all_close(layers["probes"]["input"], (probes,), atol=1e-6)
    # What the layers cannot change comes back as it was.
    for col in set(changed) - {"visits", "probes"}:
        assert_trees_all_close(changed[col], variables[col])
    frozen = net.apply({**variables, "visits": {"stack": changed["visits"]["stack"]}}, X)
    assert not jnp.allclose(frozen, y)


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


def test_a_collection_that_is_passed_back_in_is_updated_as_outside_of_a_stack():
    """flax appends to what was sown before; the layers of a Stack do the same."""
    net = network()
    variables = net.init(jax.random.key(0), X)
    _, first = net.apply(variables, X, mutable=["probes"])
    _, second = net.apply({**variables, **first}, X, mutable=["probes"])
    probes = second["probes"]["stack"]["layers"]["body"]["input"]
    assert len(probes) == 2 + len(variables["probes"]["stack"]["layers"]["body"]["input"]) - 0 - 0


class Draws(nn.Module):
    """A body that draws from two streams."""

    @nn.compact
    def __call__(self, x):
        return sum(jax.random.normal(self.make_rng(name), x.shape) for name in ("drop", "noise"))


@pytest.mark.parametrize("options", RUNS[:4])
def test_every_stream_reaches_layer_l_folded_with_l(options):
    stack = Stack(Residual(Draws()), DEPTH, **options)
    rngs = {"drop": jax.random.key(1), "noise": jax.random.key(2)}
    keys = nn.apply(lambda m: {name: m.make_rng(name) for name in rngs}, stack)({}, rngs=rngs)
    expected = X
    for l in range(DEPTH):
        own = {name: jax.random.fold_in(key, l) for name, key in keys.items()}
        expected = Residual(Draws()).apply({}, expected, rngs=own)
    assert_trees_all_close(stack.apply({}, X, rngs=rngs), expected, atol=1e-5)


def captured(net, variables, x, keep, **options):
    """Return the outputs of the blocks that `keep` chooses, and the network's output."""
    y, sown = net.apply(variables, x, capture_intermediates=keep, **options)
    return sown["intermediates"], y[0] if isinstance(y, tuple) else y


@pytest.mark.parametrize("options", RUNS[:4])
@pytest.mark.parametrize("mutable", [False, ["batch_stats"]])
def test_the_outputs_of_all_blocks_are_captured(options, mutable):
    """Filtered to Residual, three stages of three blocks give nine outputs, those of a loop."""
    body = lambda width, stride=1: PostActivation(single(width, stride))
    blocks = {}
    for i, width in enumerate((2, 4, 8), 1):
        blocks[f"stage{i}_first"] = Residual(body(width, 2), ZeroPad(width, 2))
        blocks[f"stage{i}"] = Stack(Residual(body(width)), 2, **options)
    net = Chain({**blocks, "head": Head(3)})
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 2))
    variables = jax.jit(net.init)(jax.random.key(0), x)
    keep = lambda module, method: isinstance(module, Residual) and method == "__call__"
    y, sown = net.apply(variables, x, capture_intermediates=keep, mutable=mutable)
    found = []
    for i in (1, 2, 3):
        found += sown["intermediates"][f"stage{i}_first"]["__call__"]
        found += list(sown["intermediates"][f"stage{i}"]["layers"]["__call__"][0])
    assert len(found) == 9

    expected, z = [], x
    for name, block in blocks.items():
        own = {col: tree[name] for col, tree in variables.items() if name in tree}
        layers = [own]
        if isinstance(block, Stack):
            layers = [jax.tree.map(lambda a, l=l: a[l], own) for l in range(2)]
            layers = [{col: tree["layers"] for col, tree in layer.items()} for layer in layers]
            block = block.block
        for layer in layers:
            z = block.apply(layer, z, mutable=mutable)
            z = z[0] if mutable else z
            expected.append(z)
    assert_trees_all_close(found, expected, atol=1e-5)
    assert jnp.array_equal(y, net.apply(variables, x, mutable=mutable)[0] if mutable else net.apply(variables, x))


def test_a_capture_reaches_modules_deep_within_a_layer_and_no_further_call():
    stack = Stack(Chain({"a": Residual(nn.Dense(5)), "b": Stack(Residual(jnp.sin), 2)}), 3)
    variables = stack.init(jax.random.key(0), X)
    _, sown = stack.apply(variables, X, capture_intermediates=True, mutable=["intermediates"])
    shapes = jax.tree.map(jnp.shape, sown["intermediates"]["layers"])
    assert shapes["a"]["body"]["__call__"] == ((3, 2, 5),)
    assert shapes["b"]["layers"]["__call__"] == ((3, 2, 2, 5),)
    assert not stack.apply(variables, X, mutable=["intermediates"])[1]

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chex import assert_trees_all_close

from resnet_jax import config as configs
from resnet_jax import families
from resnet_jax.config import make
from resnet_jax.training import groups
from resnet_jax.training.optimizer import optimizer
from resnet_jax.training.schedule import schedule


def rate(kind="piecewise", **values):
    recipe = {"schedule.boundaries": (10, 20), "schedule.end": 110}
    recipe |= {f"schedule.{key}": value for key, value in values.items()}
    return jax.jit(schedule(make(f"schedule={kind}", recipe)))


@pytest.mark.parametrize("step,expected", [(0, 0.1), (9, 0.1), (10, 0.01), (19, 0.01), (20, 0.001)])
def test_piecewise_drops_at_its_boundaries(step, expected):
    assert rate()(step) == pytest.approx(expected)


def test_warm_up_holds_or_rises_and_leaves_the_boundaries_where_they_are():
    constant, linear = rate(warmup_steps=4), rate(warmup_steps=4, warmup="linear")
    assert [float(constant(s)) for s in (0, 3, 4, 10)] == pytest.approx([0.01, 0.01, 0.1, 0.01])
    assert [float(linear(s)) for s in (0, 2, 4, 10)] == pytest.approx([0.01, 0.055, 0.1, 0.01])


def test_a_cosine_falls_from_the_peak_to_nothing():
    cosine = rate(kind="cosine", warmup_steps=10)
    assert [float(cosine(s)) for s in (10, 60, 110, 200)] == pytest.approx([0.1, 0.05, 0, 0])
    assert rate(kind="constant")(10**6) == pytest.approx(0.1)


def test_an_exponential_falls_by_its_factor_every_so_many_steps():
    exponential = rate(kind="exponential", factor=0.5, every=100, warmup_steps=10)
    steps = (0, 9, 10, 99, 100, 101, 1000)
    expected = [0.01, 0.01, *(0.1 * 0.5 ** (step / 100) for step in steps[2:])]
    assert [float(exponential(s)) for s in steps] == pytest.approx(expected, rel=1e-5)


# A plain layer, three gated layers in a Stack, and the classifier.
NETWORK = "family=highway,block=dense,depth=4"
GROUPS = ((".*gate/bias", 2.0, 0.0), ("head/.*", 1.0, 10.0), ("first/body/dense/bias", 0.0, 1.0))


def config(argument="", dtype="float32", **values):
    recipe = {f"optimizer.{key}": value for key, value in values.items()}
    recipe |= {"schedule.boundaries": (4,), "data.shape": (8, 8, 1), "dtype": dtype}
    return make(f"{NETWORK},{argument}", recipe)


@pytest.fixture(scope="module")
def network():
    """Return the first parameters, and the gradient of a loss on random images, in float64."""
    with jax.enable_x64(True):
        net, rng = families.build(config(dtype="float64")), np.random.default_rng(0)
        images, labels = jnp.asarray(rng.normal(size=(20, 8, 8, 1))), np.arange(20) % 10
        variables = net.init(jax.random.key(0), images)
        params = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"])
        cross = optax.softmax_cross_entropy_with_integer_labels
        loss = lambda p: cross(net.apply({"params": p}, images), labels).mean()
        return params, jax.jit(jax.grad(loss))


def multiples(path, keys):
    """Return the multiples of rate and decay of a parameter, as the rows of GROUPS say."""
    name = "/".join(part.key for part in path)
    decay = 1.0 if name.endswith("kernel") or keys.get("decay") == "all" else 0.0
    if keys.get("groups"):
        if name.startswith("head/"):
            return 1.0, 10.0
        if name == "first/body/dense/bias":
            return 0.0, 1.0
        if name.endswith("gate/bias"):
            return 2.0, 0.0
    return 1.0, (0.0 if name.endswith("gate/bias") else decay)


def by_tensor(p, u, name):
    """Return the factors of LAMB; the three gated layers are the first axis of one array."""
    tensors = list(zip(p, u, strict=True)) if name[0].key == "layers" else [(p, u)]
    norms = [(np.linalg.norm(a), np.linalg.norm(b)) for a, b in tensors]
    factors = [a / b if a > 0 and b > 0 else 1.0 for a, b in norms]
    return np.reshape(factors, (-1,) + (1,) * (p.ndim - 1)) if len(factors) > 1 else factors[0]


def reference(name, keys, params, gradient, steps):
    """Return the parameters after ten steps of an optimizer that is written out with NumPy."""
    keys = {"momentum": 0.9, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.5} | keys
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    p, tree = jax.tree.flatten(params)
    m, v = [np.zeros_like(a) for a in p], [np.zeros_like(a) for a in p]
    for t in range(1, steps + 1):
        rate = 0.1 if t <= 4 else 0.01
        grads = [np.asarray(g) for g in jax.tree.leaves(gradient(tree.unflatten(p)))]
        if limit := keys.get("clip_norm"):
            norm = np.sqrt(sum((g**2).sum() for g in grads))
            grads = [g * min(1, limit / norm) for g in grads]
        for i, (g, path) in enumerate(zip(grads, paths, strict=True)):
            of_rate, of_decay = multiples(path, keys)
            decay = keys["weight_decay"] * of_decay * p[i]
            if name == "sgd":
                g = g + decay
                m[i] = keys["momentum"] * m[i] + g
                step = g + keys["momentum"] * m[i] if keys.get("nesterov") else m[i]
            else:
                m[i] = keys["beta1"] * m[i] + (1 - keys["beta1"]) * g
                v[i] = keys["beta2"] * v[i] + (1 - keys["beta2"]) * g**2
                means = m[i] / (1 - keys["beta1"] ** t), v[i] / (1 - keys["beta2"] ** t)
                step = means[0] / (np.sqrt(means[1]) + keys["epsilon"]) + decay
                step = step * by_tensor(p[i], step, path) if name == "lamb" else step
            p[i] = p[i] - of_rate * rate * step
    return tree.unflatten(p)


@pytest.mark.parametrize(
    "name,keys",
    [
        ("sgd", {}),
        ("sgd", {"decay": "all", "nesterov": True}),
        ("sgd", {"groups": GROUPS, "clip_norm": 0.5}),
        ("adamw", {"epsilon": 1e-8, "decay": "all"}),
        ("adamw", {"epsilon": 1e-8, "groups": GROUPS}),
        ("lamb", {"epsilon": 1e-6}),
        ("lamb", {"epsilon": 1e-6, "groups": GROUPS, "clip_norm": 0.5}),
    ],
)
def test_ten_steps_are_those_of_the_written_out_optimizer(network, x64, name, keys):
    params, gradient = network
    given = {"learning_rate": 0.1, "weight_decay": 0.5}
    optim = optimizer(config(f"optimizer={name}", **(given | keys)))
    expected = reference(name, keys, params, gradient, 10)
    state = optim.init(params)
    step = jax.jit(optim.update)
    for _ in range(10):
        updates, state = step(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    assert_trees_all_close(params, expected, rtol=1e-6, atol=1e-9)


def test_the_bias_of_a_closed_gate_stays_without_a_gradient():
    """Decayed at rate 0.1, it would be opened to 4 % of its value in 32,000 steps."""
    gated = config(weight_decay=1e-2, decay="all")
    params = {"merge": {"gate": {"bias": jnp.full(3, -6.0)}, "other": {"bias": jnp.ones(3)}}}
    optim = optimizer(gated)
    nothing = jax.tree.map(jnp.zeros_like, params)

    def step(carry, _):
        params, state = carry
        updates, state = optim.update(nothing, state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p: jax.lax.scan(step, (p, optim.init(p)), None, 2000)[0][0])
    after = run(params)["merge"]
    assert (after["gate"]["bias"] == -6).all() and (after["other"]["bias"] < 0.9).all()


@pytest.mark.parametrize(
    "rows,says",
    [
        ((("gate/bias", 1.0, 0.0),), "'gate/bias' matches no parameter of this network; its par"),
        ((("head/.*", 1.0, 0.0), (".*/bias", 1.0, 1.0)), "both match head/dense/bias, with differ"),
        ((("head/.*", 1.0),), "must hold rows (pattern, multiple of the rate, multiple of the d"),
        (("head/.*", 1.0, 1.0), "must hold rows"),
        ((("head/(", 1.0, 1.0),), "must hold rows"),
        ((("head/.*", -1.0, 1.0),), "must hold rows"),
    ],
)
def test_rows_of_groups_that_cannot_be_meant_are_refused(rows, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        configs.check(config(groups=rows))


def test_rows_that_agree_may_overlap_and_are_told():
    both = config(groups=((".*gate/bias", 2.0, 0.0), ("layers/.*bias", 2.0, 0.0)))
    configs.check(both)
    example = jax.ShapeDtypeStruct((1, 8, 8, 1), "float32")
    params = jax.eval_shape(families.build(both).init, jax.random.key(0), example)["params"]
    assert list(groups.in_words(both, params)) == [
        "optimizer.groups: .*gate/bias has 2 x the rate and 0 x the decay (150 parameters in 1 "
        "arrays)",
        "optimizer.groups: layers/.*bias has 2 x the rate and 0 x the decay (300 parameters in 2 "
        "arrays)",
    ]

import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_close

from resnet_jax.config import make
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


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_sgd_is_the_papers(nesterov, decay):
    """g += decay p; v = momentum v + g; p -= rate (v, or g + momentum v)."""
    keys = {"nesterov": nesterov, "decay": decay, "weight_decay": 0.5}
    config = make("", {f"optimizer.{key}": value for key, value in keys.items()})
    params = {"conv": {"kernel": jnp.array([1.0, 2.0])}, "norm": {"scale": jnp.array([3.0])}}
    optim = optimizer(config)
    state, v = optim.init(params), jax.tree.map(jnp.zeros_like, params)
    expected = params
    decays = {"conv": {"kernel": 0.5}, "norm": {"scale": 0.5 if decay == "all" else 0.0}}
    for k in range(3):
        grads = jax.tree.map(lambda p, k=k: jnp.sin(p + k), expected)
        g = jax.tree.map(lambda g, p, d: g + d * p, grads, expected, decays)
        v = jax.tree.map(lambda v, g: 0.9 * v + g, v, g)
        step = jax.tree.map(lambda v, g: g + 0.9 * v if nesterov else v, v, g)
        expected = jax.tree.map(lambda p, s: p - 0.1 * s, expected, step)
        updates, state = optim.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    assert_trees_all_close(params, expected, rtol=1e-5)

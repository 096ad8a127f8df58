"""Feedback in the place of weights on the way back: the gradients of layers and of networks."""

import jax
import jax.numpy as jnp
import pytest
from chex import assert_trees_all_equal

from resnet_jax.models import resnet
from resnet_jax.models.conv import Conv
from resnet_jax.models.dense import Linear
from resnet_jax.models.feedback import with_feedback
from resnet_jax.models.starts import kernel_start

IMAGES = jax.random.normal(jax.random.key(1), (4, 6, 6, 4))
LAYERS = {
    "conv": (lambda kind: Conv(6, 3, 2, feedback=kind), IMAGES),
    "groups": (lambda kind: Conv(4, groups=2, feedback=kind), IMAGES),
    "dense": (lambda kind: Linear(5, kernel_start("he", "in"), kind), IMAGES.reshape(4, -1)),
}
layers = pytest.mark.parametrize("name", LAYERS)


def gradients(layer, variables, x):
    """Return the output and the gradients of the parameters and of x."""

    def loss(params, x):
        return jnp.sin(layer.apply({**variables, "params": params}, x)).sum()

    return jax.jit(jax.grad(loss, (0, 1)))(variables["params"], x)


@layers
def test_feedback_that_is_the_weights_is_back_propagation_exactly(name):
    make, x = LAYERS[name]
    random = make("random")
    variables = random.init(jax.random.key(0), x)
    same = {**variables, "batch_stats": {"feedback": variables["params"]["kernel"]}}
    own, usual = (gradients(layer, same, x) for layer in (random, make("weights")))
    assert_trees_all_equal(own, usual)


@layers
@pytest.mark.parametrize("kind", ["signs", "random"])
def test_the_error_passes_through_the_feedback_and_the_kernel_learns_as_ever(name, kind):
    make, x = LAYERS[name]
    variables = make(kind).init(jax.random.key(0), x)
    kernel = variables["params"]["kernel"]
    (params, dx), (usual, _) = (gradients(make(k), variables, x) for k in (kind, "weights"))
    assert_trees_all_equal(params, usual)
    if kind == "signs":
        feedback = jnp.sign(kernel) * jnp.sqrt(jnp.square(kernel).mean())
    else:
        feedback = variables["batch_stats"]["feedback"]
        assert feedback.shape == kernel.shape and not jnp.allclose(feedback, kernel)
        assert float(feedback.std()) == pytest.approx(float(kernel.std()), rel=0.3)
    # The error at the output is that of the kernel, and goes back through the feedback.
    backwards = lambda of: jax.vjp(lambda x: make("weights").apply(of, x), x)
    y, _ = backwards({"params": variables["params"]})
    _, pull = backwards({"params": {**variables["params"], "kernel": feedback}})
    assert jnp.allclose(dx, pull(jnp.cos(y))[0], atol=1e-5)


def test_the_feedback_itself_does_not_learn():
    product = jnp.matmul
    x, kernel = jnp.ones((2, 3)), jnp.full((3, 4), 0.5)
    grad = jax.grad(lambda b: with_feedback(product, x, kernel, b).sum())(kernel)
    assert not grad.any()


def test_every_layer_of_a_stack_has_feedback_of_its_own_that_training_keeps():
    net = resnet.resnet(
        (3,), block="basic", skip="A", num_outputs=3, width=4, conv=lambda *a, **k: Conv(
            *a, feedback="random", **k
        )
    )  # fmt: skip
    x = IMAGES[..., :1]
    variables = jax.jit(net.init)(jax.random.key(0), x)
    of = lambda stats: stats["stage1"]["layers"]["body"]["conv1"]["feedback"]
    before = of(variables["batch_stats"])
    assert before.shape == (3, 3, 3, 4, 4)
    assert len({float(layer.sum()) for layer in before}) == 3
    _, changed = jax.jit(lambda v: net.apply(v, x, mutable=["batch_stats"]))(variables)
    assert_trees_all_equal(of(changed["batch_stats"]), before)

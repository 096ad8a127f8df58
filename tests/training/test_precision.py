"""bfloat16 and determinism of a step: what stays float32, and how far the loss moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from resnet_jax import families
from resnet_jax.config import make
from resnet_jax.tasks.classification import measure
from resnet_jax.tasks.task import Batch
from resnet_jax.training import feeds, state
from resnet_jax.training import step as steps
from resnet_jax.training.compile import ONCE, program
from resnet_jax.training.optimizer import optimizer


def recipe(dtype):
    """Return the config of a network with 8 layers and 4 channels."""
    values = {"dtype": dtype, "batch_size": 16, "data.shape": (8, 8, 3), "model.width": 4}
    return make("depth=8", values)


def batch(n=16):
    draw = np.random.default_rng(0)
    image = jnp.asarray(draw.standard_normal((n, 8, 8, 3), np.float32))
    label = jnp.asarray(draw.integers(10, size=n, dtype=np.int32))
    return Batch(image, label, jnp.arange(n, dtype=jnp.int32), jnp.ones(n, bool))


def loss_and_gradients(config):
    net = families.build(config)
    first = state.create(0, net, (8, 8, 3), optimizer(config))
    examples = batch()

    def loss(params):
        variables = {"params": params, "batch_stats": first.batch_stats}
        logits, _ = net.apply(variables, examples.input, mutable=["batch_stats"])
        return measure(logits, examples)["loss"] / examples.target.size, logits

    both = program(jax.value_and_grad(loss, has_aux=True), first.params, level=ONCE)
    (value, logits), gradients = both(first.params)
    return value, logits, gradients


def test_bfloat16_keeps_loss_and_gradients_float32_and_close():
    wide, narrow = (loss_and_gradients(recipe(d)) for d in ("float32", "bfloat16"))
    kept = [narrow[0], narrow[1], *jax.tree.leaves(narrow[2])]
    assert {a.dtype for a in kept} == {jnp.dtype("float32")}
    assert all(jnp.isfinite(a).all() for a in kept)
    assert narrow[0] != wide[0]  # it is another computation
    # bfloat16 has 8 bits, and every layer rounds by up to 0.4 %.
    assert abs(narrow[0] / wide[0] - 1) < 0.01
    flat = lambda tree: jnp.concatenate([a.ravel() for a in jax.tree.leaves(tree)])
    a, b = flat(wide[2]), flat(narrow[2])
    assert (a @ b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b)) > 0.98


def test_a_chunk_compiled_twice_gives_the_same_bits():
    """And is compiled twice: the second is not the first one, kept."""
    config = recipe("bfloat16")
    net, optim = families.build(config), optimizer(config)
    one = functools.partial(
        steps.train_step,
        apply=net.apply,
        prepare=lambda key, batch: batch,
        measure=measure,
        optimizer=optim,
    )
    examples = batch()
    source = examples.input, examples.target
    indices = jnp.tile(jnp.arange(16, dtype=jnp.int32), (3, 1))
    inputs = indices, jnp.ones(indices.shape, bool)

    def run():
        first = state.create(0, net, (8, 8, 3), optim)
        chunk = functools.partial(steps.chunk, step=one, fetch=feeds.gather, axis=None)
        arguments = first, source, inputs
        last, sums = program(chunk, *arguments, deterministic=True, level=ONCE)(*arguments)
        return jax.device_get((last.params, last.batch_stats, last.opt_state, sums))

    kept = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 3600.0)
    try:
        jax.tree.map(np.testing.assert_array_equal, run(), run())
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", kept)

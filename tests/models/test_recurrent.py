"""Recurrent layers against loops by hand, and what their merges keep through time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.models.lstm import rnn_block
from resnet_jax.models.merges import Forget, add, plain
from resnet_jax.models.recurrent import AsSequence, LstmCell, Recurrent, SequenceHead
from resnet_jax.models.residual import Stack

WIDTH, STEPS = 4, 7
X = jax.random.normal(jax.random.key(1), (3, STEPS, 2))
CELLS = {
    "lstm-2000": LstmCell(WIDTH),
    "lstm-1997": LstmCell(WIDTH, add),
    "lstm-plain": LstmCell(WIDTH, plain),
    "rnn": rnn_block(WIDTH, plain),
    "residual-rnn": rnn_block(WIDTH, add),
}


def layer(name, **options):
    return Recurrent(CELLS[name], WIDTH, **options)


def started(module, x=X, seed=0):
    """Return parameters whose biases differ from zero, as variables."""
    variables = {"params": jax.jit(module.init)(jax.random.key(seed), x)["params"]}
    random = np.random.default_rng(seed)
    moved = lambda a: a + 0.1 * jnp.asarray(random.normal(size=a.shape), a.dtype)
    return jax.tree.map(moved, variables)


def by_hand(name, params, x):
    """Return the h of every step: NumPy's loop over the equations of the papers."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    w, b = (np.asarray(params["input"][leaf], np.float64) for leaf in ("kernel", "bias"))
    step = params["steps"]["layers"]
    u = np.asarray(step.get("body", step)["hidden"]["kernel"], np.float64)
    h = c = np.zeros((len(x), WIDTH))
    hidden = []
    for t in range(x.shape[1]):
        parts = np.split(np.asarray(x, np.float64)[:, t] @ w + b + h @ u, w.shape[1] // WIDTH, -1)
        if len(parts) == 1:
            h = np.tanh(parts[0]) + (h if name == "residual-rnn" else 0)
        else:
            i, g, o, *f = parts
            kept = {"lstm-2000": sigmoid(f[0]) * c if f else 0, "lstm-1997": c, "lstm-plain": 0}
            c = kept[name] + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        hidden.append(h)
    return np.stack(hidden, 1)


@pytest.mark.parametrize("name", CELLS)
def test_a_layer_is_a_loop_over_its_cell(name):
    net = layer(name)
    variables = started(net)
    expected = by_hand(name, variables["params"], X)
    np.testing.assert_allclose(jax.jit(net.apply)(variables, X), expected, rtol=1e-4, atol=1e-5)


def test_a_forget_gate_held_at_1_is_the_cell_of_1997():
    old, new = layer("lstm-1997"), layer("lstm-2000")
    variables = started(old)
    wide = lambda a, last: jnp.concatenate([a, jnp.full((*a.shape[:-1], WIDTH), last)], -1)
    params = variables["params"]
    hidden = wide(params["steps"]["layers"]["hidden"]["kernel"], 0.0)
    of_input = {"kernel": wide(params["input"]["kernel"], 0.0)}
    of_input["bias"] = wide(params["input"]["bias"], 99.0)
    more = {"input": of_input, "steps": {"layers": {"hidden": {"kernel": hidden}}}}
    assert (new.apply({"params": more}, X) == old.apply(variables, X)).all()


def test_the_gradient_through_the_line_of_c_is_the_product_of_the_forget_gates():
    """With the path through h cut, log |dc_T / dc_0| is the sum of the logarithms, T = 1000."""
    steps = 1000
    with jax.enable_x64(True):
        cell = LstmCell(WIDTH, Forget())
        stack = Stack(cell, steps, tied=True)
        x = 3 + jax.random.normal(jax.random.key(0), (steps, 1, 4 * WIDTH), jnp.float64)
        cut = {"params": {"layers": {"hidden": {"kernel": jnp.zeros((WIDTH, 4 * WIDTH))}}}}
        start = jnp.ones((1, WIDTH), jnp.float64), jnp.zeros((1, WIDTH), jnp.float64)
        last = lambda c: stack.apply(cut, (c, start[1]), drive=x)[0].sum()
        slope = jax.jit(jax.grad(last))(start[0])
        logs = jax.nn.log_sigmoid(x[..., 3 * WIDTH :]).sum(0)
        assert logs.max() < -10  # so that something is forgotten
        np.testing.assert_allclose(jnp.log(slope), logs, rtol=0, atol=1e-10)


def test_the_carousel_of_1997_keeps_the_gradient_of_1000_steps_exactly():
    steps = 1000
    stack = Stack(LstmCell(WIDTH, add), steps, tied=True)
    x = jax.random.normal(jax.random.key(0), (steps, 1, 3 * WIDTH))
    cut = {"params": {"layers": {"hidden": {"kernel": jnp.zeros((WIDTH, 3 * WIDTH))}}}}
    zeros = jnp.zeros((1, WIDTH))
    last = lambda c: stack.apply(cut, (c, zeros), drive=x)[0].sum()
    assert (jax.jit(jax.grad(last))(zeros) == 1).all()


@pytest.mark.parametrize("name", CELLS)
def test_a_padded_sequence_ends_with_its_last_valid_step(name):
    net = layer(name)
    variables = started(net)
    lengths = jnp.array([STEPS, 3, 5])
    padded = np.asarray(jax.jit(net.apply)(variables, X, lengths))
    for example, length in enumerate(lengths.tolist()):
        alone = net.apply(variables, X[example : example + 1, :length])
        np.testing.assert_allclose(padded[example, :length], alone[0], rtol=1e-5, atol=1e-6)
        assert (padded[example, length:] == padded[example, length - 1]).all()
    of_padding = jax.grad(lambda x: net.apply(variables, x, lengths)[:, -1].sum())(X)
    assert not of_padding[1, 3:].any() and of_padding[1, :3].any()


def test_the_forget_gates_bias_starts_where_it_is_asked_to():
    bias = layer("lstm-2000", forget_bias=2.5).init(jax.random.key(0), X)["params"]["input"]["bias"]
    assert bias.tolist() == [0.0] * 3 * WIDTH + [2.5] * WIDTH
    bias = layer("lstm-1997", forget_bias=2.5).init(jax.random.key(0), X)["params"]["input"]["bias"]
    assert bias.tolist() == [0.0] * 3 * WIDTH


def test_the_program_is_as_long_for_a_thousand_steps_as_for_ten():
    def equations(steps):
        net, x = layer("lstm-2000", remat="block"), jnp.zeros((2, steps, 2))
        variables = jax.eval_shape(net.init, jax.random.key(0), x)
        program = jax.make_jaxpr(jax.grad(lambda v: net.apply(v, x)[:, -1].sum()))(variables)
        return count(program.jaxpr)

    def count(jaxpr):
        inner = (p for e in jaxpr.eqns for p in jax.tree.leaves(list(e.params.values())))
        inner = (getattr(p, "jaxpr", p) for p in inner)
        return len(jaxpr.eqns) + sum(count(p) for p in inner if hasattr(p, "eqns"))

    assert equations(10) == equations(1000) > 50


def test_an_image_is_read_by_rows_or_by_pixels():
    image = jnp.arange(2 * 3 * 4 * 2.0).reshape(2, 3, 4, 2)
    rows, pixels = (AsSequence(read)(image) for read in ("rows", "pixels"))
    assert rows.shape == (2, 3, 8) and pixels.shape == (2, 12, 2)
    assert (rows[1, 2] == image[1, 2].reshape(-1)).all() and (pixels[1, 5] == image[1, 1, 1]).all()
    assert (AsSequence()(X) == X).all()


def test_a_head_reads_the_last_step_or_every_step():
    last, every = SequenceHead(5), SequenceHead(5, "every")
    variables = last.init(jax.random.key(0), X)
    outputs = every.apply(variables, X)
    assert outputs.shape == (3, STEPS, 5)
    np.testing.assert_allclose(outputs[:, -1], last.apply(variables, X), rtol=1e-6)

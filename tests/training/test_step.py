"""A training step, many steps, and evaluation, on a small network."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from chex import assert_trees_all_close

from resnet_jax.data.order import chunk_indices, eval_indices
from resnet_jax.models.conv import Conv
from resnet_jax.models.norm import BatchNorm, GroupNorm
from resnet_jax.models.resnet import resnet
from resnet_jax.models.stochastic_depth import Dropped
from resnet_jax.tasks import classification
from resnet_jax.tasks.task import Batch
from resnet_jax.training import feeds, metrics, state, step

SHAPE = (8, 8, 1)


def network(group_size=0, dtype=jnp.float32):
    norm = functools.partial(BatchNorm, group_size=group_size)
    conv = functools.partial(Conv, dtype=dtype)
    options = {"num_outputs": 4, "width": 4, "conv": conv, "norm": norm, "remat": "block"}
    return resnet((2, 1), block="preact_basic", skip="A", **options)


def source(n=64):
    """Images that tell their class: a bright quarter."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    images = rng.integers(0, 100, (n, *SHAPE))
    for image, label in zip(images, labels, strict=True):
        i, j = divmod(label, 2)
        image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] += 100
    return jnp.asarray(images.astype(np.uint8)), jnp.asarray(labels.astype(np.int32))


def prepare(key, batch, dtype=jnp.float32):
    return batch.replace(input=batch.input.astype(dtype) / 255)


def training(net, dtype=jnp.float32):
    """(first state, training step) of a network."""
    optim = optax.sgd(0.1, 0.9)
    first = jax.jit(functools.partial(state.create, 0, net, SHAPE, optim))()
    return first, functools.partial(
        step.train_step,
        apply=net.apply,
        prepare=functools.partial(prepare, dtype=dtype),
        measure=classification.measure,
        optimizer=optim,
    )


@functools.cache
def shared():
    """(first state, training step, the step compiled) of the network that most tests share."""
    first, one = training(network())
    return first, one, jax.jit(functools.partial(one, axis=None))


@functools.cache
def shared_by_two():
    """(network, first state, step on one device, step on two) in float64, in groups of 8."""
    net = network(group_size=8, dtype=jnp.float64)
    first, one = training(net, jnp.float64)
    both = jax.vmap(lambda s, b: one(s, b, "data"), (None, 0), axis_name="data")
    return net, first, jax.jit(functools.partial(one, axis=None)), jax.jit(both)


def batch_of(indices, mask=None):
    whole = jnp.ones(len(indices), bool) if mask is None else mask
    return feeds.gather(source(), (jnp.asarray(indices), whole), None)


def test_a_chunk_is_its_steps_in_turn_and_the_network_learns():
    first, one, single = shared()
    images, indices = source(), chunk_indices(0, 0, 24, 16, 64)
    inputs = indices, np.ones(indices.shape, bool)
    chunk = jax.jit(functools.partial(step.chunk, step=one, fetch=feeds.gather, axis=None))
    ends, losses = [first], []
    for start in range(0, 24, 3):
        rows = jax.tree.map(lambda a, start=start: a[start : start + 3], inputs)
        last, sums = chunk(ends[-1], images, rows)
        assert sums["examples"].tolist() == [16.0] * 3
        ends.append(last)
        losses.extend(sums["loss"])
    assert ends[-1].step == 24
    assert sum(losses[-4:]) < 0.3 * sum(losses[:4])

    by_hand = first
    for row in indices[:3]:
        by_hand, _ = single(by_hand, batch_of(row))
    assert_trees_all_close(ends[1].params, by_hand.params, rtol=1e-4, atol=1e-6)


def test_evaluation_counts_every_example_once_whatever_the_batch():
    first, *_ = shared()
    images = source(50)
    test = functools.partial(
        step.eval_step,
        apply=network().apply,
        prepare=prepare,
        measure=classification.measure,
    )
    evaluate = functools.partial(step.evaluate, step=test, fetch=feeds.gather, axis=None)
    sums = lambda b: jax.jit(evaluate)(first, images, eval_indices(50, b))
    one, many = (metrics.mean(sums(b)) for b in (50, 16))
    assert one["examples"] == many["examples"] == 50
    assert one["error"] == many["error"]
    assert one["loss"] == pytest.approx(many["loss"], rel=1e-5)


def test_two_devices_with_groups_of_their_own_take_one_devices_step(x64):
    """The axis averages gradients, statistics and metrics: the step is the same mathematics."""
    _, first, on_one, on_two = shared_by_two()
    batch = batch_of(range(16))
    split = jax.tree.map(lambda a: a.reshape(2, 8, *a.shape[1:]), batch)
    (alone, sums), (both, both_sums) = on_one(first, batch), on_two(first, split)
    for device in range(2):
        here = jax.tree.map(lambda a, device=device: a[device], (both, both_sums))
        assert_trees_all_close(
            (here[0].params, here[0].batch_stats), (alone.params, alone.batch_stats)
        )
        assert_trees_all_close(here[1], sums)


def test_the_key_is_the_runs_and_each_step_draws_anew():
    seen = []

    def noisy(key, batch):
        seen.append(key)
        noise = jax.random.normal(key, batch.input.shape)
        return batch.replace(input=prepare(key, batch).input + noise)

    net, optim = network(), optax.sgd(0.0)
    first = state.begin(0, state.variables(shared()[0]), optim)
    parts = {"apply": net.apply, "measure": classification.measure, "optimizer": optim}
    one = jax.jit(lambda s, b: step.train_step(s, b, None, prepare=noisy, **parts))
    batch = batch_of(range(16))
    second, a = one(first, batch)
    _, b = one(second, batch)
    _, again = one(first, batch)
    assert a["loss"] != b["loss"] and a["loss"] == again["loss"]
    assert jnp.array_equal(jax.random.key_data(first.key), jax.random.key_data(second.key))
    assert len(seen) == 1  # one compilation for every step


def test_what_an_example_draws_follows_its_row_and_not_its_share_of_the_batch():
    norm = functools.partial(GroupNorm, groups=1)
    options = {"num_outputs": 4, "width": 4, "norm": norm, "merge": Dropped(per="sample")}
    net = resnet(
        (2,),
        block="basic",
        skip="A",
        per_layer={"survival": (0.5, 0.5)},
        skip_dropout=0.3,
        **options,
    )
    first, one = training(net)
    step_once = jax.jit(lambda batch: one(first, batch, None)[1]["loss"])
    whole = batch_of(range(8))
    halves = [jax.tree.map(lambda a, i=i: a[i : i + 4], whole) for i in (0, 4)]
    assert_trees_all_close(sum(map(step_once, halves)), step_once(whole), rtol=1e-5)
    twice = jax.tree.map(lambda a: jnp.concatenate([a[:4], a[:4]]), whole)
    assert abs(step_once(twice) / 2 - step_once(halves[0])) < 1e-5 * step_once(twice)
    others = twice.replace(row=jnp.arange(8, dtype=jnp.int32))
    assert abs(step_once(others) - step_once(twice)) > 1e-4


def poisoned(skip):
    """The states and metrics of four steps, whose second one sees an image that is not finite."""
    first, one, single = shared()
    images = source()
    if skip:
        single = jax.jit(functools.partial(one, axis=None, skip=True))
    states, sums = [first], []
    for number, indices in enumerate(chunk_indices(0, 0, 4, 16, 64)):
        batch = feeds.gather(images, (indices, jnp.ones(16, bool)), None)
        pixels = batch.input.astype(jnp.float32).at[0].multiply(np.inf if number == 1 else 1)
        after, counted = single(states[-1], dataclasses.replace(batch, input=pixels))
        states.append(after)
        sums.append(counted)
    return states, sums


learned = lambda s: (s.params, s.batch_stats, s.opt_state)


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_a_step_that_is_not_finite_can_be_skipped_and_is_counted():
    states, sums = poisoned(skip=True)
    assert [int(s.step) for s in states] == [0, 1, 2, 3, 4]
    assert [int(s.skipped) for s in states] == [0, 0, 1, 1, 1]
    assert [equal(learned(a), learned(b)) for a, b in zip(states, states[1:], strict=False)] == [
        *(False, True, False, False)
    ]
    found = metrics.mean({name: np.stack([s[name] for s in sums]) for name in sums[0]})
    assert (found["examples"], found["skipped"]) == (48, 1) and np.isfinite(found["loss"])


def test_a_step_that_is_not_finite_leaves_the_state_from_before_it():
    """In all steps that follow, so that it can be looked at."""
    states, sums = poisoned(skip=False)
    assert [int(s.step) for s in states] == [0, 1, 1, 1, 1]
    assert [int(s.skipped) for s in states] == [0, 0, -1, -1, -1]
    assert not equal(learned(states[0]), learned(states[1]))
    assert all(equal(learned(states[1]), learned(s)) for s in states[2:])
    assert not np.isfinite(sums[1]["loss"])
    assert [float(s["skipped"]) for s in sums] == [0, 1, 1, 1]


class Spoils(nn.Module):
    """Logits and a loss that are finite, with one thing that is not."""

    what: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x.reshape(len(x), -1))
        seen = self.variable("batch_stats", "seen", lambda: jnp.zeros(()))
        if not self.is_initializing():
            seen.value = seen.value + (jnp.inf if self.what == "statistic" else 1.0)
        return jnp.sqrt(0 * x) if self.what == "gradient" else x


@pytest.mark.parametrize("what", ["statistic", "gradient", "nothing"])
def test_each_thing_that_is_not_finite_keeps_a_step_from_teaching(what):
    first, one = training(Spoils(what))
    batch = batch_of(range(16))
    after, sums = jax.jit(functools.partial(one, axis=None))(first, batch)
    assert np.isfinite(sums["loss"])
    assert int(after.skipped) == (0 if what == "nothing" else -1)
    assert equal(learned(first), learned(after)) == (what != "nothing")


def test_if_all_is_finite_both_learn_the_same_bits():
    first, one, _ = shared()
    images, indices = source(), chunk_indices(0, 0, 3, 16, 64)
    inputs = indices, np.ones(indices.shape, bool)
    ends = []
    for skip in (False, True):
        single = functools.partial(one, skip=skip)
        chunk = functools.partial(step.chunk, step=single, fetch=feeds.gather, axis=None)
        ends.append(jax.jit(chunk)(first, images, inputs)[0])
    assert equal(learned(ends[0]), learned(ends[1]))


def test_the_objective_is_the_summed_loss_over_the_summed_count(x64):
    """Devices that count different numbers of examples take the step of one device."""
    net, first, on_one, on_two = shared_by_two()
    # The second of two devices counts three examples.
    batch = batch_of(range(16), jnp.arange(16) < 11)
    split = jax.tree.map(lambda a: a.reshape(2, 8, *a.shape[1:]), batch)
    (alone, sums), (both, _) = on_one(first, batch), on_two(first, split)
    assert sums["examples"] == 11
    assert_trees_all_close(jax.tree.map(lambda a: a[1], both.params), alone.params)

    def mean_loss(params):
        variables = {"params": params, "batch_stats": first.batch_stats}
        logits, _ = net.apply(
            variables, prepare(None, batch, jnp.float64).input, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.target)
        return losses[:11].mean()

    by_hand = jax.tree.map(
        lambda p, g: p - 0.1 * g, first.params, jax.jit(jax.grad(mean_loss))(first.params)
    )
    assert_trees_all_close(alone.params, by_hand, rtol=1e-6)


def test_a_batch_is_a_tree():
    """Inputs and targets may have any structure; the step only hands them on."""

    class Sum(nn.Module):
        @nn.compact
        def __call__(self, x):
            return {"y": nn.Dense(1)(jnp.concatenate([x["a"], x["b"]], -1))}

    def measure(output, batch):
        losses = jnp.square(output["y"][:, 0] - batch.target["t"])
        counted = batch.mask.astype(losses.dtype)
        return {"loss": (losses * counted).sum(), "examples": counted.sum()}

    x = {"a": jnp.ones((4, 2)), "b": jnp.ones((4, 3))}
    batch = Batch(x, {"t": jnp.zeros(4)}, jnp.arange(4), jnp.ones(4, bool))
    net, optim = Sum(), optax.sgd(0.01)
    first = state.begin(0, net.init(jax.random.key(0), x), optim)
    parts = {"apply": net.apply, "measure": measure, "optimizer": optim}
    one = jax.jit(functools.partial(step.train_step, axis=None, prepare=lambda _, b: b, **parts))
    after, sums = one(first, batch)
    assert one(after, batch)[1]["loss"] < sums["loss"]


def test_gradients_of_parts_are_those_of_the_whole_batch(x64):
    """Without a batch norm; what an example draws follows its row, in whatever part it is."""
    norm, conv = (
        functools.partial(GroupNorm, groups=1),
        functools.partial(Conv, dtype=jnp.float64),
    )
    options = {"num_outputs": 4, "width": 4, "conv": conv, "norm": norm}
    options |= {"merge": Dropped(per="sample"), "per_layer": {"survival": (0.5, 0.5)}}
    net = resnet((2,), block="basic", skip="A", **options)
    first, one = training(net, jnp.float64)
    first = jax.tree.map(lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a, first)
    batch = feeds.gather(source(128), (jnp.arange(128), jnp.arange(128) < 120), None)
    run = lambda parts: jax.jit(functools.partial(one, axis=None, parts=parts))(first, batch)
    (whole, sums), (of_parts, same) = run(1), run(4)
    assert_trees_all_close(of_parts.params, whole.params, rtol=1e-12, atol=1e-14)
    assert sums["examples"] == same["examples"] == 120
    assert_trees_all_close(same, sums, rtol=1e-12)


def test_running_statistics_follow_part_after_part():
    first, one, _ = shared()
    batch = batch_of(range(32))
    after, _ = jax.jit(functools.partial(one, axis=None, parts=2))(first, batch)
    apply = jax.jit(functools.partial(network().apply, mutable=["batch_stats"]))
    stats = first.batch_stats
    for rows in (slice(0, 16), slice(16, 32)):
        images = prepare(None, batch).input[rows]
        stats = apply({"params": first.params, "batch_stats": stats}, images)[1]["batch_stats"]
    assert_trees_all_close(after.batch_stats, stats, rtol=1e-5, atol=1e-6)


def test_moving_averages_follow_parameters_and_statistics_and_are_what_is_evaluated():
    first, one, _ = shared()
    current = state.begin(0, state.variables(first), optax.sgd(0.1, 0.9), ema=True)
    averages = current.ema
    assert_trees_all_close(current.ema["params"], current.params)
    single = jax.jit(functools.partial(one, axis=None, ema_decay=0.9))
    batch = batch_of(range(16))
    for _ in range(3):
        current, _ = single(current, batch)
        now = {"params": current.params, "batch_stats": current.batch_stats}
        averages = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, averages, now)
    assert_trees_all_close(current.ema, averages, rtol=1e-5, atol=1e-7)
    assert state.variables(current) == current.ema
    nan = lambda key, batch: batch.replace(input=prepare(key, batch).input * jnp.nan)
    kept, _ = jax.jit(functools.partial(one, axis=None, ema_decay=0.9, prepare=nan))(current, batch)
    assert_trees_all_close(kept.ema, current.ema)

"""What must not depend on the number of devices, and what travels between them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chex import assert_trees_all_close
from jax.sharding import PartitionSpec
from ml_collections import FrozenConfigDict

from benchmarks import collectives
from resnet_jax import families, train, trained
from resnet_jax.data import sources, stream
from resnet_jax.models.batch_norm import BatchNorm
from resnet_jax.run import records
from resnet_jax.tasks import TASKS
from resnet_jax.tasks.classification import measure
from resnet_jax.tasks.image_data import ImageStream
from resnet_jax.tasks.task import Arrays, Dataset, Generated
from resnet_jax.training import feeds, shard, state
from resnet_jax.training import step as steps
from resnet_jax.training.optimizer import optimizer
from tests import recipes

ROWS = PartitionSpec(shard.DATA)
BATCH = 16


def recipe(dtype="float32", group=0, argument="depth=6", **changes):
    values = {
        "model__stages": (1, 1),
        "optimizer__learning_rate": 0.05,
        "model__width": 4,
        "batch_size": BATCH,
        "steps": 8,
        "chunk_steps": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
        "schedule__boundaries": (6,),
        "data__pad": 1,
        "dtype": dtype,
        "norm__group_size": group,
    }
    return recipes.recipe("digits", argument, **(values | changes))


def trainer(config, mesh, seeds=(0,), spread=shard.spread, streamed=False):
    """(state, feed, chunk of training steps on this mesh)."""
    split = sources.load("digits", "").train
    if streamed:
        images = ImageStream(split, (8, 8, 1))
        feed = feeds.streamed(mesh, images, seeds, config.batch_size, 0, 50)
    else:
        feed = feeds.resident(mesh, Arrays(split.images, split.labels), seeds, config.batch_size)
    fetch = feeds.take_streamed if streamed else feeds.gather
    create, chunk = programs(FrozenConfigDict(config), mesh, spread, fetch)
    start = np.array(seeds if len(seeds) > 1 else seeds[0], np.uint32)
    return create(shard.place(mesh, shard.EACH, start)), feed, chunk


@functools.cache
def programs(config, mesh, spread, fetch):
    """(create a state from seeds, chunk of training steps); tests share what is compiled."""
    axis, optim = shard.axis(mesh), optimizer(config)
    net = families.build(config, axis)
    make = lambda seed: state.create(seed, net, tuple(config.data.shape), optim)
    step = functools.partial(
        steps.train_step,
        apply=net.apply,
        prepare=lambda key, batch: batch.replace(input=batch.input.astype(config.dtype) / 255),
        measure=measure,
        optimizer=optim,
    )
    chunk = functools.partial(steps.chunk, step=step, fetch=fetch, axis=axis)
    specs = (shard.EACH, shard.WHOLE, shard.EACH_ROWS)
    create = jax.jit(shard.spread(make, mesh, (shard.EACH,)))
    return create, jax.jit(spread(chunk, mesh, specs, (shard.EACH, shard.EACH)))


def trained_for(n, config, mesh, **options):
    first, feed, chunk = trainer(config, mesh, **options)
    with feed:
        last, sums = chunk(first, feed.source, feed.draw(0, n))
    return jax.device_get((last.params, last.batch_stats, last.opt_state, sums))


@pytest.mark.parametrize("group", [1, 2, 4, 8, 16, 0])
def test_a_norm_of_one_group_size_is_one_function_on_any_devices(x64, mesh, group):
    """Values, running statistics and gradients, within devices and across them."""
    x = 2 + jax.random.normal(jax.random.key(0), (BATCH, 3, 3, 5))
    g = jax.random.normal(jax.random.key(1), x.shape)
    alone = BatchNorm(relu=True, group_size=group)
    variables = alone.init(jax.random.key(0), x)
    params = jax.tree.map(lambda a: a + 0.3, variables["params"])

    def both(norm, axis, params, x, g):
        def objective(params, x):
            given = {**variables, "params": params}
            y, changed = norm.apply(given, x, mutable=["batch_stats"])
            return (y * g).sum(), (y, changed)

        (dparams, dx), (y, changed) = jax.grad(objective, (0, 1), has_aux=True)(params, x)
        if axis:
            dparams = jax.lax.psum(dparams, axis)
            changed = jax.lax.pmean(changed, axis)
        return (y, dx), (dparams, changed)

    axis = shard.axis(mesh)
    norm = BatchNorm(relu=True, group_size=group, axis=axis)
    shared = shard.spread(
        functools.partial(both, norm, axis),
        mesh,
        (shard.WHOLE, ROWS, ROWS),
        (ROWS, shard.WHOLE),
    )
    expected = jax.jit(functools.partial(both, alone, None))(params, x, g)
    found = jax.device_get(jax.jit(shared)(params, x, g))
    assert_trees_all_close(found, jax.device_get(expected), atol=1e-12)


def test_fifty_steps_in_float64_are_one_devices_on_any_devices(x64):
    """In groups of 4, which lie within each of two devices and span two of eight."""
    config = recipe("float64", group=4)
    alone = trained_for(50, config, shard.mesh(devices=1))
    assert alone[-1]["loss"][-5:].mean() < 0.9 * alone[-1]["loss"][:5].mean()
    for devices in (2, 8):
        found = trained_for(50, config, shard.mesh(devices=devices))
        assert_trees_all_close(found, alone, atol=1e-10)


def test_pmap_around_the_same_step_trains_the_same_network(x64):
    config, mesh = recipe("float64", group=4), shard.mesh()
    found = trained_for(50, config, mesh, spread=shard.spread_by_pmap)
    assert_trees_all_close(found, trained_for(50, config, mesh), atol=1e-12)
    with pytest.raises(ValueError, match="parallel=pmap runs one replica"):
        shard.spread_by_pmap(lambda a: a, shard.mesh(2), (shard.EACH,))


def test_a_first_step_in_float32_agrees_to_rounding(mesh):
    """One step from momentum zero: its trace is the gradient, with the decay."""
    config = recipe()
    alone, found = (trained_for(1, config, m) for m in (shard.mesh(devices=1), mesh))
    np.testing.assert_allclose(found[-1]["loss"], alone[-1]["loss"], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(found[2]), jax.tree.leaves(alone[2]), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * max(np.abs(theirs).max(), 1e-3)


def test_each_of_eight_replicas_is_the_run_of_its_seed_bit_for_bit():
    config, seeds = recipe(), tuple(range(3, 11))
    together = trained_for(20, config, shard.mesh(8), seeds=seeds)
    for replica, seed in enumerate(seeds):
        alone = trained_for(20, config, shard.mesh(devices=1), seeds=(seed,))
        own = jax.tree.map(lambda a, r=replica: a[r], together)
        assert jax.tree.all(jax.tree.map(np.array_equal, own, alone))


def test_bodies_are_skipped_on_all_devices_together_and_each_replica_skips_its_own(x64):
    """The norms' groups span devices, so that a body that is skipped skips messages."""
    changes = {"model__stages": (3,), "model__survival": 0.3}
    config = recipe("float64", 8, "depth=8,merge=stochastic_depth", **changes)
    alone = [trained_for(6, config, shard.mesh(devices=1), seeds=(seed,)) for seed in (3, 4)]
    together = trained_for(6, config, shard.mesh(2), seeds=(3, 4))
    for replica in range(2):
        own = jax.tree.map(lambda a, r=replica: a[r], together)
        assert_trees_all_close(own, alone[replica], atol=1e-10)


@pytest.mark.parametrize("replicas", [1, 8])
def test_a_step_is_one_message_and_replicas_exchange_none(replicas):
    first, feed, chunk = trainer(recipe(group=2), shard.mesh(replicas), tuple(range(replicas)))
    text = chunk.lower(first, feed.source, feed.draw(0, 3)).compile().as_text()
    found = collectives.messages(text)
    if replicas == 8:
        assert not found
        return
    assert list(found) == ["all-reduce"] and found["all-reduce"][0] == 3  # one a step
    each = sum(a.size // replicas for a in jax.tree.leaves((first.params, first.batch_stats)))
    assert found["all-reduce"][1] == pytest.approx(3 * 4 * each, rel=0.05)


def test_streamed_batches_are_the_resident_ones_of_every_replica():
    options = {"config": recipe(), "mesh": shard.mesh(4), "seeds": tuple(range(4))}
    streamed = trained_for(6, **options, streamed=True)
    assert jax.tree.all(jax.tree.map(np.array_equal, streamed, trained_for(6, **options)))


def test_generated_examples_are_the_same_on_any_devices(mesh):
    config = recipes.recipe("reconstruction", "depth=4", batch_size=BATCH)
    dataset = TASKS[config.task].build(config)

    def batch(mesh):
        with feeds.feed(mesh, dataset, "train", config) as feed:
            axis = shard.axis(mesh)
            fetch = lambda source, place, mask: feed.fetch(source, (place[0], mask[0]), axis).input
            specs = (feed.spec, shard.EACH_ROWS, shard.EACH_ROWS)
            return jax.jit(shard.spread(fetch, mesh, specs, ROWS))(feed.source, *feed.draw(3, 1))

    assert isinstance(dataset, Dataset) and isinstance(dataset.train, Generated)
    np.testing.assert_array_equal(batch(mesh), batch(shard.mesh(devices=1)))


def test_rows_that_one_process_owns_are_those_of_its_devices():
    rows = shard.own_rows(shard.mesh(2), shard.EACH_ROWS, BATCH)
    assert {r: list(own) for r, own in rows.items()} == {0: list(range(16)), 1: list(range(16))}
    parts = {r: (np.arange(2 * BATCH * 3).reshape(2, BATCH, 3) + 1000 * r,) for r in rows}
    (placed,) = shard.place_rows(shard.mesh(2), shard.EACH_ROWS, rows, parts, BATCH)
    assert placed.shape == (2, 2, BATCH, 3)
    np.testing.assert_array_equal(placed, np.stack([parts[0][0], parts[1][0]]))
    assert placed.addressable_shards[0].data.shape == (1, 2, 4, 3)


def test_an_example_knows_its_row_of_the_whole_batch_on_any_device(mesh):
    index = np.arange(BATCH, dtype=np.int32)[::-1].copy()
    split = np.zeros((BATCH, 1, 1, 1), np.uint8), index
    here = lambda source, i, m: feeds.gather(source, (i, m), shard.axis(mesh))
    batch = shard.spread(here, mesh, (shard.WHOLE, ROWS, ROWS), ROWS)(split, index, index >= 0)
    np.testing.assert_array_equal(batch.row, np.arange(BATCH))
    np.testing.assert_array_equal(batch.target, np.arange(BATCH))


def test_what_does_not_go_on_these_devices_is_refused():
    with pytest.raises(ValueError, match="replicas=3 do not share 8 devices .*: 2"):
        shard.mesh(3)
    for changes, message in (
        ({"batch_size": 30}, "batch_size=30 is not divisible by the 8 devices .* 24 and 32"),
        ({"batch_size": 4}, "batch_size=4 is not divisible .* nearest 8"),
        ({"batch_size": 48, "norm.group_size": 16}, "group_size=16 neither .* 6 examples .* 12"),
        ({"batch_size": 24, "accumulate": 2}, "accumulate=2 does not divide the 3 examples of"),
        ({"batch_size": 24, "data.mixup": 0.2}, "parts of 3 examples, which must be a multiple"),
    ):
        config = recipes.changed(recipe(), changes)
        with pytest.raises(ValueError, match=message):
            shard.check(config, shard.mesh())


def test_a_run_of_replicas_records_each_seed_and_each_can_be_opened(tmp_path):
    config = recipe(replicas=2, seed=5, norm__precise=2, norm__group_size=-1)
    prepared = train.prepare(config, tmp_path)
    assert prepared is not None
    assert prepared.config.norm.group_size == 4
    train.train(prepared)
    assert train.prepare(config, tmp_path) is None
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["norm"]["group_size"] == 4
    lines = records.read(tmp_path / "metrics.jsonl")
    assert {(r["step"], r["split"], r["seed"]) for r in lines} >= {(8, "test", 5), (8, "test", 6)}
    assert len(lines) == 2 * (4 + 2)
    five, six = (trained.load(tmp_path, replica=r).state.params for r in (0, 1))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, five, six))
    with pytest.raises(ValueError, match="replica 2 is not one of the 2"):
        trained.load(tmp_path, replica=2)


def test_precise_statistics_are_those_of_the_batches_on_any_devices(x64, mesh):
    """Of one norm: the moments of all examples together, whatever the groups in training."""
    config = recipe("float64", group=0, norm__momentum=0.0)
    axis = shard.axis(mesh)
    net = families.build(config, axis)
    images = jnp.asarray(sources.load("digits", "").train.images[:48].reshape(3, 16, 8, 8, 1))
    make = lambda: state.create(0, net, (8, 8, 1), optimizer(config))
    first = shard.place(mesh, shard.EACH, jax.jit(make)().replace(key=np.zeros(())))
    first = first.replace(key=jax.random.key(0))
    batches = (images, jnp.zeros((3, 16), jnp.int32), jnp.ones((3, 16), bool))
    one = functools.partial(
        steps.precise,
        apply=net.apply,
        prepare=lambda key, batch: batch.replace(input=batch.input.astype(jnp.float64) / 255),
        fetch=feeds.take_streamed,
        axis=axis,
    )
    whole = shard.spread(one, mesh, (shard.WHOLE, shard.WHOLE, shard.ROWS), shard.WHOLE)
    found = jax.jit(whole)(first, None, batches)
    # The stem's convolution sees the images themselves, so that its moments are known.
    kernel = first.params["stem"]["conv"]["kernel"]
    y = jax.lax.conv_general_dilated(
        images.reshape(48, 8, 8, 1).astype(jnp.float64) / 255,
        kernel,
        (1, 1),
        ((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    stats = found.batch_stats["stem"]["norm"]
    assert_trees_all_close(stats["mean"], y.mean((0, 1, 2)), atol=1e-12)
    assert_trees_all_close(stats["var"], y.var((0, 1, 2)), atol=1e-12)


def test_stream_needs_no_more_threads_than_it_ends():
    split = sources.load("digits", "").train
    with stream.train_batches(split, 0, 0, 4, 16, np.arange(8), (8, 8, 1)) as batches:
        assert next(batches)[0].shape == (8, 8, 8, 1)

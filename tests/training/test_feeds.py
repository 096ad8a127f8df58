"""Feeds: how the examples of a split reach the steps, on one device."""

import jax
import numpy as np
import pytest

from resnet_jax.data import sources
from resnet_jax.tasks.image_data import ImageStream
from resnet_jax.tasks.task import Arrays, Generated
from resnet_jax.training import feeds, shard

SHAPE = (4, 4, 1)


def split(n=40):
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1) * np.ones(SHAPE, np.uint8)
    return sources.Split(images, np.arange(n, dtype=np.int32) % 3)


def both(examples, seeds=(7,), first=0):
    mesh = shard.mesh(devices=1)
    return (
        feeds.resident(mesh, Arrays(examples.images, examples.labels), seeds, 8),
        feeds.streamed(mesh, ImageStream(examples, SHAPE), seeds, 8, first, 12),
    )


def test_streamed_steps_are_the_resident_ones_drawn_in_turn_or_not():
    resident, streamed = both(split(), first=2)
    with streamed:
        for step, n in ((2, 3), (5, 1), (0, 2), (6, 6)):
            image, label, mask = map(np.asarray, streamed.draw(step, n))
            index, _ = map(np.asarray, resident.draw(step, n))
            assert image.shape == (n, 8, *SHAPE) and image.dtype == np.uint8 and mask.all()
            np.testing.assert_array_equal(image[..., 0, 0, 0], index)
            np.testing.assert_array_equal(label, index % 3)


def test_an_evaluation_has_every_example_once_in_pieces_of_one_shape():
    for feed in both(split(21)):
        with feed:
            pieces = [tuple(map(np.asarray, piece)) for piece in feed.batches()]
        for piece in pieces:
            shapes = [(a.shape, a.dtype) for a in piece]
            assert shapes == [(s.shape, s.dtype) for s in feed.piece]
        examples = np.concatenate(
            [p[0].reshape(-1, *p[0].shape[2:])[p[-1].ravel()] for p in pieces]
        )
        seen = examples if examples.ndim == 1 else examples[:, 0, 0, 0]
        np.testing.assert_array_equal(seen, np.arange(21))


def test_a_batch_that_cannot_be_read_says_so_as_a_failed_disk_does():
    class Damaged(sources.Split):
        def read(self, indices, images, fit=None):
            raise ValueError("data set 'x', split 'train', example 3: truncated")

    whole = split()
    _, streamed = both(Damaged(whole.images, whole.labels))
    with streamed, pytest.raises(OSError, match="example 3: truncated"):
        streamed.draw(0, 2)
    with streamed, pytest.raises(OSError, match="example 3: truncated"):
        next(streamed.batches())


def test_generated_examples_follow_from_seed_step_and_row_alone():
    mesh, split = (
        shard.mesh(devices=1),
        Generated(lambda key: (jax.random.normal(key, (3,)),) * 2, 20),
    )

    def drawn(seed, step, n, name="train"):
        feed = feeds.generated(mesh, split, (seed,), 8, name)
        places, masks = feed.draw(step, n)
        return [
            np.asarray(feed.fetch(feed.source, (place, mask), None).input)
            for place, mask in zip(places, masks, strict=True)
        ]

    first, second, third = drawn(0, 0, 3)
    np.testing.assert_array_equal(drawn(0, 1, 2), [second, third])
    numbers = np.concatenate([first, second, *drawn(1, 0, 1), *drawn(0, 0, 1, "test")]).ravel()
    assert len(np.unique(numbers)) == numbers.size
    feed = feeds.generated(mesh, split, (0,), 8, "test")
    ((places, mask),) = feed.batches()
    assert mask.sum() == len(split) and places.shape == (3, 8, 2)
    assert [(a.shape, a.dtype) for a in (places, mask)] == [(s.shape, s.dtype) for s in feed.piece]

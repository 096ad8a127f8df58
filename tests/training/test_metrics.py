import numpy as np

from resnet_jax.training import metrics


def test_means_of_many_batches_weigh_examples_not_batches():
    sums = {"loss": np.array([8.0, 1.0]), "error": np.array([4.0, 1.0])}
    sums |= {"examples": np.array([8.0, 2.0])}
    expected = {"loss": 0.9, "error": 0.5, "examples": 10}
    assert metrics.mean(sums) == expected
    assert metrics.means(sums, 1) == [expected]


def test_the_first_axis_of_several_replicas_is_the_replica():
    sums = {"loss": np.array([[8.0, 1.0], [3.0, 3.0]]), "examples": np.array([[8.0, 2.0]] * 2)}
    first, second = metrics.means(sums, 2)
    assert first == {"loss": 0.9, "examples": 10} and second == {"loss": 0.6, "examples": 10}


def test_without_examples_there_are_counts_and_no_means():
    sums = {"loss": np.zeros(3), "examples": np.zeros(3), "skipped": np.ones(3)}
    assert metrics.mean(sums) == {"examples": 0, "skipped": 3}

"""These tests need eight devices; tests/training/test_shard.py runs them in a process that has."""

import jax
import pytest

from resnet_jax.training import shard


@pytest.fixture(params=[1, 2, 8])
def mesh(request):
    """One replica on one, two and eight devices."""
    return shard.mesh(devices=request.param)


def pytest_collection_modifyitems():
    assert jax.device_count() == 8, "run by tests/training/test_shard.py"

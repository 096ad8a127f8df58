"""These tests need eight devices; tests/training/test_shard.py runs them in a process that has."""

import jax
import pytest

from resnet_jax.training import shard

# Many tests compile one program: on one device, of another seed.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(params=[2, 8])
def mesh(request):
    """One replica on two and on eight devices."""
    return shard.mesh(devices=request.param)

"""Strict everywhere: no silent type or rank promotion. Compiled quickly rather than to run fast."""

import os

# Tests compile far more than they compute; this takes two thirds off the suite's time.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_backend_optimization_level=0"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Float64 for this test alone."""
    with jax.enable_x64(True):
        yield

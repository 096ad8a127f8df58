import jax
import jax.numpy as jnp
import pytest

from resnet_jax.models.conv import Conv, canonical_conv, lax_conv


@pytest.mark.parametrize(
    "kernel,stride",
    [((1, 1), 1), ((1, 1), 2), ((2, 2), 1), ((2, 2), 2), ((3, 3), 1), ((3, 3), 2), ((3, 3), 3)]
    + [((3, 1), 2), ((1, 4), 1), ((5, 5), 2), ((7, 7), 2)],
)
def test_gradients_equal_those_of_lax(x64, kernel, stride):
    i, j = kernel
    paddings = (((0, 0), (0, 0)), ((i // 2, i // 2), (j // 2, j // 2)), ((1, 2), (0, 3)))

    def both(x, weight, padding):
        y, theirs = jax.vjp(lambda x, k: lax_conv(x, k, stride, padding), x, weight)
        z, ours = jax.vjp(lambda x, k: canonical_conv(x, k, stride, padding), x, weight)
        return (y, *theirs(jnp.sin(y))), (z, *ours(jnp.sin(y)))

    x = jax.random.normal(jax.random.key(0), (2, 11, 10, 3))
    weight = jax.random.normal(jax.random.key(1), (i, j, 3, 4))
    for padding in paddings:
        theirs, ours = jax.jit(both, static_argnums=2)(x, weight, padding)
        for a, b in zip(theirs, ours, strict=True):
            assert a.shape == b.shape
            assert jnp.abs(a - b).max() <= 1e-12 * (1 + jnp.abs(a).max())


@pytest.mark.parametrize("size,stride,out", [(3, 1, 9), (3, 2, 5), (7, 2, 5), (1, 2, 5), (2, 1, 9)])
def test_padding_keeps_the_size_up_to_the_stride(size, stride, out):
    conv = Conv(4, size, stride)
    x = jnp.ones((1, 9, 9, 2))
    assert conv.init_with_output(jax.random.key(0), x)[0].shape == (1, out, out, 4)


def test_initial_kernels_have_he_variance():
    kernel = Conv(64).init(jax.random.key(0), jnp.ones((1, 8, 8, 32)))["params"]["kernel"]
    assert abs(kernel.std() / (2 / (9 * 64)) ** 0.5 - 1) < 0.02
    assert (
        not Conv(64, gain=0.0)
        .init(jax.random.key(0), jnp.ones((1, 8, 8, 32)))["params"]["kernel"]
        .any()
    )

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


@pytest.mark.parametrize(
    "kernel,stride,groups",
    [
        ((1, 1), 2, 3),
        ((2, 2), 2, 2),
        ((3, 3), 1, 2),
        ((3, 3), 2, 6),
        ((4, 1), 3, 3),
        ((5, 5), 2, 2),
    ],
)
@pytest.mark.parametrize("size,uneven", [((9, 8), 1), ((3, 2), 2)])
def test_gradients_of_groups_equal_those_of_lax(x64, kernel, stride, groups, size, uneven):
    i, j = kernel
    padding = ((i // 2, i // 2 + uneven), (j // 2 + uneven, j // 2))

    def both(x, weight):
        y, theirs = jax.vjp(lambda x, k: lax_conv(x, k, stride, padding, groups), x, weight)
        z, ours = jax.vjp(lambda x, k: canonical_conv(x, k, stride, padding, groups), x, weight)
        return (y, *theirs(jnp.sin(y))), (z, *ours(jnp.sin(y)))

    x = jax.random.normal(jax.random.key(0), (3, *size, 6))
    weight = jax.random.normal(jax.random.key(1), (i, j, 6 // groups, 12))
    theirs, ours = jax.jit(both)(x, weight)
    for a, b in zip(theirs, ours, strict=True):
        assert a.shape == b.shape
        assert jnp.abs(a - b).max() <= 1e-12 * (1 + jnp.abs(a).max())


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_groups_are_convolutions_beside_each_other(groups):
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6))
    net = Conv(12, 3, 2, groups)
    variables = net.init(jax.random.key(1), x)
    kernel = variables["params"]["kernel"]
    assert kernel.shape == (3, 3, 6 // groups, 12)
    alone = [
        Conv(12 // groups, 3, 2).apply({"params": {"kernel": k}}, share)
        for k, share in zip(jnp.split(kernel, groups, -1), jnp.split(x, groups, -1), strict=True)
    ]
    assert jnp.allclose(net.apply(variables, x), jnp.concatenate(alone, -1), atol=1e-5)


@pytest.mark.parametrize(
    "groups,width,near", [(4, 12, 3), (5, 12, 6), (3, 8, 2), (8, 12, 6), (7, 7, 1)]
)
def test_groups_that_do_not_divide_the_channels_are_refused(groups, width, near):
    x = jnp.ones((1, 4, 4, 6))
    with pytest.raises(ValueError, match=f"{groups} groups do not divide .* 6 to {width}.*") as e:
        Conv(width, groups=groups).init(jax.random.key(0), x)
    assert "\n" not in str(e.value)
    assert int(str(e.value).split()[-1]) == near
    Conv(width, groups=near).init(jax.random.key(0), x)


def test_a_bias_is_added_and_starts_where_it_is_told():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    with_bias = Conv(4, bias=True, start=-2.5)
    variables = with_bias.init(jax.random.key(1), x)
    bare = Conv(4).apply({"params": {"kernel": variables["params"]["kernel"]}}, x)
    assert jnp.array_equal(variables["params"]["bias"], jnp.full(4, -2.5))
    assert jnp.allclose(with_bias.apply(variables, x), bare - 2.5, atol=1e-6)

"""Residual networks of every kind and depth in JAX: what a skip connection changes.

One equation carries every network here (He et al. 2016, arXiv:1603.05027, eq. 1-2, with the `+`
made a parameter):

    z      = before(x_l)
    x_l+1  = after(merge(skip(z), body(z), z))

Axes in shape annotations: b batch, h w space, c channels in, d channels out, l layers of a stack,
t tokens, k steps of a chunk, y classes. Errors are fractions in [0, 1] in files and percent in
tables.
"""

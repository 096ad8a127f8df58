"""Networks as values: builder functions put blocks together, and nothing is computed yet.

Flax's modules stay in this folder. Everything else sees

    init(key, x) -> variables              {'params': ..., 'batch_stats': ...}
    apply(variables, x, ...) -> output     with running statistics, or with the batch's own ones if
                                           `mutable=['batch_stats']`

A family of networks is a file that ends with FAMILY, and a line in families.py.
"""

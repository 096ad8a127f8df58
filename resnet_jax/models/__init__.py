"""Networks as values: builder functions put blocks together, and nothing is computed yet.

All modules of Flax are defined in this folder. The rest of the package uses a network by

    init(key, x) -> variables              {'params': ..., 'batch_stats': ...}
    apply(variables, x, ...) -> output     with running statistics, or with the batch's own ones if
                                           `mutable=['batch_stats']`

A family of networks is a file that ends with FAMILY, and its import and entry in families.py.
"""

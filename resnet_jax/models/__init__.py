"""Networks as values: small builder functions put blocks together, and nothing is registered.

Only this folder imports flax.linen. Everything else sees

    init(key, x) -> variables              {'params': ..., 'batch_stats': ...}
    apply(variables, x, ...) -> logits     by running statistics, or by the batch's own where
                                           `mutable=['batch_stats']`
"""

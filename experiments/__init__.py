"""One file a claim: python -m experiments.NAME trains what it needs and judges."""

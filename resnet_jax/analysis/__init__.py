"""Instruments of what depth does to signals and gradients, and the tests that judge results."""

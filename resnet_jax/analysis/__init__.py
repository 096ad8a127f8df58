"""Instruments that measure what depth and skip connections do to a signal and to its gradient."""

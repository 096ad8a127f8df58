"""What it costs: one file a benchmark, `python -m benchmarks.NAME [--json=FILE]`."""

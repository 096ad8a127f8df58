"""The directory of a training run: its files, checkpoints, records, lock and signals."""

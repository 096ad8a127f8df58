"""From a data set's name to batches: sources, their order, their normalisation, augmentation."""

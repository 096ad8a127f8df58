"""Image data sets: loaders, the order of examples, batches, normalisation and augmentation."""

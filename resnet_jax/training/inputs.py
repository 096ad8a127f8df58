"""What a config's network is fed: its data set, and the normalisation of its pixels."""

from resnet_jax import config as configs
from resnet_jax.config import Config
from resnet_jax.data import normalise, sources


def dataset(config: Config) -> sources.Dataset:
    """The config's data set, in memory.

    Raises: ValueError before anything is read, for one that is not there or that the config does
        not fit; and as `sources.load` does.
    """
    info = sources.info(config.data.name, config.data.dir)
    configs.check_data(config, info.shape, info.num_classes, info.splits["train"])
    return sources.load(config.data.name, config.data.dir)


def normalisation(config: Config, dataset: sources.Dataset) -> normalise.Normalisation:
    """The normalisation that the config names, by the data set's training split."""
    data = config.data
    return normalise.statistics(
        data.normalisation, dataset.train.images, tuple(data.mean), tuple(data.std)
    )

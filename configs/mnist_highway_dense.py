"""Dense highway and plain networks of 10, 20, 50 and 100 layers on MNIST (Srivastava et al. 2015).

    python -m resnet_jax.train --config=configs/mnist_highway_dense.py:depth=50 --data_dir=DIR ...
    python -m resnet_jax.train --config=configs/mnist_highway_dense.py:depth=50,skip=none ...
    python -m experiments.search --config=configs/mnist_highway_dense.py:depth=50 --runs=40 ...

The networks have a plain layer and 9, 19, 49 or 99 layers of 50 units, or of 71 if they are plain,
which are about 5,000 parameters a layer in both. The paper's figure 1 shows, for each network, the
training loss of the best of 100 random searches (40 in arXiv:1505.00387) over the rate, the
momentum, the rate's exponential decay, the activation and the initial bias of the gates: `SEARCH`.
The values here are ours; the paper does not give the winners'.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import LogUniform, OneOf, Published, Source, Uniform

# Steps of an epoch.
EPOCH = 60_000 / 100
SOURCE = Source(
    "Srivastava et al. 2015, arXiv:1507.06228, sec. 3.1 and Fig. 1",
    {"model.family": ("highway",), "model.block": ("dense",)},
    (
        "The paper names what is searched and, but for the bias, not the ranges; those of the "
        "search below are ours.",
        "With tanh, layers start from N(0, 1/n); the paper's start is the same for both.",
        "Channels get mean 0 and variance 1; the paper does not say how pixels are scaled.",
        "Gates' kernels start from N(0, 2/n), as in the authors' convolutional code.",
    ),
    (
        Published("depth=10", "loss below 1e-4", "training split, mean loss, read off Fig. 1"),
        Published("depth=100", "loss 100 times lower", "against the plain network, Fig. 1"),
    ),
)
RECIPE = {
    "data.name": "mnist",
    "data.shape": (28, 28, 1),
    "data.normalisation": "channel",
    "data.pad": 0,
    "data.flip": False,
    "batch_size": 100,
    "steps": round(400 * EPOCH),
    "model.gate_start": "he",
    "schedule.kind": "exponential",
    "schedule.factor": 0.98,
    "schedule.every": round(EPOCH),
    "optimizer.learning_rate": 0.01,
    "optimizer.weight_decay": 0.0,
}
SEARCH = {
    "optimizer.learning_rate": LogUniform(1e-3, 0.3),
    "optimizer.momentum": Uniform(0.5, 0.98),
    "schedule.factor": Uniform(0.9, 1.0),
    "model.activation": OneOf(("relu", "tanh")),
    "model.gate_bias": Uniform(-10.0, -1.0),
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=highway,block=dense,depth=20,{argument}"), RECIPE)

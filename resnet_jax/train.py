"""Train one network.

python -m resnet_jax.train --config=configs/cifar10.py:depth=110 --workdir=DIR

On all devices that JAX sees. Many processes: the same command in each, which find each other on TPU
pods and under SLURM's srun, and elsewhere take --coordinator_address=HOST:PORT --num_processes=N
--process_id=I.
"""

from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_flags

from resnet_jax import command, distributed
from resnet_jax import config as configs
from resnet_jax.training import loop

_CONFIG: Any = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:key=value,...]")
_WORKDIR: Any = flags.DEFINE_string("workdir", None, "the run's directory; the same one resumes")
_DATA_DIR: Any = flags.DEFINE_string("data_dir", None, "tensorflow-datasets folder (data.dir)")
_JOIN = distributed.define_flags()
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    """Train."""
    config, workdir = _CONFIG.value, epath.Path(_WORKDIR.value)
    with command.refusals():
        if _DATA_DIR.value is not None:
            config.data.dir = _DATA_DIR.value
        run = loop.prepare(config, workdir)
        configs.check_given(config, command.given_keys())
    if run is None:
        loop.say(f"{workdir}: finished at step {config.steps}")
    else:
        loop.train(run)


if __name__ == "__main__":
    command.run(main, join=_JOIN)

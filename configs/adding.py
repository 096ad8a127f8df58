"""The adding problem: the sum of two marked numbers of a sequence, generated on the device.

    python -m resnet_jax.train --config=configs/adding.py --workdir=RUN
    python -m resnet_jax.train --config=configs/adding.py:family=rnn --workdir=RUN
    python -m resnet_jax.train --config=configs/adding.py:merge=add --workdir=RUN

The recipe is ours: one LSTM layer of 128 units, sequences of 100 steps, Adam with batches of 50.
merge=add is the LSTM of 1997. `--config.data.shape="(1000, 2)"` has sequences of 1000 steps.
"""

from resnet_jax.config import Config, choose, make

RECIPE = {
    "batch_size": 50,
    "steps": 3_000,
    "chunk_steps": 40,
    "eval_every": 200,
    "checkpoint_every": 1_000,
    "optimizer.learning_rate": 0.003,
    "optimizer.weight_decay": 0.0,
    "optimizer.clip_norm": 1.0,
}


def get_config(argument: str = "") -> Config:
    recurrent = "" if "family=" in argument else "family=lstm,"
    chosen = f"task=adding,optimizer=adamw,schedule=constant,{recurrent}{argument}"
    return make(choose(chosen), RECIPE)

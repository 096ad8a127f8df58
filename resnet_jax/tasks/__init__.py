"""Tasks: what a network is trained to do. `TASKS` is their table; a task is a file and a line."""

from resnet_jax.tasks import adding, classification, reconstruction
from resnet_jax.tasks.task import Task

TASKS: dict[str, Task] = {
    "classification": classification.TASK,
    "reconstruction": reconstruction.TASK,
    "adding": adding.TASK,
}

"""Vision Transformers on ImageNet from scratch, by Dosovitskiy et al. 2021 (arXiv:2010.11929).

    python -m resnet_jax.train --config=configs/imagenet_vit.py:depth=12 --data_dir=DIR ...

A run takes 300 epochs of 4,096 images by Adam at rate 3e-3, after 10,000 steps of linear warm-up
along a cosine to 0, with decoupled decay 0.3, dropout 0.1 and gradients clipped to norm 1 (app.
B.1 and Table 3, "ImageNet"). `--config.accumulate=8` computes a batch in eight parts, for memory.
"""

from resnet_jax.config import Config, choose, make
from resnet_jax.recipe import Published, Source

from . import imagenet

# Steps of an epoch.
EPOCH = 1_281_167 / 4096
SOURCE = Source(
    "Dosovitskiy et al. 2021, arXiv:2010.11929, app. B.1 and Table 3",
    {"model.family": ("vit",)},
    (
        "The head has no hidden layer; in the paper's pre-training it has one, with tanh.",
        "The parameters are initialised as in torchvision.",
        "Pixels are normalised by ImageNet's constants, and crops cover 8 % to 100 %; the authors' "
        "code scales pixels to -1..1, and its crops cover 5 % to 100 %.",
        "The paper's error is after fine-tuning on images of 384 pixels.",
        "The decay is on kernels; positions, class token, norms and biases do not decay.",
    ),
    (Published("depth=12", "22.1", "validation split, one crop of 384, fine-tuned"),),
)
RECIPE = imagenet.RECIPE | {
    "batch_size": 4096,
    # A chunk is sent to the device in one piece.
    "chunk_steps": 1,
    "eval_every": 1_000,
    "steps": round(300 * EPOCH),
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 3e-3,
    "optimizer.weight_decay": 0.3,
    "optimizer.clip_norm": 1.0,
    "schedule.kind": "cosine",
    "schedule.warmup": "linear",
    "schedule.warmup_factor": 0.0,
    "schedule.warmup_steps": 10_000,
    "model.dropout": 0.1,
}


def get_config(argument: str = "") -> Config:
    return make(choose(f"family=vit,{argument}"), RECIPE)

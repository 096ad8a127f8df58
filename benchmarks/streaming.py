"""Streamed batches against bare decoding of the same images, and how soon a far step is reached.

    python -m benchmarks.streaming [--data_dir=DIR --name=cifar10_jpeg] [--threads=0] [--json=FILE]

Without --data_dir the images are made up: 8,192 of 32x32, JPEG. `decode` is simplejpeg.decode_jpeg
of image files that are in memory, in the same order, by the same threads in the same blocks, handed
over as it returns them. `stream` is the whole pipeline, read, parse, decode and batch, from the
second epoch on; `stream_first` in the first one, in which a small split is not in memory yet, as a
large one never is. Every round measures each in turn; ratios are of images a second, medians over
the rounds, and once more of the processor's time, which counts what threads do and not how long
they wait for a core. The far step is reached anew in every round: the record files are opened, the
epoch is shuffled and the first batch is made; `cold` is the first time, which imports grain too.
"""

import functools
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from absl import flags

from benchmarks import common
from resnet_jax import command
from resnet_jax.data import order, sources, stream
from resnet_jax.data.images import SPACES
from resnet_jax.data.records import Records

BATCH, SEED, FAR = 128, 0, 10_000_000
MADE = 8192  # images


def measure(
    name: str, data_dir: str, rounds: int, steps: int, threads: int
) -> tuple[list[common.Row], common.Ratios]:
    """Images a second of each program, and seconds to the first batch of a far step."""
    with command.refusals():
        about = sources.info(name, data_dir)
        high, wide, channels = about.shape
        if high is None or wide is None:
            raise ValueError(f"the images of {name} differ in size: to crop them is not decoding")
    fresh = functools.partial(sources.records, about, data_dir, "train")
    shape = (high, wide, channels)
    steps = max(1, min(steps, about.splits["train"] // BATCH))  # within an epoch

    def batches(records: Records, first: int, last: int) -> stream.Batches:
        rows = np.arange(BATCH)
        return stream.train_batches(records, SEED, first, last, BATCH, rows, shape, threads)

    def reach() -> None:
        order._permutation.cache_clear()
        with batches(fresh(), FAR, FAR + 100) as found:
            next(found)

    far = [_seconds(reach) for _ in range(rounds)]
    kept = fresh()
    indices = order.chunk_indices(SEED, 0, steps, BATCH, len(kept))
    files = [list(kept.files(batch).files) for batch in indices]
    decode = lambda file: simplejpeg.decode_jpeg(file, SPACES[channels])
    bare: Any = lambda block, part: [([decode(file) for file in files[i][part]],) for i in block]
    programs: dict[str, Callable[[], None]] = {
        "decode": lambda: _drain(stream.Batches(bare, steps, BATCH, shape, threads)),
        "stream": lambda: _drain(batches(kept, 0, steps)),
        "stream_first": lambda: _drain(batches(fresh(), 0, steps)),
    }
    wall: dict[str, list[float]] = {program: [] for program in programs}
    processor: dict[str, list[float]] = {program: [] for program in programs}
    for _ in range(rounds):
        for program, run in programs.items():
            began = time.process_time()
            wall[program].append(_seconds(run))
            processor[program].append(time.process_time() - began)
    images = steps * BATCH
    rows: list[common.Row] = [
        {
            "program": program,
            "data": name,
            "images": images,
            "images_per_second": images / statistics.median(wall[program]),
            "processor_us": 1e6 * statistics.median(processor[program]) / images,
            "samples": rounds,
        }
        for program in programs
    ]
    ratios: common.Ratios = {}
    for program in ("stream", "stream_first"):
        ratios[f"{program}_over_decode"] = common.ratio(wall["decode"], wall[program])
        ratios[f"{program}_over_decode_processor"] = common.ratio(
            processor["decode"], processor[program]
        )
    seconds = f"seconds_to_step_{FAR}"
    return rows, ratios | {seconds: statistics.median(far), f"{seconds}_cold": far[0]}


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _drain(batches: stream.Batches) -> None:
    with batches:
        for _ in batches:
            pass


def make(folder: str) -> str:
    """Write a data set of made-up images as tfds does, and return its name."""
    import tensorflow_datasets as tfds

    draw = np.random.default_rng(0)

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = "made"

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {s: self._generate_examples(n) for s, n in (("train", MADE), ("test", BATCH))}

        def _generate_examples(self, count):
            for i in range(count):
                # Patches of 4x4 and a little noise: about as many bytes as a photograph's.
                image = draw.integers(0, 240, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
                image = (image + draw.integers(0, 16, image.shape)).astype(np.uint8)
                file = simplejpeg.encode_jpeg(image, quality=75, colorsubsampling="420")
                yield i, {"image": io.BytesIO(file), "label": i % 10}

    tfds.disable_progress_bar()
    Made(data_dir=folder, file_format="array_record").download_and_prepare()
    return "made"


def main(name: str, data_dir: str, *arguments: int) -> tuple[list[common.Row], common.Ratios]:
    """Measure on the data set in `data_dir`, or on made-up images where there is none."""
    if data_dir:
        return measure(name, data_dir, *arguments)
    with tempfile.TemporaryDirectory() as folder:
        return measure(make(folder), folder, *arguments)


if __name__ == "__main__":
    _DATA_DIR = flags.DEFINE_string("data_dir", "", "tfds folder; none: made-up images")
    _NAME = flags.DEFINE_string("name", "cifar10_jpeg", "data set in --data_dir, of JPEGs")
    _ROUNDS = flags.DEFINE_integer("rounds", 45, "times that each is measured", lower_bound=1)
    _STEPS = flags.DEFINE_integer("steps", 192, "batches a measurement", lower_bound=1)
    _THREADS = flags.DEFINE_integer("threads", 0, "0: one a core", lower_bound=0)
    common.run(
        "streaming",
        lambda: main(_NAME.value, _DATA_DIR.value, _ROUNDS.value, _STEPS.value, _THREADS.value),
    )

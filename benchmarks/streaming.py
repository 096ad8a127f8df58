"""Streamed batches against bare decoding of the same images, and the time to reach a far step.

    python -m benchmarks.streaming [--data_dir=DIR --name=cifar10_jpeg] [--threads=0] [--json=FILE]

Without --data_dir the images are made up: 8,192 JPEG images of 32x32. The programs:

    decode         simplejpeg.decode_jpeg of image files in memory, in the same order, by the same
                   threads in the same blocks, handed over as it returns them
    stream         the whole pipeline, which reads, parses, decodes and batches, from the second
                   epoch on
    stream_first   the same in the first epoch, in which a small split is not in memory yet; a large
                   split never is

Every round measures each program in turn. The ratios are of images a second, medians over the
rounds, and again of the processor's time, which is the time that threads work and not the time that
they wait for a core. The far step is reached anew in every round: the record files are opened, the
epoch is shuffled and the first batch is made. `cold` is the first time, with the import of grain.
"""

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg

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
    """Measure images a second of each program, and seconds to the first batch of a far step."""
    with command.refusals():
        about = sources.info(name, data_dir)
        high, wide, channels = about.shape
        if high is None or wide is None:
            raise ValueError(
                f"the images of {name} differ in size and would have to be cropped; choose a data "
                "set whose images have one size"
            )

    def fresh() -> Records:
        records = sources.records(about, data_dir, "train")
        if not isinstance(records, Records):
            command.fail(f"{name} has no image files; choose a data set of JPEG images")
        return records

    shape = (high, wide, channels)
    steps = max(1, min(steps, about.splits["train"] // BATCH))  # within an epoch

    def batches(records: Records, first: int, last: int) -> stream.Batches:
        rows = np.arange(BATCH)
        return stream.train_batches(records, SEED, first, last, BATCH, rows, shape, threads)

    def reach() -> None:
        order._permutation.cache_clear()
        with batches(fresh(), FAR, FAR + 100) as stream_of_batches:
            next(stream_of_batches)

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
    """Write a data set of made-up images in the form of tfds, and return its name."""
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
                # Patches of 4x4 with a little noise have about as many bytes as a photograph.
                image = draw.integers(0, 240, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
                image = (image + draw.integers(0, 16, image.shape)).astype(np.uint8)
                file = simplejpeg.encode_jpeg(image, quality=75, colorsubsampling="420")
                yield i, {"image": io.BytesIO(file), "label": i % 10}

    tfds.disable_progress_bar()
    Made(data_dir=folder, file_format="array_record").download_and_prepare()
    return "made"


def measure_in(data_dir: str, name: str, *arguments: int) -> tuple[list[common.Row], common.Ratios]:
    """Measure on the data set `name` in `data_dir`, or on made-up images if `data_dir` is ""."""
    if data_dir:
        return measure(name, data_dir, *arguments)
    with tempfile.TemporaryDirectory() as folder:
        return measure(make(folder), folder, *arguments)


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure and report."""
    parser = common.parser("streaming", __doc__, "--data_dir=DIR --name=cifar10_jpeg")
    flag = parser.add_argument
    whole = command.whole
    flag("--data_dir", default="", help="tensorflow-datasets folder (default: made-up images)")
    flag("--name", default="cifar10_jpeg", help="JPEG data set in it (default: %(default)s)")
    flag("--rounds", type=whole(1), default=45, help="measurements of each (default: %(default)s)")
    flag("--steps", type=whole(1), default=192, help="batches in each (default: %(default)s)")
    flag("--threads", type=whole(0), default=0, help="0: as many as there are cores")
    arguments = parser.read(words)
    common.run(
        "streaming",
        arguments,
        lambda: measure_in(
            arguments.data_dir,
            arguments.name,
            arguments.rounds,
            arguments.steps,
            arguments.threads,
        ),
    )


if __name__ == "__main__":
    common.start(main)

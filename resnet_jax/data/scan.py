"""A check of a whole split: every example is read and decoded as in training, and errors listed."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resnet_jax.data import stream
from resnet_jax.data.dataset import Examples
from resnet_jax.data.records import Records

BLOCK = 64  # examples


@dataclasses.dataclass(frozen=True)
class Scan:
    """Counts of the sound examples by label and by shape, and a line for each problem."""

    labels: Counter[int] = dataclasses.field(default_factory=Counter)
    shapes: Counter[tuple[int, int, int]] = dataclasses.field(default_factory=Counter)
    problems: tuple[str, ...] = ()

    def __add__(self, other: "Scan") -> "Scan":
        """The scan of both parts."""
        return Scan(
            self.labels + other.labels,
            self.shapes + other.shapes,
            self.problems + other.problems,
        )


def scan(examples: Examples, done: Callable[[int], object] = lambda count: None) -> Scan:
    """The scan of a whole split.

    `done` is called with the number of examples of each block, whether they are sound or not. A
    record file that cannot be opened is a single problem, and none of its examples is read.
    """
    blocks, problems = [], []
    for part, problem in _parts(examples):
        if problem:
            problems.append(problem)
            done(len(part))
        else:
            blocks += [part[start : start + BLOCK] for start in range(0, len(part), BLOCK)]
    labels, shapes = Counter(), Counter()
    with ThreadPoolExecutor(stream.cores()) as pool:  # the codecs release the GIL
        scans = pool.map(lambda block: _scan(examples, block), blocks)
        for block, block_scan in zip(blocks, scans, strict=True):
            labels.update(block_scan.labels)
            shapes.update(block_scan.shapes)
            problems.extend(block_scan.problems)
            done(len(block))
    return Scan(labels, shapes, tuple(problems))


def _parts(examples: Examples) -> Iterator[tuple[range, str]]:
    """(indices, problem) of each record file; '' if the file as a whole is sound."""
    if not isinstance(examples, Records):
        yield range(len(examples)), ""
        return
    for part, problem in examples.store.parts():
        which = f"examples {part.start} to {part.stop - 1}" if part else "no example"
        yield part, problem and f"{examples.name}, {which}: {problem}"


def _scan(examples: Examples, block: range) -> Scan:
    """The scan of a block; if it has a problem, each of its examples is scanned alone."""
    shapes, fit = [], None
    if None in examples.shape:
        # Only the shape of a photograph is needed, so that its pixels are dropped.
        fit = lambda position, image: shapes.append(image.shape) or image[:0, :0]
    try:
        ((_, labels),) = examples.read(np.arange(block.start, block.stop)[None], fit)
    except ValueError as error:
        if len(block) == 1:
            return Scan(problems=(str(error),))
        return sum((_scan(examples, block[i : i + 1]) for i in range(len(block))), Scan())
    shapes = shapes or [tuple(examples.shape)] * len(block)
    return Scan(Counter(labels.tolist()), Counter(shapes))

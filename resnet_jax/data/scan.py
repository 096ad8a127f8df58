"""Every example of a split read and decoded as training does it, and whatever is wrong with any."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resnet_jax.data import stream
from resnet_jax.data.records import Records, one_line

BLOCK = 64  # examples


@dataclasses.dataclass(frozen=True)
class Scan:
    """Examples that are well, by label and by shape; and a line for each that is not."""

    labels: Counter[int] = dataclasses.field(default_factory=Counter)
    shapes: Counter[tuple[int, int, int]] = dataclasses.field(default_factory=Counter)
    problems: tuple[str, ...] = ()

    def __add__(self, other: "Scan") -> "Scan":
        """Of both."""
        return Scan(
            self.labels + other.labels,
            self.shapes + other.shapes,
            self.problems + other.problems,
        )


def scan(examples: stream.Examples, done: Callable[[int], object] = lambda count: None) -> Scan:
    """A whole split; `done` is told of every block's examples, whether they are well or not.

    A record file that cannot be opened is one problem, and none of its examples is read.
    """
    blocks, problems = [], []
    for part, problem in _files(examples):
        if problem:
            problems.append(problem)
            done(len(part))
        else:
            blocks += [part[at : at + BLOCK] for at in range(0, len(part), BLOCK)]
    labels, shapes = Counter(), Counter()
    with ThreadPoolExecutor(stream.cores()) as pool:  # the codecs let go of the GIL
        for block, found in zip(
            blocks, pool.map(lambda b: _scan(examples, b), blocks), strict=True
        ):
            labels.update(found.labels)
            shapes.update(found.shapes)
            problems.extend(found.problems)
            done(len(block))
    return Scan(labels, shapes, tuple(problems))


def _files(examples: stream.Examples) -> Iterator[tuple[range, str]]:
    """The indices that each record file has, and what is wrong with it as a whole, else ''."""
    if not isinstance(examples, Records):
        yield range(len(examples)), ""
        return
    for file, (path, count) in enumerate(examples.record_files):
        first, problem = examples.first(file), ""
        try:
            examples.open(file)
        except Exception as error:  # the reader raises kinds of its own
            which = f"examples {first} to {first + count - 1}" if count else "no example"
            problem = f"{examples.name}, {which}: {one_line(error)} ({path})"
        yield range(first, first + count), problem


def _scan(examples: stream.Examples, block: range) -> Scan:
    """Of a block; one that holds what is not well is read again, an example at a time."""
    shapes, fit = [], None
    if None in examples.shape:
        # Its shape is all that is wanted of a photograph.
        fit = lambda at, image: shapes.append(image.shape) or image[:0, :0]
    try:
        ((_, labels),) = examples.read(np.arange(block.start, block.stop)[None], fit)
    except ValueError as error:
        if len(block) == 1:
            return Scan(problems=(str(error),))
        return sum((_scan(examples, block[i : i + 1]) for i in range(len(block))), Scan())
    shapes = shapes or [tuple(examples.shape)] * len(block)
    return Scan(Counter(labels.tolist()), Counter(shapes))

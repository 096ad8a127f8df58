"""The same networks in PyTorch, channels_last. Only code that needs torch imports this module."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# The (width, size, stride) of a convolution.
Layer = tuple[int, int, int]


class Block(nn.Module):
    """A block, original or pre-activation, with option A, or B if `project`; see peers.Block.

    In a pre-activation network the first block of a stage activates the input of both paths.
    """

    def __init__(
        self, channels: int, layers: Sequence[Layer], pre: bool, first: bool, project: bool
    ):
        super().__init__()
        self.stride, width = int(np.prod([s for *_, s in layers])), layers[-1][0]
        self.pre, self.first, self.new, self.layers = pre, first, width - channels, []
        self.skip_conv = self.skip_norm = None
        if project and (self.new or self.stride > 1):
            self.skip_conv = nn.Conv2d(channels, width, 1, self.stride, bias=False)
            self.skip_norm = None if pre else nn.BatchNorm2d(width)
        for i, (out, size, stride) in enumerate(layers, 1):
            norm = nn.BatchNorm2d(channels if pre else out)
            conv = nn.Conv2d(channels, out, size, stride, size // 2, bias=False)
            self.add_module(f"norm{i}", norm)
            self.add_module(f"conv{i}", conv)
            self.layers.append((norm, conv))
            channels = out

    def forward(self, x):
        """Return the block's output."""
        relu = lambda x: functional.relu(x, inplace=True)
        f = z = x
        for i, (norm, conv) in enumerate(self.layers, 1):
            if self.pre:
                f = relu(norm(f))
                z = f if i == 1 else z
                f = conv(f)
            else:
                f = norm(conv(f))
                f = f if i == len(self.layers) else relu(f)
        if self.pre:
            return self._skip(z if self.first else x) + f
        return relu(self._skip(x) + f)

    def _skip(self, x):
        if self.skip_conv is not None:
            x = self.skip_conv(x)
            return x if self.skip_norm is None else self.skip_norm(x)
        if not self.new:
            return x
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))


class Plain(nn.Module):
    """The network, of basic blocks or bottlenecks, with a 3x3 or 7x7 stem; see peers.Plain."""

    def __init__(
        self,
        stages: Sequence[int],
        pre: bool,
        width: int = 16,
        num_classes: int = 10,
        bottleneck: bool = False,
        project: bool = False,
        stem: str = "3x3",
        stride_at: str = "1x1",
    ):
        super().__init__()
        size, stride = (3, 1) if stem == "3x3" else (7, 2)
        self.stem_conv = nn.Conv2d(3, width, size, stride, size // 2, bias=False)
        self.stem_norm = None if pre else nn.BatchNorm2d(width)
        self.pool = None if stem == "3x3" else nn.MaxPool2d(3, 2, 1)
        self.blocks, channels = nn.ModuleDict(), width
        for i, count in enumerate(stages):
            for j in range(count):
                stride = 2 if i and not j else 1
                layers = _layers(width * 2**i, stride, bottleneck, stride_at)
                block = Block(channels, layers, pre, j == 0, project)
                self.blocks[f"stage{i}_block{j}"] = block
                channels = layers[-1][0]
        self.norm = nn.BatchNorm2d(channels) if pre else None
        self.dense = nn.Linear(channels, num_classes)

    def forward(self, x):
        """Return the logits (b, y) of images (b, c, h, w)."""
        x = self.stem_conv(x)
        if self.stem_norm is not None:
            x = functional.relu(self.stem_norm(x), inplace=True)
        if self.pool is not None:
            x = self.pool(x)
        for block in self.blocks.values():
            x = block(x)
        if self.norm is not None:
            x = functional.relu(self.norm(x), inplace=True)
        return self.dense(x.mean((2, 3)))


def _layers(width: int, stride: int, bottleneck: bool, stride_at: str) -> list[Layer]:
    if not bottleneck:
        return [(width, 3, stride), (width, 3, 1)]
    first, second = (stride, 1) if stride_at == "1x1" else (1, stride)
    return [(width, 1, first), (width, 3, second), (4 * width, 1, 1)]


def load(net: Plain, params: Mapping[str, Any]) -> None:
    """Copy the parameters of the unrolled peers.Plain into `net`.

    Raises: ValueError with the names that only one of the two networks has.
    """
    names = {
        f"blocks.{name}" if name.startswith("stage") else name: p for name, p in params.items()
    }
    flat = {}
    for name, tree in names.items():
        for inner, leaves in tree.items() if name.startswith("blocks") else [("", tree)]:
            for leaf, value in leaves.items():
                value = np.array(value)
                if leaf == "kernel":
                    value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
                path = ".".join(filter(None, (name, inner)))
                flat[f"{path}.{'bias' if leaf == 'bias' else 'weight'}"] = torch.from_numpy(
                    np.ascontiguousarray(value)
                )
    parameters = dict(net.named_parameters())
    if parameters.keys() != flat.keys():
        raise ValueError(f"only one network has {sorted(parameters.keys() ^ flat.keys())}")
    with torch.no_grad():
        for path, parameter in parameters.items():
            parameter.copy_(flat[path])


def training_step(
    net: Plain, image: np.ndarray, label: np.ndarray, rate: float, momentum: float, decay: float
) -> Callable[[], float]:
    """Return a function that takes an SGD step on this batch and returns the loss.

    PyTorch runs on two threads.
    """
    torch.set_num_threads(2)
    net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.tensor(image).permute(0, 3, 1, 2).to(memory_format=torch.channels_last)
    y = torch.tensor(label, dtype=torch.int64)
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum, weight_decay=decay)

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class Training:
    """Training on noise that is on the device: gather, normalise, augment, SGD with momentum.

    With `dtype` bfloat16 it is autocast, with float32 parameters. `mode` is

        eager                       a step as PyTorch runs it
        graph                       the eager step, captured once as a CUDA graph and replayed
        compile, reduce-overhead    modes of torch.compile, of everything but the optimizer

    The optimizer is fused in every mode.
    """

    def __init__(
        self,
        net: Plain,
        shape: tuple[int, int, int],
        batch: int,
        examples: int,
        *,
        mode: str,
        dtype: str,
        pad: int,
        flip: bool,
        rate: float,
        momentum: float,
        weight_decay: float,
    ):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self.net = net.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.narrow, self.pad, self.flip = dtype == "bfloat16", pad, flip
        rows = -(-examples // batch)
        with self.device:
            self.images = torch.randint(0, 256, (examples, *shape), dtype=torch.uint8)
            self.labels = torch.randint(0, net.dense.out_features, (examples,))
            order = torch.cat([torch.randperm(examples) for _ in range(batch)])
        self.indices = order[: rows * batch].reshape(rows, batch)
        self.optimizer = torch.optim.SGD(
            net.parameters(), rate, momentum, weight_decay=weight_decay, fused=True
        )
        self.forward, self.mark = self._loss, lambda: None
        if mode in ("compile", "reduce-overhead"):
            kind = "default" if mode == "compile" else mode
            self.forward: Callable = torch.compile(self._loss, mode=kind)
            self.mark = torch.compiler.cudagraph_mark_step_begin
        self.step = self._step if mode != "graph" else captured(self._step, self.indices[0])

    def _loss(self, index):
        x = (self.images[index].float() / 255 - 0.5) / 0.25
        x = self._augmented(x).permute(0, 3, 1, 2)  # NHWC in memory: channels_last
        # A graph must not carry the cache of cast weights from one step to the next.
        with torch.autocast(self.device.type, torch.bfloat16, self.narrow, cache_enabled=False):
            return functional.cross_entropy(self.net(x), self.labels[index])

    def _augmented(self, x):
        b, h, w, _ = x.shape
        if not self.pad and not self.flip:
            return x
        below = lambda n: torch.randint(0, n, (b, 1), device=self.device)
        rows = below(2 * self.pad + 1) + torch.arange(h, device=self.device)
        columns = torch.arange(w, device=self.device).expand(b, w)
        if self.flip:
            columns = torch.where(below(2) == 1, columns.flip(1), columns)
        columns = columns + below(2 * self.pad + 1)
        x = functional.pad(x, (0, 0, *(self.pad,) * 4))
        image = torch.arange(b, device=self.device)[:, None, None]
        return x[image, rows[:, :, None], columns[:, None, :]]

    def _step(self, index):
        self.mark()
        loss = self.forward(index)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def seconds(self, steps: int) -> tuple[float, float]:
        """Take so many steps; return the seconds until the device is done, and the last loss."""
        self.wait()
        began, loss = time.perf_counter(), torch.zeros(())
        for i in range(steps):
            loss = self.step(self.indices[i % len(self.indices)])
        self.wait()
        return time.perf_counter() - began, loss.item()

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def device_name(self) -> str:
        """Return the card's name, or "cpu"."""
        return torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu"


def captured(step: Callable, index: Any, cuda: Any = torch.cuda) -> Callable:
    """Return `step` recorded as a CUDA graph, which a single launch replays on any index.

    `cuda` is the module torch.cuda.
    """
    held = index.clone()
    side = cuda.Stream()
    side.wait_stream(cuda.current_stream())
    with cuda.stream(side):  # the first steps allocate and choose cuDNN's kernels: not recorded
        for _ in range(3):
            step(held)
    cuda.current_stream().wait_stream(side)
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        loss = step(held)

    def replay(index):
        held.copy_(index)
        graph.replay()
        return loss

    return replay

"""The same networks in PyTorch, eager, channels_last; imported only where torch is installed."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """A basic block with option A; see peers.Block."""

    def __init__(self, channels: int, width: int, stride: int, pre: bool, first: bool):
        super().__init__()
        self.stride, self.new, self.pre, self.first = stride, width - channels, pre, first
        self.norm1 = nn.BatchNorm2d(channels if pre else width)
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)

    def forward(self, x):
        """x_l -> x_l+1."""
        if self.pre:
            z = functional.relu(self.norm1(x), inplace=True)
            f = self.conv2(functional.relu(self.norm2(self.conv1(z)), inplace=True))
            return self._skip(z if self.first else x) + f
        f = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self._skip(x) + self.norm2(self.conv2(f)), inplace=True)

    def _skip(self, x):
        if not self.new:
            return x
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))


class Plain(nn.Module):
    """The whole network; see peers.Plain."""

    def __init__(self, stages: Sequence[int], pre: bool, width: int = 16, num_classes: int = 10):
        super().__init__()
        self.stem_conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.stem_norm = nn.Identity() if pre else nn.BatchNorm2d(width)
        self.pre, self.blocks, channels = pre, nn.ModuleDict(), width
        for i, count in enumerate(stages):
            wide = width * 2**i
            for j in range(count):
                stride = 2 if i and not j else 1
                self.blocks[f"stage{i}_block{j}"] = Block(channels, wide, stride, pre, j == 0)
                channels = wide
        self.norm = nn.BatchNorm2d(channels) if pre else nn.Identity()
        self.dense = nn.Linear(channels, num_classes)

    def forward(self, x):
        """(b, c, h, w) -> (b, y) logits."""
        x = self.stem_conv(x)
        x = x if self.pre else functional.relu(self.stem_norm(x), inplace=True)
        for block in self.blocks.values():
            x = block(x)
        x = functional.relu(self.norm(x), inplace=True) if self.pre else x
        return self.dense(x.mean((2, 3)))


def load(net: Plain, params: Mapping[str, Any]) -> None:
    """Copy the parameters of the unrolled peers.Plain into `net`."""
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
        raise ValueError(f"parameters differ: {sorted(parameters.keys() ^ flat.keys())}")
    with torch.no_grad():
        for path, parameter in parameters.items():
            parameter.copy_(flat[path])


def training_step(
    net: Plain, image: np.ndarray, label: np.ndarray, rate: float, momentum: float, decay: float
) -> Callable[[], float]:
    """One SGD step on this batch at every call, on two threads; returns the loss."""
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

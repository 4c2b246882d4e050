"""The PyTorch side of benchmarks.training, run by an interpreter that has torch.

Usage: training_torch.py MODEL BATCH_SIZE STEPS; answers the seconds of a step, wall clock and
processor, for each line on stdin. Both memory layouts are measured once, and the faster one is used.
"""

import sys
import time

import numpy as np
import torch
from torch import nn

CLASSES, BATCHES = 10, 4


class Lenet5(nn.Sequential):
    """LeNet-5 with ReLU and max pooling."""

    shape = (1, 32, 32)

    def __init__(self) -> None:
        pool = nn.MaxPool2d(2)
        features = [nn.Conv2d(1, 6, 5), nn.ReLU(), pool, nn.Conv2d(6, 16, 5), nn.ReLU(), pool, nn.Flatten()]
        super().__init__(
            *features, nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES)
        )


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Residual(nn.Module):
    """Add two 3x3 convolutions to a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv_norm(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *conv_norm(outputs, outputs, 3)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*conv_norm(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(self.branch(x) + self.shortcut(x))


class Resnet18(nn.Sequential):
    """ResNet-18 of width 16 with a stem for small images."""

    shape = (3, 32, 32)

    def __init__(self, width: int = 16) -> None:
        blocks, inputs = [], width
        for stage in range(4):
            for block in range(2):
                blocks.append(Residual(inputs, width * 2**stage, 2 if stage and not block else 1))
                inputs = width * 2**stage
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)]
        super().__init__(*conv_norm(3, width, 3), nn.ReLU(inplace=True), *blocks, *head)


class Inverted(nn.Module):
    """Expand, filter each channel, project."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [*conv_norm(inputs, inner, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        depthwise = [*conv_norm(inner, inner, 3, stride, inner), nn.ReLU6(inplace=True)]
        self.branch = nn.Sequential(*expand, *depthwise, *conv_norm(inner, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x) if self.adds else self.branch(x)


class MobilenetV2(nn.Sequential):
    """MobileNetV2 of width 0.35: channels rounded to multiples of 8."""

    shape = (3, 96, 96)
    groups = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 1), (6, 56, 3, 2), (6, 112, 1, 1))

    def __init__(self) -> None:
        blocks, inputs = [], 16
        for expansion, outputs, count, stride in self.groups:
            for block in range(count):
                blocks.append(Inverted(inputs, outputs, 1 if block else stride, expansion))
                inputs = outputs
        stem = [*conv_norm(3, 16, 3, 2), nn.ReLU6(inplace=True)]
        last = [*conv_norm(inputs, 1280, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*stem, *blocks, *last, nn.Dropout(0.2), nn.Linear(1280, CLASSES))


MODELS = {"lenet5": Lenet5, "resnet18": Resnet18, "mobilenet_v2": MobilenetV2}


class Training:
    """One model in one memory layout, and the batches it goes through."""

    def __init__(self, kind: type, batch_size: int, layout: torch.memory_format) -> None:
        torch.manual_seed(0)
        self.model = kind().train().to(memory_format=layout)
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.01, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (BATCHES, batch_size, *kind.shape)).astype("float32")
        self.images = [torch.from_numpy(batch).to(memory_format=layout) for batch in images]
        self.labels = list(torch.from_numpy(rng.integers(0, CLASSES, (BATCHES, batch_size))))

    def measure(self, steps: int) -> tuple[float, float]:
        """Return the seconds of a step on both clocks; loss and accuracy are read once, at the end."""
        wall, processor, right, total = time.perf_counter(), time.process_time(), torch.zeros(()), torch.zeros(())
        for step in range(steps):
            images, labels = self.images[step % BATCHES] / 127.5 - 1.0, self.labels[step % BATCHES]
            self.optimizer.zero_grad(set_to_none=True)
            logits = self.model(images)
            loss = self.criterion(logits, labels)
            loss.backward()
            self.optimizer.step()
            with torch.no_grad():
                right += (logits.argmax(1) == labels).float().mean()
                total += loss
        right.item(), total.item()
        return (time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps


def main() -> None:
    """Answer each line on stdin with the seconds of a step on stdout."""
    name, batch_size, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    candidates = [Training(MODELS[name], batch_size, each) for each in (torch.contiguous_format, torch.channels_last)]
    for candidate in candidates:
        candidate.measure(3)
    times = [min(candidate.measure(max(steps // 4, 3)) for _ in range(3)) for candidate in candidates]
    best = candidates[times.index(min(times))]
    for _ in sys.stdin:
        print(*best.measure(steps), flush=True)


if __name__ == "__main__":
    main()

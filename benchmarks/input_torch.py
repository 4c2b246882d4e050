"""The PyTorch side of benchmarks.input: a DataLoader with 2 workers, run by an interpreter that has torch.

torchvision is not needed: a worker decodes and resizes with Pillow, then moves and recolours its whole batch at once
(one affine_grid and grid_sample, one matrix product), which is faster than transforms image by image.
"""

import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

BATCH, SIZE, WARM_UP = 64, (224, 224), 2
LUMA = torch.tensor([0.299, 0.587, 0.114])


class Folder(Dataset):
    """JPEGs of two class folders, decoded and resized: uint8 (H, W, 3)."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        path = self.paths[index % len(self.paths)]
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize(SIZE, Image.BILINEAR)), int(path.parent.name[-1])


def uniform(count: int, low: float, high: float) -> torch.Tensor:
    """Draw (count,) values."""
    return low + (high - low) * torch.rand(count)


def augment(samples: list[tuple[np.ndarray, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Make an augmented batch (B, 3, H, W) in 0..255 and its labels."""
    x = torch.from_numpy(np.stack([image for image, _ in samples])).permute(0, 3, 1, 2).float()
    count = len(x)
    angle = uniform(count, -math.radians(15), math.radians(15))
    scale = 1.2 ** uniform(count, -1, 1)
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    rows = [
        torch.stack([scale * mirror * angle.cos(), -scale * angle.sin(), uniform(count, -0.2, 0.2)], dim=1),
        torch.stack([scale * mirror * angle.sin(), scale * angle.cos(), uniform(count, -0.2, 0.2)], dim=1),
    ]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, dim=1), x.shape, align_corners=False)
    x = torch.nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    brightness, contrast, saturation = (uniform(count, 0.8, 1.2)[:, None, None] for _ in range(3))
    luma = LUMA.expand(3, 3)
    matrix = (saturation * (torch.eye(3) - luma) + luma) * brightness * contrast
    level = (1 - contrast[:, 0]) * brightness[:, 0] * (x.mean((2, 3)) @ LUMA)[:, None]
    x = torch.baddbmm(level[:, :, None].expand(-1, 3, 1), matrix, x.flatten(2)).view(x.shape)
    return x.clamp_(0, 255), torch.tensor([label for _, label in samples])


def main() -> None:
    """Answer each number of batches on standard input with a rate."""
    loader = DataLoader(Folder(Path(sys.argv[1])), BATCH, shuffle=True, num_workers=2, collate_fn=augment)
    for line in sys.stdin:
        count, iterator = int(line), iter(loader)
        for _ in range(WARM_UP):
            next(iterator)
        start = time.perf_counter()
        for _ in range(count):
            next(iterator)
        print(count * BATCH / (time.perf_counter() - start), flush=True)
        del iterator


if __name__ == "__main__":
    main()

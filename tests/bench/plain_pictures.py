"""What somebody would write without gped-nas: networks for pictures in plain PyTorch.

``distill`` is the loop that the project is held against: a small network with batch norm that
learns an ensemble's soft answers at flipped pictures. ``train_ensemble`` makes the ensemble.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 128


class Normalize(nn.Module):
    """Pictures (N, C, H, W) less the mean of each channel, over its deviation."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", x.float().mean((0, 2, 3), keepdim=True))
        self.register_buffer("std", x.float().std((0, 2, 3), keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(memory_format=torch.channels_last).float()
        return (x - self.mean) / self.std


def network(x: Tensor, widths: Sequence[int], dense: int, num_classes: int, dropout: float = 0.0):
    """Convolution, batch norm, ReLU and pooling for each width, then two dense layers."""
    layers: list[nn.Module] = [Normalize(x)]
    channels, side = x.shape[1], x.shape[2]
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = width, side // 2

    layers += [nn.Flatten(), nn.Linear(channels * side * side, dense), nn.ReLU()]
    layers += [nn.Dropout(dropout), nn.Linear(dense, num_classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def distill(
    student: nn.Module, x: Tensor, soft: Tensor, *, steps: int, lr: float, seed: int
) -> nn.Module:
    """The loop: soft labels (N, C) of the pictures as they are, at pictures that are flipped."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)

    order = torch.randperm(len(x), generator=generator)
    student.train()
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(x), generator=generator)
        rows, order = order[:BATCH], order[BATCH:]
        pictures = x[rows]
        is_flipped = torch.rand(BATCH, generator=generator) < 0.5
        pictures = torch.where(is_flipped[:, None, None, None], pictures.flip(3), pictures)

        loss = F.cross_entropy(student(pictures), soft[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return student.eval()


def train_ensemble(
    x: Tensor, y: Tensor, *, members: int, epochs: int, num_classes: int, seed: int
) -> list[nn.Module]:
    """Networks of three convolutions, trained on labels with the same loop."""
    steps = epochs * (len(x) // BATCH)
    hard = F.one_hot(y, num_classes).float()
    trained = []
    for member in range(members):
        torch.manual_seed(1000 * seed + member)
        fresh = network(x, (16, 32, 64), 64, num_classes, dropout=0.3)
        trained.append(
            distill(fresh, x, hard, steps=steps, lr=0.004, seed=1000 * seed + 100 + member)
        )
    return trained


@torch.no_grad()
def predict(net: nn.Module, x: Tensor) -> Tensor:
    """Log-probabilities (N, C)."""
    return torch.cat([net(part).log_softmax(-1) for part in x.split(500)])

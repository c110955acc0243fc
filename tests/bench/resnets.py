"""Three torchvision ResNet-18 that learn pictures of 32 x 32 pixels in some minutes a member.

The network is torchvision's but for its stem, which halves pictures of 224 pixels twice: here its
first convolution is of 3 x 3 pixels, and there is no pooling behind it. Step sizes of SGD that are
usual for longer training leave it near the class frequencies after ten epochs; AdamW does not.
"""

import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from tests.bench.plain_pictures import Normalize

BATCH = 64
LR, WEIGHT_DECAY, WARMUP = 0.002, 0.05, 0.15
PIXELS = 2
"""How far pictures are shifted at most, in each direction."""


def network(x: Tensor, num_classes: int) -> nn.Module:
    """An untrained member: pictures (B, 3, 32, 32) of bytes to logits."""
    net = resnet18(num_classes=num_classes)
    net.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return nn.Sequential(Normalize(x), net).to(memory_format=torch.channels_last)


def load_or_train(
    path: Path, x: Tensor, y: Tensor, *, num_classes: int, epochs: int, seed: int
) -> tuple[nn.Module, float]:
    """A member in evaluation mode, and the processor seconds of its training; kept at ``path``."""
    torch.manual_seed(seed)
    net = network(x, num_classes)
    if not path.exists():
        started = time.process_time()
        _train(net, x, y, epochs=epochs, seed=seed)
        seconds = time.process_time() - started

        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state": net.state_dict(), "processor_s": seconds}, path)

    kept = torch.load(path, weights_only=True)
    net.load_state_dict(kept["state"])
    return net.eval(), kept["processor_s"]


def _train(net: nn.Module, x: Tensor, y: Tensor, *, epochs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    steps_an_epoch = len(x) // BATCH
    optimizer = torch.optim.AdamW(net.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=epochs * steps_an_epoch, pct_start=WARMUP
    )

    net.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for rows in order[: steps_an_epoch * BATCH].view(-1, BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(_moved(x[rows], generator))
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), y[rows]).backward()
            optimizer.step()
            schedule.step()


def _moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Half of them mirrored, each shifted by some pixels; its edge is mirrored where it is bare."""
    is_flipped = torch.rand(len(pictures), generator=generator) < 0.5
    pictures = torch.where(is_flipped[:, None, None, None], pictures.flip(3), pictures).float()

    height, width = pictures.shape[2:]
    wide = F.pad(pictures, (PIXELS,) * 4, mode="reflect")
    moved = []
    starts = torch.randint(0, 2 * PIXELS + 1, (len(pictures), 2), generator=generator)
    for picture, (top, left) in zip(wide, starts.tolist(), strict=True):
        moved.append(picture[:, top : top + height, left : left + width])
    return torch.stack(moved)

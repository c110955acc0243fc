"""What the kernel's benches train: mixed sizes, inputs of noise, and the loops of a user."""

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gped_nas.distill.feed import DistillationSet
from gped_nas.models.base import FAMILIES, Genotype, Params, initialize, num_params
from gped_nas.targets.layout import HeadLayout

NUM_CLASSES = 10
ADAM_BYTES = 28
"""What a step of Adam moves for each parameter: four read, three written, in float32."""
WIDTHS = (16, 32, 64, 100, 128, 200, 256, 400)


def mlps(num: int, *, seed: int = 0) -> list[Genotype]:
    """Fully connected genotypes of depth 1 to 3 and widths 16 to 400."""
    draw = random.Random(seed)
    depths = [draw.randint(1, 3) for _ in range(num)]
    return [Genotype("mlp", depth=d, width=[draw.choice(WIDTHS) for _ in range(d)]) for d in depths]


def cnns(num: int, *, seed: int = 0) -> list[Genotype]:
    """Convolutional genotypes for 28x28 images, all of two blocks."""
    draw = random.Random(seed)
    genotypes = []
    for _ in range(num):
        width = [draw.choice((4, 8, 16)), draw.choice((8, 16, 32))]
        kernel = draw.choice((3, 5))
        head_width = [draw.choice((32, 64, 128))]
        genotypes.append(
            Genotype("cnn", depth=2, width=width, kernel=kernel, pool=2, head_width=head_width)
        )
    return genotypes


def noise(num_inputs: int, shape: tuple[int, ...]) -> DistillationSet:
    """Inputs of noise with soft labels: what is computed does not depend on the numbers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((num_inputs, *shape), generator=generator)
    soft = torch.randn((num_inputs, NUM_CLASSES), generator=generator).softmax(-1)
    return DistillationSet(x, {"predictive": soft}, HeadLayout(("predictive",), NUM_CLASSES))


def step_flops(genotype: Genotype, data: DistillationSet, batch_size: int) -> int:
    """FLOPs of forward and both backward products of a step; inputs need no gradient."""
    shapes = data.shapes(genotype)
    macs = sum(FAMILIES[genotype.family].macs(shapes, tuple(data.inputs.shape[1:])).values())
    step_macs = 3 * macs
    if genotype.family == "mlp":
        rows, columns = next(iter(shapes.values()))
        step_macs -= rows * columns
    return 2 * batch_size * step_macs


def count_params(genotypes: Sequence[Genotype], data: DistillationSet) -> int:
    """Parameters of a whole population."""
    return sum(num_params(data.shapes(g)) for g in genotypes)


class Network(nn.Module):
    """A student as a user would write it: a module with the family's forward."""

    def __init__(self, genotype: Genotype, data: DistillationSet) -> None:
        super().__init__()
        params = initialize(data.shapes(genotype), generator=torch.Generator().manual_seed(0))
        self._forward = FAMILIES[genotype.family].forward
        self._names = list(params)
        self.values = nn.ParameterList(nn.Parameter(p) for p in params.values())

    def forward(self, x: Tensor) -> Tensor:
        """Raw outputs (B, classes)."""
        return self._forward(self.named(), x)

    def named(self) -> Params:
        """Its parameters by name."""
        return dict(zip(self._names, self.values, strict=True))


class Loop:
    """One student after the other: forward, backward, Adam of its own, on a batch gathered once."""

    def __init__(
        self,
        genotypes: Sequence[Genotype],
        data: DistillationSet,
        *,
        batch_size: int,
        dtype: torch.dtype,
    ) -> None:
        self.networks = [Network(g, data) for g in genotypes]
        self.optimizers = [
            torch.optim.Adam(n.parameters(), lr=1e-3, fused=True) for n in self.networks
        ]
        self.data, self.batch_size, self.dtype = data, batch_size, dtype
        self.generator = torch.Generator().manual_seed(0)

    def step(self) -> None:
        """One step of every student."""
        index = torch.randint(len(self.data.inputs), (self.batch_size,), generator=self.generator)
        x = self.data.inputs[index].to(self.dtype)
        soft = self.data.expectations["predictive"][index]
        is_half = self.dtype == torch.bfloat16

        for network, optimizer in zip(self.networks, self.optimizers, strict=True):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
                raw = network(x)
            F.cross_entropy(raw.float(), soft).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


class Stacked:
    """``vmap`` over stacked modules, one Adam a stack.

    Students of one depth are padded to the widest among them.
    """

    def __init__(
        self, genotypes: Sequence[Genotype], data: DistillationSet, *, batch_size: int
    ) -> None:
        by_depth: dict[int, list[Genotype]] = {}
        for genotype in genotypes:
            by_depth.setdefault(genotype["depth"], []).append(genotype)

        self.stacks = []
        for depth, members in sorted(by_depth.items()):
            widest = [max(g["width"][i] for g in members) for i in range(depth)]
            networks = [Network(Genotype("mlp", depth=depth, width=widest), data) for _ in members]
            params, _ = torch.func.stack_module_state(networks)
            optimizer = torch.optim.Adam(params.values(), lr=1e-3, fused=True)
            self.stacks.append((networks[0], params, optimizer))

        self.data, self.batch_size = data, batch_size
        self.generator = torch.Generator().manual_seed(0)

    def step(self) -> None:
        """One step of every student."""
        index = torch.randint(len(self.data.inputs), (self.batch_size,), generator=self.generator)
        x, soft = self.data.inputs[index], self.data.expectations["predictive"][index]
        for network, params, optimizer in self.stacks:

            def forward(params: Params, network: Network = network) -> Tensor:
                raw: Tensor = torch.func.functional_call(network, params, (x,))  # noqa: B023
                return raw

            optimizer.zero_grad()
            raw_PBU = torch.func.vmap(forward)(params)
            loss = -(soft * raw_PBU.log_softmax(-1)).sum(-1).mean(-1).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

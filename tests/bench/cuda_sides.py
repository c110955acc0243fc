"""What a step of a population costs on a GPU, beside what a user would write there instead.

Each side is a step captured once as a graph and replayed, but for the plain loop. Times are those
of the device, between two events around a number of replays.
"""

import statistics
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.distill.bundle import Bundle
from gped_nas.distill.feed import DistillationSet
from gped_nas.distill.fused_mlp import FusedMlp
from gped_nas.distill.phases.bundle import PhasedMlp
from gped_nas.distill.phases.launch import Launch
from gped_nas.distill.recipe import Recipe
from gped_nas.distill.replay import DeviceSchedule, Replay, ScheduledStep
from gped_nas.distill.team import GPU_ROUNDING
from gped_nas.distill.trainee import Trainee
from gped_nas.distill.training import TrainedBundle
from gped_nas.models.base import Genotype, initialize, shapes_of
from gped_nas.targets.base import Expectations

CUDA = torch.device("cuda")
STEPS = 4000
Step = Callable[[], object]


def drawn(genotypes: Sequence[Genotype], data: DistillationSet) -> list[Trainee]:
    """Students in the order of a layout, on the device."""
    students = []
    for i, genotype in enumerate(genotypes):
        params = initialize(data.shapes(genotype), generator=torch.Generator().manual_seed(i))
        on_device = {name: value.to(CUDA) for name, value in params.items()}
        students.append(Trainee(genotype, 1.0, on_device))
    students.sort(key=lambda student: [len(student.params), *_widths(student)])
    return students


def _widths(student: Trainee) -> list[int]:
    return [shape[0] for shape in shapes_of(student.params).values() if len(shape) > 1]


def scheduled(
    students: Sequence[Trainee],
    data: DistillationSet,
    recipe: Recipe,
    *,
    dtype: torch.dtype,
    launch: Launch | None,
) -> tuple[ScheduledStep, TrainedBundle]:
    """A step of the kernel: by walks where there is a ``launch``, else by products."""

    def loss(raw_PBU: Tensor, expectations: Expectations) -> Tensor:
        return data.layout.loss(raw_PBU, expectations, recipe.target_weights)

    shapes = [shapes_of(student.params) for student in students]
    chains = [student.chain for student in students]
    bundle: Bundle
    if launch is None:
        bundle = FusedMlp(shapes, chains, loss, dtype=dtype, device=CUDA, round_to=GPU_ROUNDING)
    else:
        bundle = PhasedMlp(shapes, chains, loss, dtype=dtype, device=CUDA, launch=launch)
    trained = TrainedBundle(bundle, students, recipe, updates=0)

    generator = torch.Generator().manual_seed(0)
    shape = (STEPS, recipe.batch_size)
    index_TB = torch.randint(len(data.inputs), shape, generator=generator).to(CUDA)
    lr_T = torch.tensor([recipe.lr_at(step) for step in range(STEPS)], device=CUDA)
    schedule = DeviceSchedule(data, index_TB, lr_T)
    return ScheduledStep([trained], schedule), trained


class Padded:
    """Students of one depth padded to the widest among them: three batched products a layer."""

    def __init__(
        self, genotypes: Sequence[Genotype], data: DistillationSet, recipe: Recipe
    ) -> None:
        by_depth: dict[int, list[Genotype]] = {}
        for genotype in genotypes:
            by_depth.setdefault(genotype["depth"], []).append(genotype)

        self.stacks: list[list[tuple[Tensor, Tensor]]] = []
        num_inputs = data.inputs[0].numel()
        for depth, members in sorted(by_depth.items()):
            widths = [max(_width(g, i) for g in members) for i in range(depth)]
            sizes = [num_inputs, *widths, data.layout.num_outputs]
            layers = []
            for columns, rows in zip(sizes[:-1], sizes[1:], strict=True):
                weight = torch.randn((len(members), columns, rows), device=CUDA) / columns**0.5
                bias = torch.zeros((len(members), 1, rows), device=CUDA)
                layers.append((weight.requires_grad_(), bias.requires_grad_()))
            self.stacks.append(layers)

        params = [p for layers in self.stacks for pair in layers for p in pair]
        self.params = params
        self.optimizer = torch.optim.Adam(params, lr=1e-3, fused=True, capturable=True)
        self.x = data.inputs.flatten(1).to(torch.bfloat16)
        self.soft = data.expectations["predictive"]
        self.index_TB = torch.randint(len(self.x), (STEPS, recipe.batch_size), device=CUDA)
        self.counter = torch.zeros(1, dtype=torch.int64, device=CUDA)

    def __call__(self) -> None:
        """One step."""
        index_B = self.index_TB.index_select(0, self.counter).squeeze(0)
        x_BD, soft_BC = self.x[index_B], self.soft[index_B]
        total = torch.zeros((), device=CUDA)
        for layers in self.stacks:
            hidden = x_BD.expand(len(layers[0][0]), *x_BD.shape)
            for i, (weight, bias) in enumerate(layers):
                hidden = torch.baddbmm(bias.bfloat16(), hidden, weight.bfloat16())
                hidden = hidden.relu() if i + 1 < len(layers) else hidden
            log_prob = hidden.float().log_softmax(-1)
            total = total - (soft_BC * log_prob).sum(-1).mean(-1).sum()

        grads = torch.autograd.grad(total, self.params)
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = grad
        self.optimizer.step()
        self.counter.add_(1)


def _width(genotype: Genotype, i: int) -> int:
    width = genotype["width"]
    return int(width if isinstance(width, int) else width[i])


class EagerLoop:
    """One student after the other in bfloat16, launched as a user's loop does."""

    def __init__(self, students: Sequence[Trainee], data: DistillationSet, recipe: Recipe) -> None:
        self.x = data.inputs.flatten(1).to(torch.bfloat16)
        self.soft = data.expectations["predictive"]
        self.batch_size = recipe.batch_size
        self.networks = []
        for student in students:
            params = [p.clone().requires_grad_() for p in student.params.values()]
            optimizer = torch.optim.Adam(params, lr=1e-3, fused=True)
            self.networks.append((params, optimizer))

    def __call__(self) -> None:
        """One step."""
        index_B = torch.randint(len(self.x), (self.batch_size,), device=CUDA)
        x_BD, soft_BC = self.x[index_B], self.soft[index_B]
        for params, optimizer in self.networks:
            optimizer.zero_grad()
            hidden = x_BD
            for weight, bias in zip(params[::2], params[1::2], strict=True):
                is_last = weight is params[-2]
                hidden = F.linear(hidden, weight.bfloat16(), bias.bfloat16())
                hidden = hidden if is_last else hidden.relu()
            F.cross_entropy(hidden.float(), soft_BC).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def captured(step: Step) -> Step:
    """The step as a graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def kernel_side(step: ScheduledStep) -> Step:
    """The kernel's step as it replays it."""
    replay = Replay(step)
    for _ in range(5):
        replay()
    return replay


def ms_of(step: Step, *, replays: int = 100, rounds: int = 5) -> float:
    """Median over rounds of the device's milliseconds a step."""
    times = []
    for _ in range(rounds):
        start = torch.cuda.Event(enable_timing=True)
        stop = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(replays):
            step()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / replays)
    return statistics.median(times)

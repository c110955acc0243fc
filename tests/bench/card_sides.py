"""What a step of a population costs on a GPU, beside what a user would write there instead.

Every side but the plain loop is a step that is captured once as a graph and replayed, timed between
two events of the device. On a CPU the same steps run as they are: a dry run, whose times mean
nothing.
"""

import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gped_nas.distill.feed import DistillationSet
from gped_nas.models.base import Genotype, initialize
from tests.bench.populations import ADAM_BYTES, count_params, step_flops

Step = Callable[[], object]
Layers = list[tuple[Tensor, Tensor]]
STEPS = 4000
NUM_STREAMS = 4


class Setting:
    """A population, what it learns from, and where.

    Args:
        genotypes: of family mlp.
        data: inputs and soft labels.
        batch_size: B.
        device: where all sides run.
    """

    def __init__(
        self,
        genotypes: Sequence[Genotype],
        data: DistillationSet,
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.genotypes, self.data, self.device = genotypes, data, device
        self.batch_size = batch_size
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.x = data.inputs.flatten(1).to(device, self.dtype)
        self.soft = data.expectations["predictive"].to(device)
        generator = torch.Generator().manual_seed(0)
        shape = (STEPS, batch_size)
        self._index_TB = torch.randint(len(self.x), shape, generator=generator).to(device)

    def batches(self) -> Callable[[], tuple[Tensor, Tensor]]:
        """What gives the next batch, found by a counter of its own on the device."""
        counter = torch.zeros(1, dtype=torch.int64, device=self.device)

        def batch() -> tuple[Tensor, Tensor]:
            index_B = self._index_TB.index_select(0, counter).squeeze(0)
            counter.add_(1).remainder_(STEPS)
            return self.x[index_B], self.soft[index_B]

        return batch

    def layers(self, genotype: Genotype) -> Layers:
        """Fresh weights (rows, columns) and biases of a student, from input to raw outputs."""
        generator = torch.Generator().manual_seed(0)
        params = initialize(self.data.shapes(genotype), generator=generator)
        leaves = [p.to(self.device).requires_grad_() for p in params.values()]
        return list(zip(leaves[::2], leaves[1::2], strict=True))

    def adam(self, params: Sequence[Tensor]) -> torch.optim.Optimizer:
        """One optimizer of these parameters, fit to be captured."""
        is_card = self.device.type == "cuda"
        return torch.optim.Adam(params, lr=1e-3, fused=True, capturable=is_card)


def parameters(layers: Layers) -> list[Tensor]:
    """Weights and biases as one list."""
    return [p for pair in layers for p in pair]


def raw_of(layers: Layers, x: Tensor) -> Tensor:
    """Raw outputs (B, U) of one student, its products in the precision of ``x``."""
    hidden = x
    for i, (weight, bias) in enumerate(layers):
        hidden = F.linear(hidden, weight.to(x.dtype), bias.to(x.dtype))
        hidden = hidden.relu() if i + 1 < len(layers) else hidden
    return hidden


class Loop:
    """One student after the other, launched as a user's loop does."""

    def __init__(self, setting: Setting, genotypes: Sequence[Genotype] | None = None) -> None:
        self._batch = setting.batches()
        self._networks = [setting.layers(g) for g in genotypes or setting.genotypes]
        self._optimizers = [setting.adam(parameters(layers)) for layers in self._networks]

    def __call__(self) -> None:
        """One step of every student."""
        x, soft = self._batch()
        for layers, optimizer in zip(self._networks, self._optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(raw_of(layers, x).float(), soft).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


class GraphEach:
    """One graph a student, replayed on four streams."""

    def __init__(self, setting: Setting) -> None:
        self._device = setting.device
        self._replays = [captured(Loop(setting, [g]), setting.device) for g in setting.genotypes]
        num_streams = NUM_STREAMS if setting.device.type == "cuda" else 0
        self._streams = [torch.cuda.Stream() for _ in range(num_streams)]  # type: ignore[no-untyped-call]

    def __call__(self) -> None:
        """One step of every student."""
        if not self._streams:
            for replay in self._replays:
                replay()
            return

        main = torch.cuda.current_stream()
        for stream in self._streams:
            stream.wait_stream(main)
        for i, replay in enumerate(self._replays):
            with torch.cuda.stream(self._streams[i % NUM_STREAMS]):
                replay()
        for stream in self._streams:
            main.wait_stream(stream)


class Padded:
    """Students of one depth padded to the widest among them, one Adam over all stacks.

    Three batched products a layer; with ``is_mapped``, ``vmap`` of one student, compiled.
    """

    def __init__(self, setting: Setting, *, is_mapped: bool = False) -> None:
        self._setting, self._batch = setting, setting.batches()
        self._stacks = [self._stack(members) for members in by_depth(setting.genotypes)]
        self._params = [p for layers in self._stacks for p in parameters(layers)]
        self._optimizer = setting.adam(self._params)
        forward = _mapped if is_mapped else _batched
        backend = "inductor" if setting.device.type == "cuda" else "eager"
        self._forward = torch.compile(forward, backend=backend) if is_mapped else forward

    def _stack(self, members: Sequence[Genotype]) -> Layers:
        shapes = [[layer[0].shape for layer in self._setting.layers(g)] for g in members]
        layers = []
        for same_level in zip(*shapes, strict=True):
            rows = max(shape[0] for shape in same_level)
            columns = max(shape[1] for shape in same_level)
            size = (len(members), columns, rows)
            weight = torch.randn(size, device=self._setting.device) / columns**0.5
            bias = torch.zeros((len(members), 1, rows), device=self._setting.device)
            layers.append((weight.requires_grad_(), bias.requires_grad_()))
        return layers

    def __call__(self) -> None:
        """One step of every student."""
        x, soft_BC = self._batch()
        total = torch.zeros((), device=x.device)
        for layers in self._stacks:
            log_prob = self._forward(layers, x).float().log_softmax(-1)
            total = total - (soft_BC * log_prob).sum(-1).mean(-1).sum()

        grads = torch.autograd.grad(total, self._params)
        for param, grad in zip(self._params, grads, strict=True):
            param.grad = grad
        self._optimizer.step()


def by_depth(genotypes: Sequence[Genotype]) -> list[list[Genotype]]:
    """Genotypes of one depth together."""
    groups: dict[int, list[Genotype]] = {}
    for genotype in genotypes:
        groups.setdefault(genotype["depth"], []).append(genotype)
    return [groups[depth] for depth in sorted(groups)]


def _batched(layers: Layers, x: Tensor) -> Tensor:
    hidden = x.expand(len(layers[0][0]), *x.shape)
    for i, (weight, bias) in enumerate(layers):
        hidden = torch.baddbmm(bias.to(x.dtype), hidden, weight.to(x.dtype))
        hidden = hidden.relu() if i + 1 < len(layers) else hidden
    return hidden


def _mapped(layers: Layers, x: Tensor) -> Tensor:
    def forward(layers: Layers) -> Tensor:
        hidden = x
        for i, (weight, bias) in enumerate(layers):
            hidden = hidden @ weight.to(x.dtype) + bias.to(x.dtype)
            hidden = hidden.relu() if i + 1 < len(layers) else hidden
        return hidden

    return torch.func.vmap(forward)(layers)


class Foreach:
    """Ragged products of one level and depth by ``torch._foreach_mm``, backward by hand."""

    def __init__(self, setting: Setting) -> None:
        self._batch = setting.batches()
        groups = by_depth(setting.genotypes)
        self._groups = [[setting.layers(g) for g in members] for members in groups]
        params = [p for group in self._groups for layers in group for p in parameters(layers)]
        self._optimizer = setting.adam(params)

    @torch.no_grad()
    def __call__(self) -> None:
        """One step of every student."""
        multiply: Callable[[list[Tensor], list[Tensor]], list[Tensor]] = torch._foreach_mm
        x, soft = self._batch()
        for group in self._groups:
            levels = list(zip(*group, strict=True))
            read = [[x] * len(group)]
            weights = []
            for i, level in enumerate(levels):
                weights.append([weight.to(x.dtype) for weight, _ in level])
                raw = multiply(read[-1], [weight.t() for weight in weights[-1]])
                raw = [r + bias.to(x.dtype) for r, (_, bias) in zip(raw, level, strict=True)]
                read.append([r.relu() for r in raw] if i + 1 < len(levels) else raw)

            grads = [((r.float().softmax(-1) - soft) / len(x)).to(x.dtype) for r in read.pop()]
            for i in reversed(range(len(levels))):
                by_weight = multiply([g.t() for g in grads], read[i])
                for (weight, bias), grad, g in zip(levels[i], by_weight, grads, strict=True):
                    weight.grad, bias.grad = grad.float(), g.float().sum(0)
                if i:
                    grads = multiply(grads, weights[i])
                    grads = [g * (h > 0) for g, h in zip(grads, read[i], strict=True)]
        self._optimizer.step()


class _Captured:
    """A step as a graph. It holds the step, whose tensors the graph reads and writes."""

    def __init__(self, step: Step) -> None:
        self._step = step
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)

        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            step()

    def __call__(self) -> None:
        self._graph.replay()


def captured(step: Step, device: torch.device) -> Step:
    """The step as a graph; itself on a CPU."""
    return _Captured(step) if device.type == "cuda" else step


def ms_of(step: Step, device: torch.device, *, replays: int, rounds: int) -> list[float]:
    """Milliseconds a step of each round, by the device's clock."""
    times = []
    for _ in range(rounds):
        if device.type != "cuda":
            started = time.perf_counter()
            for _ in range(replays):
                step()
            times.append(1e3 * (time.perf_counter() - started) / replays)
            continue

        start = torch.cuda.Event(enable_timing=True)
        stop = torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(replays):
            step()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / replays)
    return times


def roofline(setting: Setting, *, is_dry: bool) -> dict[str, float]:
    """Measured peaks, and the least milliseconds that a step could take."""
    device = setting.device
    size, numbers = (64, 2**10) if is_dry else (8192, 2**30)
    square = torch.randn((size, size), device=device, dtype=setting.dtype)
    big = torch.zeros(numbers, device=device)
    other = torch.ones_like(big)
    tiny = torch.zeros(1, device=device)

    def chain() -> None:
        for _ in range(100):
            tiny.add_(1)

    limits = {"replays": 3, "rounds": 1 if is_dry else 5}
    product_ms = min(ms_of(lambda: square @ square, device, **limits))
    copy_ms = min(ms_of(lambda: big.copy_(other), device, **limits))
    launch_ms = min(ms_of(captured(chain, device), device, **limits)) / 100

    peak = 2 * size**3 / product_ms
    bandwidth = 8 * numbers / copy_ms
    flops = sum(step_flops(g, setting.data, setting.batch_size) for g in setting.genotypes)
    num_bytes = ADAM_BYTES * count_params(setting.genotypes, setting.data)
    return {
        "peak_tflop_s": peak / 1e9,
        "tb_s": bandwidth / 1e9,
        "launch_us": 1e3 * launch_ms,
        "gflops": flops / 1e9,
        "least_ms": flops / peak + num_bytes / bandwidth,
    }


PADDED = "padded"
CHEAP: dict[str, Callable[[Setting], Step]] = {
    PADDED: lambda setting: captured(Padded(setting), setting.device),
    "foreach": lambda setting: captured(Foreach(setting), setting.device),
}
DEAR: dict[str, Callable[[Setting], Step]] = {
    "a graph each": GraphEach,
    "loop": Loop,
    "vmap, compiled": lambda setting: captured(Padded(setting, is_mapped=True), setting.device),
}
"""Those that take tens of seconds to make or to run for many students."""

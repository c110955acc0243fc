"""Many chains on one device: their buffers, one step of all of them, and the way back of samples.

A step is a minibatch for each chain, a walk forward, the likelihood's gradient, a walk backward and
a move. On a GPU it is captured once and replayed: what changes from step to step lies on the device
and is found by a counter there. Copies of the parameters leave on a stream of their own while the
next steps run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gped_nas.data.rows import Rows
from gped_nas.distill.phases import has_walk
from gped_nas.distill.phases.chain_layout import ChainLayout, round_up
from gped_nas.distill.phases.departures import Departure, Exits
from gped_nas.distill.phases.launch import Launch, Operands, Table, walk
from gped_nas.distill.phases.rules import ANCHOR, FIRST, NUM_NUMBERS, SECOND, Kind, Rule
from gped_nas.distill.phases.tiles import Sizes, walks_of
from gped_nas.models.activations import activation_in
from gped_nas.posterior import adam
from gped_nas.posterior.base import Problem
from gped_nas.posterior.likelihoods import (
    CategoricalLikelihood,
    GaussianLikelihood,
    Likelihood,
)
from gped_nas.posterior.priors import (
    FanInGaussianPrior,
    GaussianPrior,
    LaplacePrior,
    LayeredGaussianPrior,
    Prior,
)

CHAINS = Launch(Sizes(64, 32), depth=32, programs_a_processor=2, precision="tf32x3")
"""Small tiles: the chains of a teacher are few, and a step is as long as its longest tile.

Products are of three parts each, as near as float32's own and a quarter faster on an H200.

It does not depend on how many chains there are, so that their number changes no bit.
"""
PART = 256
"""Steps whose minibatches are handed over together, at most."""
_QUARTER = 256
"""Numbers that ``move`` takes from each of the four words of a counter."""

_LIKELIHOODS = (CategoricalLikelihood, GaussianLikelihood)
_PRIORS = (GaussianPrior, FanInGaussianPrior, LayeredGaussianPrior, LaplacePrior)


@dataclass(frozen=True, eq=False)
class Part:
    """What a number of successive steps need.

    Attributes:
        index_KTB: minibatches, int32.
        numbers_KTN: of the rule, float32.
    """

    index_KTB: Tensor
    numbers_KTN: Tensor

    @property
    def num_steps(self) -> int:
        return self.index_KTB.shape[1]


class ChainWalk:
    """Chains of one posterior that step together on a device."""

    def __init__(
        self,
        problem: Problem,
        likelihood: Likelihood,
        rule: Rule,
        *,
        num_chains: int,
        batch_size: int,
        length: int,
        launch: Launch = CHAINS,
        priors: Sequence[Prior] = (),
    ) -> None:
        """Make buffers for chains that stand at zero.

        Args:
            problem: the posterior, on the device to work on; see ``can_walk``.
            likelihood: of its network.
            rule: how chains step.
            num_chains: how many there are.
            batch_size: examples a step of each chain.
            length: steps of a part, at most.
            launch: how walks are launched.
            priors: of each chain that is trained, all of one kind; that of the problem by default.
        """
        assert problem.network is not None and problem.prior is not None
        self._problem, self._likelihood = problem, likelihood
        self._rule, self._launch = rule, launch
        self._batch_size, self._length = batch_size, length
        self._device = problem.x.device
        self.layout = ChainLayout.of(problem.shapes, problem.network.dense, num_chains)
        self._positions_W = self.layout.positions_W.to(self._device)

        shape = (num_chains, self.layout.num_params)
        self._buffers = {name: self._zeros(shape) for name in ("theta", *rule.buffers)}
        self._x = problem.x.flatten(1).contiguous()
        self._y = problem.y.contiguous()
        priors = priors or [problem.prior] * num_chains
        self._is_laplace = isinstance(priors[0], LaplacePrior)
        precision_KW = torch.stack([_precision(prior, problem) for prior in priors])
        # chains that are sampled share one prior
        precision = precision_KW if rule.kind == Kind.DESCENT else precision_KW[0]
        self._prior = self.layout.spread(precision.to(self._device))

        self._index = self._zeros((num_chains, length, batch_size), torch.int32)
        self._numbers = self._zeros((num_chains, length, NUM_NUMBERS))
        self._keys = self._zeros((num_chains,), torch.int64)
        self._steps = self._zeros((num_chains,), torch.int64)
        self._place = self._zeros((1,), torch.int32)

        self._make_tables()
        self._replay = _Replay(self) if self._device.type == "cuda" else None
        self._exits = Exits(self._buffers, self._positions_W)

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)

    def _make_tables(self) -> None:
        """The tiles of a step, and what they read and write."""
        layout, sizes = self.layout, self._launch.sizes
        num_columns = round_up(self._batch_size)
        read = self._zeros((layout.num_rows, num_columns))
        gradient = torch.zeros_like(read)
        theta = self._buffers["theta"]
        # nothing is taken off units, so that the centers are never read
        self._operands = Operands(read, read, gradient, read, theta, torch.zeros_like(theta))

        walks = walks_of(layout.layers(), num_columns, sizes)
        self._forward = Table.of(walks.forward, walks.num_slots, self._device)
        self._backward = Table.of(walks.backward, walks.num_slots, self._device)

    # ---------------------------------------------------------------------------------------------
    # from and to the host

    def load(self, states: Sequence[Mapping[str, Tensor]], *, keys: Sequence[int]) -> None:
        """Put each chain where it stands.

        Args:
            states: flat buffers (W,) by name, one mapping a chain.
            keys: of each chain's noise, 64 bits.
        """
        for name, buffer in self._buffers.items():
            # a chain that goes on comes from the host, a fresh one is on the device
            flat_KW = torch.stack([s[name].to(self._device, torch.float32) for s in states])
            buffer.index_copy_(1, self._positions_W, flat_KW)
        self._keys.copy_(torch.tensor(keys))

    def advance(self, part: Part, steps: Sequence[int]) -> None:
        """Take the steps of a part; on a GPU they are only begun.

        Args:
            part: what they need.
            steps: how many steps each chain has taken before.
        """
        if self._replay is not None:
            self._replay.advance(part, steps)
            return
        self.hand_over(part, steps)
        for _ in range(part.num_steps):
            self.step()

    def hand_over(self, part: Part, steps: Sequence[int]) -> None:
        """Bring a part to the device, at whose beginning the counter then stands."""
        for there, here in (
            (self._index, part.index_KTB),
            (self._numbers, part.numbers_KTN),
            (self._steps, torch.tensor(steps)),
        ):
            if here.shape != there.shape:
                whole = torch.zeros(there.shape, dtype=there.dtype)
                whole[:, : here.shape[1]] = here
                here = whole
            # pinned memory is free again only once the copy from it is done
            there.copy_(here.pin_memory() if there.is_cuda else here, non_blocking=True)
        self._place.zero_()

    def depart(self) -> Departure:
        """Begin to copy all buffers to the host."""
        if self._replay is not None:
            with self._replay.on_stream():
                return self._exits.depart()
        return self._exits.depart()

    def close(self) -> None:
        """Wait for whatever was begun."""
        if self._replay is not None:
            self._replay.wait()

    # ---------------------------------------------------------------------------------------------
    # a step

    def step(self) -> None:
        """One step of all chains."""
        self._gather()
        walk(self._forward, self._operands, self._launch)
        self._likelihood_gradient()
        walk(self._backward, self._operands, self._launch)
        if self._rule.kind == Kind.DESCENT:
            self._descend()
        else:
            self._move()
        self._place.add_(1)

    def _gather(self) -> None:
        from gped_nas.distill.phases import chain_programs

        layout, read = self.layout, self._operands.read
        grid = (-(-layout.num_inputs // 64), -(-self._batch_size // 32), layout.num_chains)
        chain_programs.gather[grid](
            self._x,
            self._index,
            self._place,
            read,
            layout.num_inputs,
            layout.sizes[0],
            self._batch_size,
            read.shape[1],
            self._length,
            BB=32,
            BD=64,
        )

    def _likelihood_gradient(self) -> None:
        from gped_nas.distill.phases import chain_programs

        layout, operands, likelihood = self.layout, self._operands, self._likelihood
        rows, columns = layout.sizes[-1], operands.read.shape[1]
        scale = self._problem.num_examples / self._batch_size
        if isinstance(likelihood, GaussianLikelihood):
            scale /= likelihood.noise_std**2

        y_columns = self._y[0].numel()
        chain_programs.likelihood_gradient[(-(-columns // 32), layout.num_chains)](
            layout.raw_outputs(operands.output),
            layout.raw_outputs(operands.gradient),
            self._y,
            self._index,
            self._place,
            layout.num_outputs,
            rows,
            self._batch_size,
            columns,
            self._length,
            y_columns,
            int(y_columns > 1),
            scale,
            IS_CATEGORICAL=isinstance(likelihood, CategoricalLikelihood),
            BU=1 << (rows - 1).bit_length(),
            BB=32,
        )

    def _move(self) -> None:
        from gped_nas.distill.phases import chain_programs

        size, rule, theta = self.layout.num_params, self._rule, self._buffers["theta"]
        # a rule without a buffer of its own reads and writes none
        (first,) = [self._buffers[name] for name in rule.buffers] or [theta]
        chain_programs.move[(-(-size // (4 * _QUARTER)), self.layout.num_chains)](
            theta,
            first,
            self._operands.weight_grad,
            self._prior,
            self._numbers,
            self._keys,
            self._steps,
            self._place,
            size,
            self._length,
            1 / self._problem.num_examples,
            rule.damping,
            RULE=int(rule.kind),
            IS_LAPLACE=self._is_laplace,
            QUARTER=_QUARTER,
        )

    def _descend(self) -> None:
        from gped_nas.distill.phases import chain_programs

        size, buffers = self.layout.num_params, self._buffers
        chain_programs.descend[(-(-size // (4 * _QUARTER)), self.layout.num_chains)](
            buffers["theta"],
            buffers[FIRST],
            buffers[SECOND],
            buffers.get(ANCHOR, buffers["theta"]),
            self._operands.weight_grad,
            self._prior,
            self._numbers,
            self._place,
            size,
            self._length,
            1 / self._problem.num_examples,
            1 - adam.BETA1,
            1 - adam.BETA2,
            adam.EPSILON,
            HAS_ANCHOR=ANCHOR in buffers,
            IS_LAPLACE=self._is_laplace,
            BLOCK=4 * _QUARTER,
        )


class _Replay:
    """Steps of chains on a stream of their own, captured once as a CUDA graph."""

    def __init__(self, chains: ChainWalk) -> None:
        self._chains = chains
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream(chains._device)  # type: ignore[no-untyped-call]

    def on_stream(self) -> torch.cuda.StreamContext:
        """The stream that steps run on, for a block."""
        return torch.cuda.stream(self._stream)

    def advance(self, part: Part, steps: Sequence[int]) -> None:
        """Begin the steps of a part, after those before."""
        # parameters were loaded there
        self._stream.wait_stream(torch.cuda.current_stream(self._chains._device))
        num_steps = part.num_steps
        with self.on_stream():
            self._chains.hand_over(part, steps)
            if self._graph is None:
                # compiles what is launched, which no capture may
                self._chains.step()
                num_steps -= 1
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            # records the step without running it
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._chains.step()

        with self.on_stream():
            for _ in range(num_steps):
                self._graph.replay()

    def wait(self) -> None:
        """Until all that was begun is done, on the streams of copies too."""
        torch.cuda.synchronize(self._chains._device)


def can_walk(problem: Problem, likelihood: Likelihood, *, num_chains: int, batch_size: int) -> bool:
    """Whether chains of a posterior can be walked: dense layers, known prior and likelihood.

    Args:
        problem: the posterior.
        likelihood: of its network.
        num_chains, batch_size: how many chains there are, and examples a step of each.
    """
    network, prior = problem.network, problem.prior
    if network is None or prior is None or isinstance(problem.x, Rows):
        return False
    if type(likelihood) not in _LIKELIHOODS or type(prior) not in _PRIORS:
        return False

    named = {name for layer in network.dense for name in layer}
    if not has_walk(activation_in(named)):
        return False
    if named != set(problem.shapes) or problem.x.dtype != torch.float32:
        return False
    layout = ChainLayout.of(problem.shapes, network.dense, num_chains)
    return layout.num_inputs == problem.x[0].numel() and layout.fits(round_up(batch_size))


def _precision(prior: Prior, problem: Problem) -> Tensor:
    """Of each flat parameter (W,): what the prior's score is at 1, less its sign."""
    ones = {name: torch.ones(shape) for name, shape in problem.shapes.items()}
    return -torch.cat([score.reshape(-1) for score in prior.score(ones).values()])

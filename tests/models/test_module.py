"""A user's module as a family: what is asked of it, and what is refused."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from gped_nas import rng
from gped_nas.errors import ConfigError, GpedError, RegistryError
from gped_nas.models.base import FAMILIES, Genotype, Params, num_params
from gped_nas.models.elementary import Activation, Dense, Elementary, run_layers
from gped_nas.models.module import ModuleFamily, ModuleSource, bind
from gped_nas.models.module_probe import ModuleFacts, parse_parameters
from gped_nas.models.storage import decode, encode
from gped_nas.posterior.base import FlatParams, Problem, flatten, posterior_of, unflatten
from gped_nas.posterior.likelihoods import CategoricalLikelihood
from gped_nas.posterior.priors import (
    FanInGaussianPrior,
    GaussianPrior,
    LaplacePrior,
    Prior,
    fan_in,
)

SHAPE, CLASSES = (5,), 3


class Net(nn.Module):
    """Names and shapes that no family of ours has: a number, ``scale``, a buffer, a frozen one."""

    def __init__(self, act: type[nn.Module] = nn.Tanh) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), act(), nn.Dropout(0.5))
        self.norm = nn.GroupNorm(2, 8)
        self.gate = nn.Parameter(torch.tensor(1.5))
        self.scale = nn.Parameter(torch.ones(8))
        self.fixed = nn.Parameter(torch.rand(8), requires_grad=False)
        self.register_buffer("shift", torch.rand(8))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.body(x) * self.fixed + self.shift)
        return self.out(hidden * self.scale * self.gate)


def family(source: ModuleSource, name: str = "teacher") -> ModuleFamily:
    return ModuleFamily(name, source, where="own.yaml: teacher.family")


def facts(source: ModuleSource) -> ModuleFacts:
    return family(source).facts(SHAPE, CLASSES)


def build(act: type[nn.Module] = nn.Tanh) -> nn.Module:
    with torch.random.fork_rng():
        return Net(act)


def dense(out: int = CLASSES) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, out))


def test_it_computes_what_the_module_does() -> None:
    own = family(Net)
    shapes = own.shapes({}, SHAPE, CLASSES)
    assert set(shapes) == {
        *("gate", "scale", "body.0.weight", "body.0.bias"),
        *("norm.weight", "norm.bias", "out.weight", "out.bias"),
    }

    params = own.initialize(shapes, generator=rng.generator(0, "test"))
    module = own._module
    state = {**module.state_dict(), **params}
    theirs = build()
    theirs.load_state_dict(state)
    x = torch.randn(6, *SHAPE, generator=rng.generator(0, "x"))
    assert torch.equal(own.forward(params, x), theirs.eval()(x))

    # flat and back, a single number among them
    theta_W = flatten(params)
    assert len(theta_W) == num_params(shapes)
    again = unflatten(theta_W, shapes)
    assert all(torch.equal(again[name], params[name]) for name in shapes)


def test_its_first_parameters_are_its_constructors_by_the_generator_alone() -> None:
    own = family(Net)
    shapes = own.shapes({}, SHAPE, CLASSES)
    first = own.initialize(shapes, generator=rng.generator(0, "a"))
    again = own.initialize(shapes, generator=rng.generator(0, "a"))
    other = own.initialize(shapes, generator=rng.generator(0, "b"))

    assert all(torch.equal(first[name], again[name]) for name in shapes)
    assert not torch.equal(first["out.weight"], other["out.weight"])
    assert float(first["gate"]) == 1.5
    bound = 5**-0.5  # nn.Linear draws uniformly between -1 and 1 over the root of the fan-in
    assert 0.7 * bound < float(first["body.0.weight"].abs().max()) <= bound


def test_chains_may_begin_with_a_draw_from_the_prior() -> None:
    genotype = Genotype("module", initial="prior")
    problem = posterior_of(
        genotype,
        torch.zeros(4, *SHAPE),
        torch.zeros(4, dtype=torch.long),
        num_outputs=CLASSES,
        prior=GaussianPrior(precision=10_000.0),
        likelihood=CategoricalLikelihood(),
        device=torch.device("cpu"),
        family=family(Net),
    )
    drawn = flatten(problem.initialize(rng.generator(0, "test")))
    assert 0.007 < float(drawn.std()) < 0.013


def test_what_it_was_known_by_is_read_without_it() -> None:
    known = facts(Net)
    read = ModuleFacts.model_validate_json(known.model_dump_json())
    unbound = ModuleFamily(facts=read)
    assert unbound.shapes({}, SHAPE, CLASSES) == family(Net).shapes({}, SHAPE, CLASSES)
    assert unbound.identity(SHAPE, CLASSES) == family(Net).identity(SHAPE, CLASSES)
    assert list(parse_parameters(known.parameters)) == list(known.shapes)

    with pytest.raises(ConfigError, match="Python alone can build"):
        unbound.forward({}, torch.zeros(1, 5))
    with pytest.raises(ConfigError, match=r"known for inputs of shape \(5,\) and 3 outputs"):
        unbound.facts((6,), CLASSES)
    with pytest.raises(ConfigError, match="Python alone can build"):
        FAMILIES["module"].shapes({}, SHAPE, CLASSES)


@pytest.mark.parametrize(
    "other",
    [
        partial(Net, nn.ReLU),
        lambda: nn.Sequential(nn.Flatten(), Net(), nn.Identity()),  # other names
    ],
)
def test_another_forward_pass_is_another_key(other: Callable[[], nn.Module]) -> None:
    own = family(Net).identity(SHAPE, CLASSES)
    assert family(Net).identity(SHAPE, CLASSES) == own
    assert family(other).identity(SHAPE, CLASSES) != own


def test_a_larger_answer_and_another_constant_are_other_keys() -> None:
    class Doubled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Shifted(Net):
        def __init__(self) -> None:
            super().__init__()
            self.shift[0] += 0.01

    answers = {facts(source).answers for source in (Net, Doubled, Shifted)}
    assert len(answers) == 3


class Plain(nn.Module):
    """Says what its layers are."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share
        self.first, self.out = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.first(x).tanh())

    def elementary_layers(self, params: Params) -> list[Elementary]:
        return [
            Dense(params["first.weight"], self.share * params["first.bias"]),
            Activation("tanh"),
            Dense(params["out.weight"], params["out.bias"]),
        ]


def test_a_module_may_say_what_its_layers_are() -> None:
    plain = family(Plain)
    shapes = plain.shapes({}, SHAPE, CLASSES)
    params = plain.initialize(shapes, generator=rng.generator(0, "layers"))
    exact = {name: value.double() for name, value in params.items()}
    x = torch.randn(7, *SHAPE, generator=rng.generator(0, "inputs")).double()

    layers = plain.layers(exact)
    assert layers is not None
    assert torch.allclose(run_layers(layers, x), plain.forward(exact, x), atol=1e-12)

    other = family(partial(Plain, 0.5))
    other.facts(SHAPE, CLASSES)
    with pytest.raises(ConfigError, match="elementary_layers that answer otherwise than its forw"):
        other.layers(exact)
    assert family(build).layers({}) is None
    assert "elementary_layers(params)" in family(build).why_no_layers


def test_layers_that_raise_are_named() -> None:
    plain = family(Plain)
    with pytest.raises(RegistryError, match="module 'teacher'.*KeyError.*mend its elementary_laye"):
        plain.layers({})


def test_a_module_that_takes_float32_alone_is_asked_in_it() -> None:
    class Single(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + nn.functional.linear(x, torch.ones(3, 5))

    assert facts(Single).shapes == facts(Net).shapes


def test_dropout_is_off_and_the_callers_module_stays_in_its_mode() -> None:
    given = build().train()
    own = family(given)
    shapes = own.shapes({}, SHAPE, CLASSES)
    params = own.initialize(shapes, generator=rng.generator(0, "any"))
    x = torch.ones(2, *SHAPE)
    assert torch.equal(own.forward(params, x), own.forward(params, x))
    assert given.training
    # of a module that is given as it is, chains begin with its own parameters
    assert torch.equal(params["out.weight"], given.get_parameter("out.weight"))


def test_it_says_that_dropout_is_off() -> None:
    assert family(Net).notes() == (
        "The dropout of the teacher's module (body.2) is off, in training too.",
    )
    assert family(dense).notes() == ()
    assert ModuleFamily(facts=facts(Net)).notes() == ()


@pytest.mark.parametrize("prior", [GaussianPrior(), FanInGaussianPrior(), LaplacePrior()])
def test_the_posterior_is_that_of_the_family_with_the_same_layers(prior: Prior) -> None:
    """A chain of dense layers, as a module and as ``mlp``: potential and gradient agree."""

    def plain() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))

    x = torch.randn(20, *SHAPE, generator=rng.generator(0, "x"))
    y = torch.arange(20) % CLASSES

    def problem(genotype: Genotype, family: ModuleFamily | None) -> Problem:
        return posterior_of(
            genotype,
            x,
            y,
            num_outputs=CLASSES,
            prior=prior,
            likelihood=CategoricalLikelihood(),
            device=torch.device("cpu"),
            family=family,
        )

    of_module = problem(Genotype("module"), family(plain))
    of_mlp = problem(Genotype("mlp", depth=1, width=6), None)
    theta_W = flatten(of_mlp.initialize(rng.generator(0, "start")))
    assert list(of_module.shapes.values()) == list(of_mlp.shapes.values())

    index = torch.tensor([3, 1, 7])
    found, expected = (FlatParams(p.shapes, theta_W.clone()) for p in (of_module, of_mlp))
    assert torch.equal(
        of_module.potential(found.params, index), of_mlp.potential(expected.params, index)
    )
    assert torch.equal(of_module.gradient(found, index), of_mlp.gradient(expected, index))


def test_a_program_is_a_teacher_too() -> None:
    net = build().eval()
    size = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(net, (torch.zeros(4, 5),), dynamic_shapes=({0: size},))
    own, of_module = family(program), family(net)
    shapes = own.shapes({}, SHAPE, CLASSES)
    assert shapes == of_module.shapes({}, SHAPE, CLASSES)

    params = own.initialize(shapes, generator=rng.generator(0, "any"))
    x = torch.randn(7, *SHAPE, generator=rng.generator(0, "x"))
    assert torch.allclose(own.forward(params, x), net(x))
    assert own.identity(SHAPE, CLASSES) == of_module.identity(SHAPE, CLASSES)


def test_a_program_of_one_batch_size_says_so() -> None:
    program = torch.export.export(build().eval(), (torch.zeros(2, 5),))
    with pytest.raises(RegistryError, match=r"at inputs of shape \(4, 5\): its function raised"):
        facts(program)


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


class OwnNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x - x.mean(0))


class Drawing(OwnNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(nn.functional.dropout(x, 0.5, training=True))


class Pair(OwnNorm):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.read(x), x


class Softmaxed(OwnNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(x).softmax(-1)


class Raising(OwnNorm):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no such thing")


class Infinite(OwnNorm):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(x) / 0.0


def drawn_elsewhere() -> nn.Module:
    module = nn.Linear(5, 3)
    nn.init.constant_(module.bias, float(torch.rand((), generator=_ELSEWHERE)))
    return module


_ELSEWHERE = torch.Generator().manual_seed(0)


def no_module() -> object:
    return {"weights": 1}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (with_batch_norm, r"found batch norm \(1\), .* is not a product over examples.*GroupNorm"),
        (OwnNorm, "depends on the other inputs of its batch.*not a product over examples"),
        (Drawing, "asked twice it gave two answers"),
        (Pair, "found an answer of type tuple of 2, expected a tensor of raw outputs"),
        (Softmaxed, "found probabilities, expected raw outputs"),
        (Raising, "raised ValueError: no such thing"),
        (Infinite, "outputs that are not finite"),
        (
            partial(dense, 7),
            r"found outputs of shape \(4, 7\) at inputs of shape \(4, 5\), expected \(4, 3\): one "
            "raw output a class, .*; build it with 3 outputs",
        ),
        (nn.Identity, "found no parameter that requires a gradient"),
        (partial(nn.LazyLinear, 3), "found the parameter 'weight' without a size"),
        (no_module, "found a function that gives a dict, expected a torch module"),
        (
            drawn_elsewhere,
            "built twice under one seed, it has two different parameters 'bias'",
        ),
        (lambda: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_what_cannot_be_a_teacher_is_refused(source: ModuleSource, message: str) -> None:
    with pytest.raises(
        GpedError, match=f"(?s)own.yaml: teacher.family: module 'teacher'.*{message}"
    ):
        facts(source)


def test_a_program_with_batch_norm_is_refused() -> None:
    with torch.random.fork_rng():
        net = with_batch_norm().eval()
    program = torch.export.export(net, (torch.zeros(4, 5),))
    with pytest.raises(ConfigError, match="found batch norm"):
        facts(program)


def test_modules_go_by_the_name_of_the_space() -> None:
    genotype = Genotype("module", name="mine")
    with pytest.raises(ConfigError, match="found 'mien'; did you mean 'mine'"):
        bind(genotype, {"mien": Net}, None, "own.yaml")
    with pytest.raises(ConfigError, match="found int for 'mine', expected a function"):
        bind(genotype, {"mine": 3}, None, "own.yaml")  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="a module for a teacher that is none"):
        bind(Genotype("mlp", depth=0), {"mine": Net}, None, "own.yaml")
    with pytest.raises(ConfigError, match="name: found 3"):
        Genotype("module", name=3)
    assert str(Genotype("module", initial="constructor")) == (
        "module(name=teacher, storage_dtype=float32)"
    )


def test_multiply_adds_are_counted_by_submodule() -> None:
    """Dense layers of 5 x 8 and 8 x 3; norm and gate are free."""
    known = facts(Net)
    assert known.is_counted
    assert known.macs == {"body.0": 40, "out": 24}
    assert family(Net).costs(SHAPE, CLASSES)["macs"] == 64

    own = family(partial(resnet18, num_classes=10, norm_layer=partial(nn.GroupNorm, 8)))
    costs = own.costs((3, 32, 32), 10)
    assert costs["params"] == num_params(own.shapes({}, (3, 32, 32), 10))
    assert 37e6 < costs["macs"] < 38e6


def test_what_is_not_counted_is_said_to_be_unknown() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.GRU(1, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self.read(x[..., None])[0][:, -1]
            return outputs

    own = family(Recurrent)
    assert not own.facts(SHAPE, CLASSES).is_counted
    assert set(own.costs(SHAPE, CLASSES)) == {"params", "storage_bytes"}


def test_priors_take_arbitrary_names() -> None:
    shapes = family(Net).shapes({}, SHAPE, CLASSES)
    prior = FanInGaussianPrior(scale=1.0)
    fan_ins = {name: fan_in(name, shapes) for name in shapes}
    assert fan_ins["body.0.weight"] == fan_ins["body.0.bias"] == 5
    assert fan_ins["gate"] == fan_ins["scale"] == fan_ins["norm.bias"] == 1
    # a module that is one layer has no dot in its names
    assert fan_in("bias", {"weight": (3, 5), "bias": (3,)}) == 5

    params = prior.sample(shapes, generator=rng.generator(0, "prior"))
    score = prior.score(params)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    prior.log_density(leaves).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        assert torch.allclose(score[name], leaf.grad), name


def test_files_keep_a_parameter_that_is_called_scale() -> None:
    """As that of a layer may be, beside which no weight of its name has a scale."""
    params = {"block.scale": torch.arange(3.0), "block.read.weight": torch.ones(2, 3)}
    stored = decode(encode(params, "float32"))
    assert stored.keys() == params.keys()
    assert torch.equal(stored["block.scale"], params["block.scale"])


def test_it_can_be_handed_over_before_and_after_it_was_built() -> None:
    own = family(Net)
    shapes = own.shapes({}, SHAPE, CLASSES)
    other = copy.deepcopy(own)  # by what pickling goes by
    x = torch.ones(2, 5)
    params = own.initialize(shapes, generator=rng.generator(0, "any"))
    assert torch.equal(other.forward(params, x), own.forward(params, x))

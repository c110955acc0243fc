"""Fresh draws of the law that a teacher's samples are draws of."""

from collections.abc import Iterator

from gped_nas import rng
from gped_nas.api.asking import check_stored
from gped_nas.api.sampling import posterior_chains
from gped_nas.api.teacher import Teacher
from gped_nas.models.base import Params
from gped_nas.posterior import draws
from gped_nas.posterior.base import ChainConfig, unflatten
from gped_nas.stream.chunks import state_of


def fresh_params(teacher: Teacher, num: int, *, seed: int = 0) -> Iterator[Params]:
    """Named parameters of so many independent draws of the teacher's law, float32.

    None of them is stored. Where fits are stacked, each is chosen as often as it weighs.

    Args:
        teacher: whose stream is built; between draws it is asked whether to stop.
        num: how many draws; with more of them the first ones are the same.
        seed: of them, beside the space's own.

    Raises:
        ConfigError: its samples are not independent draws of a law; the message says why.
        Interrupted: the session said stop.
    """
    space, stream = teacher.space, teacher.stream
    draws.check_law(space.method, f"{space.source}: teacher.method.name")
    check_stored(space, "fresh draws")
    num_fits = space.method.chains if isinstance(space.method, ChainConfig) else 1
    sampled = draws.fresh_draws(
        posterior_chains(space, teacher.dataset, teacher.session),
        [state_of(stream.segments[-1], fit) for fit in range(num_fits)],
        num,
        seed=rng.seed(space.seed, "law", seed),
        weights=stream.calibration.weights,
    )
    for theta_W in sampled:
        teacher.session.raise_if_stopped()
        yield unflatten(theta_W, stream.key.shapes)

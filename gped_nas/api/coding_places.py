"""What codecs are measured of: a study's teacher or a space's, with a teacher a seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gped_nas.api.coding_chains import check_chains
from gped_nas.api.note import is_study
from gped_nas.api.opening import open_study
from gped_nas.api.places import study_space, study_teacher
from gped_nas.api.session import Session
from gped_nas.api.study import Study
from gped_nas.api.teacher import Teacher, load_dataset, sample_teacher
from gped_nas.errors import ConfigError
from gped_nas.models.module import Modules
from gped_nas.search.space import SearchSpace
from gped_nas.search.space_file import load_space


@dataclass(frozen=True, eq=False)
class CodecPlace:
    """See the module.

    Attributes:
        space: of the first seed.
        study: whose teacher it is; None of a space.
        folder: where rows, numbers and page lie.
        make_teacher: the teacher of a seed, sampled where it is not there.
    """

    space: SearchSpace
    study: Study | None
    folder: Path
    make_teacher: Callable[[int], Teacher]


def find_codec_place(
    what: Study | SearchSpace | str | Path,
    *,
    overrides: Mapping[str, Any] | None,
    storage: str | None,
    out: Path,
    session: Session,
    modules: Modules | None,
) -> CodecPlace:
    """Whose posterior is coded; its teacher is refused here where it cannot be.

    Raises:
        ConfigError: its samples cannot be coded or compared, or settings of a study.
        StudyError: the study has no teacher yet.
    """
    study, space = study_or_space(
        what, overrides=overrides, storage=storage, out=out, modules=modules
    )
    check_chains(space)
    if study is not None:
        return _of_study(study, space, session, modules)

    def make_teacher(seed: int) -> Teacher:
        return _sampled(replace(space, seed=seed), session)

    return CodecPlace(space, None, out / f"{space.name}-codec", make_teacher)


def study_or_space(
    what: Study | SearchSpace | str | Path,
    *,
    overrides: Mapping[str, Any] | None,
    storage: str | None,
    out: Path,
    modules: Modules | None,
) -> tuple[Study | None, SearchSpace]:
    """A study, and its space; or a space alone.

    Raises:
        ConfigError: settings of a study, which has its own.
        StudyError: the study has no teacher yet.
    """
    if isinstance(what, str | Path) and is_study(what, out):
        what = open_study(what, storage=storage, out=out)
    if not isinstance(what, Study):
        if isinstance(what, SearchSpace):
            return None, what.with_modules(modules) if modules else what
        return None, load_space(what, overrides, modules=modules)

    if overrides:
        raise ConfigError("--set: found with a study, which has its own; leave it out")
    return what, study_space(what, modules)


def _of_study(
    study: Study, space: SearchSpace, session: Session, modules: Modules | None
) -> CodecPlace:
    def make_teacher(seed: int) -> Teacher:
        if seed == space.seed:
            return study_teacher(study, session, modules)
        return _sampled(replace(space, seed=seed), session)

    return CodecPlace(space, study, study.path / "codec", make_teacher)


def _sampled(space: SearchSpace, session: Session) -> Teacher:
    dataset = load_dataset(space)
    space = space.with_facts(dataset.input_shape, dataset.num_outputs)
    return sample_teacher(space, session, dataset=dataset)

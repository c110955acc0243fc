"""Whether a user's module can be built in another process, which has none of this one's objects."""

from multiprocessing.reduction import ForkingPickler

from gped_nas.api.session import Session
from gped_nas.errors import ConfigError
from gped_nas.models.module import ModuleFamily
from gped_nas.search.space import SearchSpace
from gped_nas.stream.processes import without_script


def check_sendable(space: SearchSpace, setting: str) -> None:
    """Refuse a module that other processes cannot build.

    Args:
        space: whose teacher may be a module.
        setting: what asks for another process, for the message.

    Raises:
        ConfigError: it cannot be handed to one.
    """
    module = space.module
    reason = None if module is None else _obstacle(module)
    if module is not None and reason is not None:
        raise ConfigError(
            f"{space.source}: {setting}: found the module '{module.module_name}', which another "
            f"process cannot build ({reason}), expected a function that is defined at the top of "
            "an importable file, no lambda, closure or function of the script itself; give one, or "
            f"leave {setting} out"
        )


def processes_that_can_build(space: SearchSpace, session: Session, processes: int) -> int:
    """How many processes run chains: one where others cannot build the teacher's module.

    Args:
        space: of the teacher.
        session: says whether somebody asked for processes.
        processes: how many there would be.

    Raises:
        ConfigError: they were asked for.
    """
    if space.module is None or _obstacle(space.module) is None:
        return processes
    if session.processes is not None:
        check_sendable(space, "--processes")
    return 1


def _obstacle(module: ModuleFamily) -> str | None:
    """Why a module cannot be handed to another process; None where it can."""
    try:
        with without_script():  # a function of the user's script is not there
            ForkingPickler.dumps(module)
    except Exception as error:  # what cannot be pickled says so by many classes
        return str(error).splitlines()[0]
    return None

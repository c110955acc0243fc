"""Which folder a study belongs to: one at a time, and whoever works there holds its fence.

A study in a storage and the folder with its students are one thing. The storage has the binding, a
system attribute of the study, ``gped:home``; the folder has its identity in ``study.json``. Before
a run writes anything it looks at both, and at the folder that the binding names:

===================  ====================  =============  ==========================================
storage              identity is bound     bound folder   then
===================  ====================  =============  ==========================================
anywhere             yes                   this one       same: goes on
in this folder       yes or no             another        copied: each is a study of its own
in this folder       yes or no             gone, unseen   moved: bound anew
elsewhere            yes                   gone, unseen   moved, unless somebody is at work there
elsewhere            no                    gone           moved, likewise
elsewhere            yes or no             another        refused; adopted if asked for
elsewhere            no                    unseen         refused; adopted if asked for
===================  ====================  =============  ==========================================

A folder that holds another study is refused whatever is asked for.

Each run raises the fencing number and writes under its own: a process that was paused for an hour,
or that works in a folder which lost the study, is refused at its next write (``search.fence``).
Nothing here reads a clock, a storage or a folder, so that every order of events can be tried.
"""

from dataclasses import dataclass
from typing import Literal

from gped_nas.search.document import Stored
from gped_nas.search.owners import Owner
from gped_nas.search.rows import LEASE_S, Refusal

HOME = "gped:home"

Sight = Literal["here", "there", "gone", "unseen"]
"""What is seen of the bound folder: it is this one, another one that is there, nothing at its path,
or nothing because its path is on another machine."""
Decision = Literal["new", "same", "moved", "copied", "adopted"]


class Binding(Stored):
    """What the storage says of a study's folder.

    Attributes:
        version: of this model.
        study: identity of the study; two of one name have different ones.
        name: of the study, for Optuna copies attributes from one study to another.
        folder: identity of the folder.
        path, host: where the folder was last seen.
        fence: raised by each run; who has a lower number may not write any more.
        holder: the process that works there; None for nobody.
        renewed: its last sign of life, by the storage's clock.
    """

    version: Literal[1] = 1
    study: str
    name: str
    folder: str
    path: str
    host: str
    fence: int
    holder: Owner | None = None
    renewed: float = 0.0

    def is_held(self, here: Owner, now: float) -> bool:
        """Whether another process may be at work, as ``here`` sees it."""
        if self.holder is None or self.holder.is_gone(here):
            return False
        return now - self.renewed <= LEASE_S

    @property
    def place(self) -> str:
        """The folder for people."""
        return f"{self.path} on {self.host}"


@dataclass(frozen=True)
class Folder:
    """A folder that wants to go on with a study.

    Attributes:
        identity: the name that it keeps wherever it lies; empty for none.
        study: identity of the study that it holds; empty for none, or if it does not say.
        has_storage: whether the study's storage lies in it.
    """

    identity: str = ""
    study: str = ""
    has_storage: bool = False


def decide(
    binding: Binding | None,
    folder: Folder,
    sight: Sight,
    *,
    is_held: bool = False,
    adopts: bool = False,
) -> Decision | Refusal:
    """What becomes of a study when a run starts in a folder; see the module.

    Args:
        binding: what the storage says; None where no folder was bound yet.
        folder: where the run starts.
        sight: what is seen of the bound folder.
        is_held: whether a process may be at work in the bound folder.
        adopts: whether the user asked to take the study over.
    """
    if folder.study and (binding is None or folder.study != binding.study):
        return Refusal("this folder holds another study")
    if binding is None:
        return "new"

    is_bound = folder.identity == binding.folder
    if is_bound and sight == "here":
        return "same"
    if folder.has_storage:
        return "copied" if sight == "there" else "moved"
    if adopts:
        return "adopted"

    may_move = sight in ("gone", "here") or (is_bound and sight == "unseen")
    if not may_move:
        return Refusal(f"it belongs to the folder {binding.place}")
    if is_held and sight != "here":
        return Refusal(f"a process works on it in the folder {binding.place}")
    return "moved"

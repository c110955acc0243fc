"""How examples are split: a part is carved by one seeded permutation.

Splits belong to the dataset. Validation is carved from the training part, so that a larger
validation part contains every smaller one; a test part is carved first in the same way where the
source has none.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gped_nas import rng
from gped_nas.data.groups import choose_groups
from gped_nas.errors import DataError

Part = Literal["train", "validation", "test", "calibration", "unlabeled", "distillation"]
"""``calibration`` is empty unless ``data: {calibration_share: ...}`` asks for it."""
SplitRule = Literal["random", "stratified"]
"""``stratified`` carves the same fraction of each class."""


@dataclass(frozen=True, eq=False)
class Split:
    """Raw inputs ``x``, shape (N, *input_shape), in the source's dtype; labels ``y``, shape (N,).

    Labels are int64 class numbers, or float64 numbers in the source's own unit. Examples of one
    ``group``, an int64 number (N,), belong together: pictures of one patient, for example.
    """

    x: Tensor
    y: Tensor
    group: Tensor | None = None

    def take(self, index: Tensor) -> "Split":
        """The examples at ``index``, row numbers or a mask."""
        group = None if self.group is None else self.group[index]
        return Split(self.x[index], self.y[index], group)

    def __len__(self) -> int:
        return len(self.x)


def carve(
    source: Split,
    fraction: float,
    *,
    seed: int,
    part: Part,
    where: str,
    rule: SplitRule = "random",
) -> tuple[Split, Split]:
    """Take a fraction of the examples away: ``(carved, rest)``.

    The examples stand in the order of one permutation, which ``seed``, ``part`` and their number
    fix. The first ones are carved; stratified, the first ones of each class, at least one and not
    all where a class has several. So a larger fraction contains a smaller one. The rest keeps its
    order. Groups are carved whole, see ``groups.choose_groups``.

    Args:
        source: the examples to take from; stratified ones have classes for labels.
        fraction: of them, above 0 and below 1.
        seed: root of the permutation.
        part: what the carved examples will be.
        where: file or folder of the source, for messages.
        rule: how they are drawn.

    Raises:
        DataError: either side would be empty.
    """
    nothing_seen = torch.zeros(len(source), dtype=torch.bool)
    carved, rest, _ = carve_unseen(
        source, fraction, nothing_seen, seed=seed, part=part, where=where, rule=rule
    )
    return carved, rest


def carve_unseen(
    source: Split,
    fraction: float,
    seen_N: Tensor,
    *,
    seed: int,
    part: Part,
    where: str,
    rule: SplitRule = "random",
) -> tuple[Split, Split, Tensor]:
    """As ``carve``, from examples that were not seen: ``(carved, rest, which of the rest were)``.

    They come first in the order. Where they are fewer than the fraction asks for, all of them are
    carved and no more.

    Args:
        source, fraction, seed, part, where, rule: as of ``carve``.
        seen_N: which examples somebody else's teacher was trained on, bool.

    Raises:
        DataError: either side would be empty.
    """
    total = len(source)
    order = torch.randperm(total, generator=rng.generator(seed, "split", part))
    order = torch.cat([order[~seen_N[order]], order[seen_N[order]]])
    if source.group is not None:
        strata = source.y if rule == "stratified" else torch.zeros_like(source.y)
        is_carved = choose_groups(source.group[order], strata[order], fraction, seen_N[order])
    elif rule == "stratified":
        is_carved = _first_of_each_class(source.y[order], fraction)
    else:
        is_carved = torch.arange(total) < round(total * fraction)
    is_carved &= ~seen_N[order]

    num = int(is_carved.sum())
    if not 0 < num < total:
        unseen = int((~seen_N).sum())
        of_unseen = f", of which {unseen} are unseen by the teacher," if unseen < total else ""
        if source.group is not None:
            num_groups = len(set(source.group.tolist()))
            of_unseen += f" in {num_groups} groups that are kept together"
        raise DataError(
            f"{where}: {part}: {fraction:g} of {total} examples{of_unseen} is {num}, expected at "
            f"least 1 and fewer than {total}; bring more examples or change the fraction '{part}'"
        )

    carved = order[is_carved]
    rest = order[~is_carved].sort().values
    return source.take(carved), source.take(rest), seen_N[rest]


def _first_of_each_class(labels: Tensor, fraction: float) -> Tensor:
    """Mask (N,) of the first examples of each class, as many as the fraction says."""
    is_first = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():  # type: ignore[no-untyped-call]
        places = (labels == label).nonzero().squeeze(1)
        num = round(len(places) * fraction)
        if len(places) > 1:
            num = min(max(num, 1), len(places) - 1)
        is_first[places[:num]] = True
    return is_first


def describe_absent(parts: dict[str, Split], class_names: tuple[str, ...]) -> tuple[str, ...]:
    """One sentence for each part that has no example of some class; none for real labels."""
    if not class_names:
        return ()

    sentences = []
    for name, split in parts.items():
        counts = torch.bincount(split.y, minlength=len(class_names))
        absent = [class_names[index] for index in (counts == 0).nonzero().flatten().tolist()]
        if absent:
            listed = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            sentences.append(
                f"The {name} part has no example of {len(absent)} of {len(class_names)} classes: "
                f"{listed}."
            )
    return tuple(sentences)

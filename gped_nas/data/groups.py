"""Examples that belong together, and are kept together where parts are carved.

Several pictures of one patient, or several minutes of one recording, are alike: a student that has
seen some of them knows the others.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gped_nas.errors import DataError
from gped_nas.io import Array


def number_groups(groups: Mapping[str, Array], where: str) -> dict[str, Tensor]:
    """Group numbers (N,), int64, of each array; the same value has the same number in all of them.

    Args:
        groups: whole numbers, truth values or text (N,), by name.
        where: the file, for messages.

    Raises:
        DataError: an array of another kind or shape, or a value that is missing.
    """
    if not groups:
        return {}
    texts = {name: _as_text(array, f"{where}: {name}") for name, array in groups.items()}
    values = np.unique(np.concatenate(list(texts.values())))
    return {
        name: torch.from_numpy(np.searchsorted(values, text).astype(np.int64))
        for name, text in texts.items()
    }


def _as_text(array: Array, where: str) -> Array:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where}: found shape {array.shape}, expected (N,), one group an example")

    if array.dtype.kind == "f" and (array == np.rint(array)).all():
        array = array.astype(np.int64)
    is_text = array.dtype.kind == "O" and all(isinstance(value, str) for value in array)
    if array.dtype.kind not in "biuU" and not is_text:
        raise DataError(
            f"{where}: found {array.dtype} that are missing, or no whole numbers or text, expected "
            "the name or number of a group for each example; fill them in"
        )
    return array.astype(str)


def choose_groups(group_N: Tensor, stratum_N: Tensor, fraction: float, barred_N: Tensor) -> Tensor:
    """Mask (N,) of the examples of some groups, about a fraction of each stratum.

    Groups are looked at in the order of their first examples. One is taken if that brings the
    numbers nearer to those that are wanted, in squares relative to these: so a class that lies in
    one group alone stays with the rest. At least one group is taken, and at least one is left.

    Args:
        group_N: which group each example is of.
        stratum_N: its class, or one number for all.
        fraction: of the examples that is wanted.
        barred_N: examples whose groups are not taken.
    """
    _, stratum_N = stratum_N.unique(return_inverse=True)  # type: ignore[no-untyped-call]
    num_strata = int(stratum_N.max()) + 1
    wanted = fraction * torch.bincount(stratum_N, minlength=num_strata).double()
    missing = wanted.clone()

    groups = list(dict.fromkeys(group_N.tolist()))
    barred = set(group_N[barred_N].tolist())
    free = [group for group in groups if group not in barred]
    taken: list[int] = []
    nearest_group, nearest_distance = None, float("inf")
    for group in free:
        counts = torch.bincount(stratum_N[group_N == group], minlength=num_strata).double()
        before = float((missing.square() / wanted).sum())
        after = float(((missing - counts).square() / wanted).sum())
        if after < before and len(taken) < len(groups) - 1:
            taken.append(group)
            missing -= counts
        if after < nearest_distance:
            nearest_group, nearest_distance = group, after

    if not taken and nearest_group is not None and len(groups) > 1:
        taken = [nearest_group]
    return torch.isin(group_N, torch.tensor(taken, dtype=torch.int64))


def describe_shared(parts: Mapping[str, Tensor | None]) -> tuple[str, ...]:
    """One sentence for each two parts that share groups, which only parts as given can.

    Args:
        parts: group numbers of each part's examples; None where they have none.
    """
    sentences = []
    names = list(parts)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            group, other = parts[first], parts[second]
            if group is None or other is None:
                continue
            shared = set(group.tolist()) & set(other.tolist())
            if shared:
                num = int(torch.isin(other, torch.tensor(sorted(shared))).sum())
                sentences.append(
                    f"The {first} and the {second} part share {len(shared)} groups, of which are "
                    f"{num} of the {len(other)} {second} examples: what is measured there is "
                    "better than what is to be expected of new groups."
                )
    return tuple(sentences)

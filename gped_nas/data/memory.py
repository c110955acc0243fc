"""How much memory the inputs of a dataset take while a study runs."""

from gped_nas.data import rows
from gped_nas.data.base import Dataset, Part
from gped_nas.data.rows import is_on_disk, num_bytes


def describe_memory(dataset: Dataset) -> str:
    """What is held as it was read, what is made of it as float32, and what stays in its file."""
    held = 0
    stored = 0
    parts: tuple[Part, ...] = ("train", *dataset.held_out, "unlabeled")
    for part in parts:
        raw = dataset.raw(part)
        if is_on_disk(raw):
            stored += num_bytes(raw)
        else:
            held += num_bytes(raw)

    # what is larger is made a batch at a time
    made = 0
    for part in (*parts, "distillation"):
        size = 4 * dataset.raw(part).numel()
        if size <= rows.IN_MEMORY:
            made = max(made, size)
    text = f"{_in_words(held)} as they are, up to {_in_words(made)} a view as float32"
    return f"{text}; {_in_words(stored)} stay in their file" if stored else text


def _in_words(num: int) -> str:
    if num < 2**20:
        return f"{num / 2**10:,.1f} KiB"
    return f"{num / 2**20:,.1f} MiB"

"""The sealed segments of a stream's folder, in order and without a gap."""

from pathlib import Path

from gped_nas.errors import StreamError
from gped_nas.stream.format import Sealed


def segment_folders(folder: Path) -> list[Path]:
    """The sealed segments of a stream's folder, in order."""
    return sorted(p for p in (folder / "segments").glob("[0-9]*") if p.is_dir())


def has_averages(folder: Path) -> bool:
    """Whether a stream's folder holds averages that were kept without samples."""
    return any((folder / "averages").glob("[!.]*"))


def sealed_segments(folder: Path, stream: str) -> list[Sealed]:
    """The sealed segments of a stream's folder, opened, in order.

    Args:
        folder: the stream's folder.
        stream: the key's full digest.

    Raises:
        StreamError: one is corrupt, of another stream or kind, or one before it is missing.
    """
    segments: list[Sealed] = []
    next_sample = 0

    for index, path in enumerate(segment_folders(folder)):
        segment = Sealed(path, stream)
        manifest = segment.manifest

        if path.name != f"{index:06d}" or manifest.first_sample != next_sample:
            raise StreamError(
                f"{path}: a segment before it is missing; delete {folder} to rebuild it"
            )

        # a stream holds parameters or predictions, never both
        kinds = {segments[0].manifest.kind} if segments else {"weights", "predictions"}
        if manifest.kind not in kinds:
            raise StreamError(
                f"{path / 'manifest.json'}: no segment of kind '{manifest.kind}' belongs here; "
                f"delete {folder} to rebuild it"
            )

        segments.append(segment)
        next_sample += manifest.num_samples

    return segments

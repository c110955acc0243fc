"""Ways to damage the folder of a stream, drawn by a seed.

Each mutation changes one thing, as rot, a careless copy or a hostile hand would, and says which
paths it changed. What takes two consistent forgeries (a shard and its digest in the manifest) is
none of these: a study pins the digests.
"""

import contextlib
import json
import os
import random
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scene:
    """What a mutation works on.

    Attributes:
        folder: the stream to damage; a copy.
        other: another stream of the same shapes, to take parts from.
        outside: an empty folder outside every stream.
        draw: what is drawn from.
    """

    folder: Path
    other: Path
    outside: Path
    draw: random.Random

    def file(self, pattern: str = "**/*") -> Path:
        """One of the stream's files; ``lock`` holds nothing, so it is none of them."""
        files = [path for path in sorted(self.folder.glob(pattern)) if path.is_file()]
        return self.draw.choice([path for path in files if path.name != "lock"])

    def inner(self) -> Path:
        """One of the stream's folders, itself not among them."""
        return self.draw.choice([p for p in sorted(self.folder.rglob("*")) if p.is_dir()])


Mutation = Callable[[Scene], list[Path]]
NUMBERS = [-1, 0, 1, 2, 3, 2**31, 2**63, 2**64, 10**400, -(2**63), 0.5, 1e308, 4.0]
SHAPES = [[2**62, 2**62], [0, 2**63], [-4, -43], [1] * 70, [1] * 20_000, [0.5, 3], ["4", 43]]
CONTAINERS = [[], {}, [[]], [None], [True], {"a": {}}]
PATHS = ["../../key.json", "/etc/passwd", "params-000000.npy\n", "..", "a\0b", "\ud800"]
FILES = ["a" * 300 + "-000000.npy", "params-000001.npy", "log_prob-000000.npy"]
DTYPES = ["|O", "<f8", ">f4", "<i4", "<c8"]
TEXTS = ["", "4", "x" * 100_000, "0" * 64, "nonsense"]
HOSTILE: list[Any] = [
    *(True, None),
    *NUMBERS,
    *SHAPES,
    *CONTAINERS,
    *PATHS,
    *FILES,
    *DTYPES,
    *TEXTS,
]
"""What an entry of a manifest is changed to."""

_HUGE = b"9223372036854775807"
HEADERS = (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 43), }",
    b"{'descr': '<f4', 'fortran_order': True, 'shape': (4, 43), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -43), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + _HUGE + b", " + _HUGE + b"), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 1180591620717411303424), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4.0, 43), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b"1, " * 900 + b"), }",
    b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 43), }",
    b"{'descr': 'a4', 'fortran_order': False, 'shape': (4, 43), }",
    b"{'descr': '\\d<f4', 'fortran_order': False, 'shape': (4, 43), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (4L, 43), }",
    b"__import__('os').abort()",
    b"(" * 3000,
    b"{" * 300,
    b"",
)


def _flip(scene: Scene) -> list[Path]:
    path = scene.file()
    content = bytearray(path.read_bytes())
    for _ in range(scene.draw.choice((1, 1, 2, 20))):
        # most often in the header
        end = min(len(content), scene.draw.choice((16, 130, len(content))))
        content[scene.draw.randrange(end)] ^= 1 << scene.draw.randrange(8)
    path.write_bytes(content)
    return [path]


def _overwrite(scene: Scene) -> list[Path]:
    path = scene.file()
    content = bytearray(path.read_bytes())
    start = scene.draw.randrange(len(content))
    stop = min(len(content), start + scene.draw.choice((1, 8, 64, len(content))))
    byte = scene.draw.choice((b"\0", b"\xff", b"\\", b"'", b"9"))
    content[start:stop] = byte * (stop - start)
    path.write_bytes(content)
    return [path]


def _truncate(scene: Scene) -> list[Path]:
    path = scene.file()
    size = path.stat().st_size
    anywhere = scene.draw.randrange(size)
    new_size = scene.draw.choice((0, 1, 6, 10, 127, 128, size // 2, size - 1, anywhere))
    os.truncate(path, new_size % size)
    return [path]


def _extend(scene: Scene) -> list[Path]:
    path = scene.file()
    if scene.draw.random() < 0.2:
        # a hole: hostile in size, cheap to make
        os.truncate(path, scene.draw.choice((2**24, 2**40)))
    else:
        with path.open("ab") as file:
            file.write(scene.draw.choice((b"\0", b" ", b"\n", b"{}", scene.draw.randbytes(500))))
    return [path]


def _swap(scene: Scene) -> list[Path]:
    a = scene.file()
    b = scene.file()
    content_of_a = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content_of_a)
    return [a, b]


def _from_other_file(scene: Scene) -> list[Path]:
    path = scene.file("[sv]*/**/*")
    source = scene.other / path.relative_to(scene.folder)
    if not source.exists():
        source = scene.draw.choice(sorted(scene.other.rglob("*.npy")))
    path.write_bytes(source.read_bytes())
    return [path]


def _from_other_folder(scene: Scene) -> list[Path]:
    folders: list[Path] = []
    for pattern in ("segments/0*", "views/*", "views/*/0*", "derived"):
        folders += sorted(scene.folder.glob(pattern))
    path = scene.draw.choice(folders)
    twin = scene.other / path.relative_to(scene.folder)
    shutil.rmtree(path)
    if twin.exists():
        shutil.copytree(twin, path)
    return [path]


def entries(value: Any) -> list[tuple[Any, Any]]:
    """Every ``(container, key)`` of a JSON value."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))

    places = [(value, key) for key in keys]
    for key in keys:
        places += entries(value[key])
    return places


def edit(scene: Scene, pattern: str) -> list[Path]:
    path = scene.file(pattern)
    data = json.loads(path.read_text())
    container, key = scene.draw.choice(entries(data))

    chance = scene.draw.random()
    if chance < 0.6:
        container[key] = scene.draw.choice(HOSTILE)
    elif chance < 0.7 and isinstance(container[key], int):
        container[key] += scene.draw.choice((-1, 1))
    elif chance < 0.8:
        del container[key]
    elif isinstance(container, dict):
        container[f"{key}_"] = container[key]
    else:
        container.append(container[key])

    path.write_text(json.dumps(data))
    return [path]


def _edit_manifest(scene: Scene) -> list[Path]:
    return edit(scene, "[sv]*/**/manifest.json")


def _edit_key(scene: Scene) -> list[Path]:
    return edit(scene, "key.json")


def _edit_note(scene: Scene) -> list[Path]:
    return edit(scene, "derived/*.json")


def _hostile_json(scene: Scene) -> list[Path]:
    path = scene.file("**/*.json")
    text = path.read_text().strip()
    head, _, tail = text.partition(":")
    texts = [
        "[" * 100_000,
        '{"a":' * 100_000,
        "1" * 5000,
        "NaN",
        "1e999",
        "",
        "\ufeff" + text,
        "[" + "[]," * 30_000,
        # so deep that one reader manages and another does not
        f"{head}:{'[' * 940}{']' * 940},{tail}",
        # every key twice
        text[:-1] + "," + text[1:],
        text.replace(":", ": "),
    ]
    path.write_text(scene.draw.choice(texts))
    return [path]


def _npy_header(scene: Scene) -> list[Path]:
    path = scene.file("**/*.npy")
    content = path.read_bytes()
    header = scene.draw.choice(HEADERS)
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    declared = scene.draw.choice((len(header), len(header), 0, 65_535))
    magic = b"\x93NUMPY" + bytes((scene.draw.choice((1, 1, 2, 9)), 0))
    path.write_bytes(magic + declared.to_bytes(2, "little") + header + content[128:])
    return [path]


def _remove_folder(scene: Scene) -> list[Path]:
    path = scene.inner()
    shutil.rmtree(path)
    return [path]


def _remove_file(scene: Scene) -> list[Path]:
    path = scene.file()
    path.unlink()
    return [path]


def _double(scene: Scene) -> list[Path]:
    path = scene.inner()
    name = scene.draw.choice((f"{path.name}x", f".{path.name}", "000002", "000000~", "999999", "1"))
    twin = path.with_name(name)
    if not twin.exists():
        shutil.copytree(path, twin)
    return [path, twin]


def _over_another(scene: Scene) -> list[Path]:
    """A view, a segment or a derived file over another of its kind."""
    pattern = scene.draw.choice(("views/*", "views/*/0*", "segments/0*"))
    a, b = scene.draw.sample(sorted(scene.folder.glob(pattern)), 2)
    shutil.rmtree(b)
    shutil.copytree(a, b)
    return [b]


def _derived_over_another(scene: Scene) -> list[Path]:
    """Array and note of one expectation over those of another."""
    a, b = scene.draw.sample(sorted(scene.folder.glob("derived/*.npy")), 2)
    changed = [b.with_suffix(suffix) for suffix in (".npy", ".json")]
    for path in changed:
        shutil.copy(a.with_suffix(path.suffix), path)
    return changed


def _link(scene: Scene) -> list[Path]:
    path = scene.draw.choice((scene.file(), scene.inner()))
    moved = scene.outside / "moved"
    absent = scene.outside / "absent"
    path.rename(moved)
    ends = (moved, moved, scene.outside, absent, path, Path("/dev/zero"), scene.other)
    path.symlink_to(scene.draw.choice(ends))
    return [path]


def _special(scene: Scene) -> list[Path]:
    """Something that blocks or never ends where a file or a folder was."""
    path = scene.draw.choice((scene.file(), scene.inner()))
    path.rename(scene.outside / "moved")

    kind = scene.draw.choice(("fifo", "fifo", "socket", "folder", "file"))
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        # the path of a socket has to be short
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"a file")
    return [path]


MUTATIONS: dict[str, Mutation] = {
    "flip bits": _flip,
    "overwrite": _overwrite,
    "truncate": _truncate,
    "extend": _extend,
    "swap two files": _swap,
    "a file of another stream": _from_other_file,
    "a folder of another stream": _from_other_folder,
    "edit a manifest": _edit_manifest,
    "edit the key": _edit_key,
    "edit a derived note": _edit_note,
    "hostile JSON": _hostile_json,
    "hostile npy header": _npy_header,
    "remove a folder": _remove_folder,
    "remove a file": _remove_file,
    "double a folder": _double,
    "a folder over another": _over_another,
    "a derived pair over another": _derived_over_another,
    "a link": _link,
    "no plain file": _special,
}
"""Name to mutation; manifests come up most often, since they say what everything else is."""

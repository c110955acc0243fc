"""The pages of the documentation and their fenced blocks, as the tests of this folder read them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the page it is on.
        line: where its text starts.
        kind: ``python``, ``console``, ``yaml``, or ``drawing`` for what no program reads.
        text: what is between the fences.
        mark: why it is not run, by the HTML comment above it; empty where there is none.
    """

    page: str
    line: int
    kind: str
    text: str
    mark: str

    @property
    def commands(self) -> list[str]:
        """The commands of a console block: what follows a prompt."""
        joined = self.text.replace("\\\n", " ")  # a backslash continues a line
        return re.findall(r"^\$ (.+)$", joined, re.MULTILINE)


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page in order."""
    text = PAGES[page].read_text()
    blocks = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        body = match[2]
        mark = _MARK.search(before)
        block = Block(
            page=page,
            line=before.count("\n") + 2,
            kind=_kind(match[1], body),
            text=body,
            mark=mark[1] if mark else "",
        )
        blocks.append(block)
    return blocks


def _kind(language: str, body: str) -> str:
    if language in ("python", "yaml"):
        return language
    if language in ("console", "bash") or body.startswith("$ "):
        return "console"
    assert not language, f"a block in {language}; expected python, console, bash, yaml or none"
    return "drawing"

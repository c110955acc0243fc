"""Untrusted texts as they may stand in Markdown.

Names of studies, spaces, data sets and classes are users' own.
"""

import unicodedata

LIMIT = 200
"""Characters of a text that are shown; a name can be as long as its author likes."""
_MARKDOWN = frozenset("\\`*_{}[]()#+-.!|~:")
_BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)


def visible(text: str, limit: int = LIMIT) -> str:
    """A text on one line of at most ``limit`` characters, with nothing hidden in it.

    Marks that turn the direction of writing and control characters become ``<U+202E>``: they would
    reorder or hide their neighbors.
    """
    line = " ".join(text.split())
    if len(line) > limit:
        line = f"{line[:limit]}…"
    return spelled_out(line)


def spelled_out(text: str) -> str:
    """A text whole, its control characters and marks of direction spelled out: ``<U+202E>``."""
    return "".join(f"<U+{ord(c):04X}>" if _is_hidden(c) else c for c in text)


def as_markdown(text: str, limit: int = LIMIT) -> str:
    """A text as Markdown that reads the same: no links, no images, no HTML, no formatting."""
    marked = "".join(f"\\{c}" if c in _MARKDOWN else c for c in visible(text, limit))
    return without_html(marked)


def without_html(markdown: str) -> str:
    """Markdown whose HTML is shown, never obeyed."""
    return markdown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_hidden(character: str) -> bool:
    return character in _BIDIRECTIONAL or unicodedata.category(character) in ("Cc", "Cs")

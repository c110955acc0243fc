"""Shipped spaces whose settings may not change: what older studies and figures hang on."""

import pytest

import gped_nas as gn
from gped_nas.api.identity import identity

# Of digits_mlp and fashion_mlp as they were shipped first, computed by the version before there
# were spaces of these names.
EARLIER = {
    "digits_sgld": {
        "students": "d62e07c7a746796c",
        "objectives": "f63860308bd20688",
        "constraints": "44136fa355b3678a",
        "views": "b21e8c876979fddc",
        "targets": "95ffccb047cb21f7",
        "recipe": "851effb6f911e877",
        "seed": "5feceb66ffc86f38",
        "teacher and dataset (the stream)": "52a7d38cbd0ab0f8",
    },
    "fashion_sgld": {
        "students": "582c6b5f80582e46",
        "objectives": "f63860308bd20688",
        "constraints": "44136fa355b3678a",
        "views": "1815ea27612171f0",
        "targets": "95ffccb047cb21f7",
        "recipe": "b35dea0c62ea6fb0",
        "seed": "5feceb66ffc86f38",
        "teacher and dataset (the stream)": "b39c5be8b57e06a2",
    },
}


@pytest.mark.parametrize("name", EARLIER)
def test_the_spaces_of_chains_are_what_was_shipped_first(name: str) -> None:
    assert identity(gn.load_space(name), "stream") == EARLIER[name]

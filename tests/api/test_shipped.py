"""Shipped spaces whose settings may not change: what older studies and figures hang on."""

import pytest

import gped_nas as gn
from gped_nas.api.identity import identity
from tests.api.test_surface import OVERRIDES
from tests.cli.harness import Home, accepted, refused

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


def test_a_study_of_the_earlier_settings_is_refused_by_name_and_goes_on_with_them(
    home: Home,
) -> None:
    """As docs/moving.md says."""
    earlier = gn.load_space("digits_sgld", {**OVERRIDES, "name": "digits_mlp"})
    study = gn.run(earlier, seed=0)
    assert len(gn.open_study("digits_mlp").records()) == len(study.records()) == 3

    words = [word for key, value in OVERRIDES.items() for word in ("--set", f"{key}={value}")]
    says = ("made with other settings", "teacher and dataset (the stream)", "--study-name")
    refused(4, "run", "digits_mlp", says=says)

    accepted("run", "digits_sgld", "--study-name", "digits_mlp", "--n-trials", "4", *words)
    assert sum(record.is_counted for record in gn.open_study("digits_mlp").records()) == 4

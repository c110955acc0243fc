import subprocess
import sys

import pytest

from gped_nas.data.base import DATASETS
from gped_nas.errors import RegistryError
from gped_nas.models.base import FAMILIES
from gped_nas.posterior.base import METHODS
from gped_nas.registry import Registry


def empty(kind="color"):
    registry = Registry(kind, "gped_nas.models")
    for name in ("red", "green", "blue"):
        registry.register(name)(name.upper())
    return registry


def test_it_is_a_mapping_in_the_order_of_names():
    registry = empty()
    assert list(registry) == ["blue", "green", "red"]
    assert len(registry) == 3
    assert dict(registry) == {"blue": "BLUE", "green": "GREEN", "red": "RED"}
    assert registry.get("pink") is None


def test_in_works():
    assert "red" in empty()
    assert "pink" not in empty()
    assert 3 not in empty()


def test_an_unknown_name_names_the_nearest_and_is_a_key_error():
    with pytest.raises(RegistryError, match="^unknown color 'gren'; did you mean 'green'\\?$"):
        empty()["gren"]
    with pytest.raises(KeyError, match="expected one of: blue, green, red"):
        empty()["xyz"]


def test_a_name_is_registered_once():
    registry = empty()
    with pytest.raises(RegistryError, match="color 'red' is registered twice"):
        registry.register("red")("again")
    assert registry["red"] == "RED"


def test_registering_gives_back_what_was_registered():
    registry = Registry("function", "gped_nas.models")

    @registry.register("double")
    def double(x):
        return 2 * x

    assert double(2) == 4
    assert registry["double"] is double


def test_built_in_components_are_there_without_importing_them():
    code = "from gped_nas.posterior.base import METHODS; print(','.join(METHODS))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.strip().split(",")) >= {"sgld", "map", "import"}
    assert "mlp" in FAMILIES
    assert "digits" in DATASETS
    assert METHODS["sgld"].config.__name__ == "SgldConfig"


def test_what_is_there_is_found_without_importing_the_others():
    """Opening a stream would else import every posterior method."""
    registry = Registry("color", "no.such.package")
    registry.register("red")("RED")
    assert registry["red"] == "RED" and "red" in registry
    with pytest.raises(ModuleNotFoundError, match="no"):
        registry.get("green")


def test_plugins_are_loaded_with_the_first_look(monkeypatch):
    from gped_nas import registry as module

    registry = Registry("color", "gped_nas.models")

    class Entry:
        def load(self):
            registry.register("violet")("V")

    monkeypatch.setattr(module, "_plugins_loaded", False)
    monkeypatch.setattr(
        module, "entry_points", lambda group: [Entry()] if group == "gped_nas.plugins" else []
    )
    assert "violet" in registry
    assert list(registry) == ["violet"]

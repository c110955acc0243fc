"""Names that are looked up, names that are refused, and plug-ins."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from gped_nas import registry as module
from gped_nas.data.base import DATASETS
from gped_nas.data.views import POLICIES
from gped_nas.errors import ConfigError, EnvironmentProblem, EnvironmentWarning, RegistryError
from gped_nas.models.base import FAMILIES
from gped_nas.models.mlp import Mlp
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.strip().split(",")) >= {"sgld", "map", "import"}
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


class Entry:
    """An entry point, as far as the registry reads it."""

    def __init__(self, name, load):
        self.name = name
        self.value = f"package_{name}.gped"
        self._load = load

    def load(self):
        self._load()


@pytest.fixture
def plugins(monkeypatch):
    """Pretend that these are the installed plug-ins, none of them loaded yet, and no registry."""
    monkeypatch.setattr(module, "_REGISTRIES", [])

    def install(*entries):
        def entry_points(group):
            return entries if group == "gped_nas.plugins" else ()

        monkeypatch.setattr(module, "_PLUGINS", module._Plugins())
        monkeypatch.setattr(module, "entry_points", entry_points)

    return install


def test_plugins_are_loaded_with_the_first_look(plugins):
    registry = Registry("color", "gped_nas.models")
    plugins(Entry("mine", lambda: registry.register("violet")("V")))
    assert "violet" in registry
    assert list(registry) == ["violet"]


def test_two_plugins_that_take_the_same_name_are_both_named(plugins):
    registry = Registry("color", "gped_nas.models")
    plugins(
        Entry("a", lambda: registry.register("violet")("V")),
        Entry("b", lambda: registry.register("violet")("W")),
    )

    expected = (
        r"plug-in 'b' \(package_b.gped\): cannot be loaded: RegistryError: color 'violet' is "
        r"registered twice, by plug-in 'a' \(package_a.gped\) and by plug-in 'b' "
        r"\(package_b.gped\); choose another name; this run goes on without it"
    )
    with pytest.warns(EnvironmentWarning, match=expected):
        assert registry["violet"] == "V"


@pytest.mark.parametrize("error", [ImportError("No module named 'jax'"), SystemExit(0)])
def test_a_plugin_that_cannot_be_imported_is_named_and_left_out_whole(plugins, error):
    registry = Registry("color", "gped_nas.models")

    def fail():
        registry.register("half")("H")
        raise error

    plugins(Entry("mine", fail), Entry("good", lambda: registry.register("violet")("V")))
    named = f"plug-in 'mine' .*cannot be loaded: {type(error).__name__}: {error}"
    with pytest.warns(EnvironmentWarning, match=named):
        assert list(registry) == ["violet"]

    assert "half" not in registry
    for look_up in (lambda: registry["half"], lambda: registry.find("half", "a.yaml: color")):
        with pytest.raises(EnvironmentProblem, match=f"unknown color 'half'.*{named}"):
            look_up()


def test_it_is_known_what_each_plugin_registers(plugins):
    registry = Registry("shade", "gped_nas.models")
    plugins(Entry("a", lambda: registry.register("violet")("V")), Entry("b", lambda: None))
    registry.register("red")("R")
    assert list(registry) == ["red", "violet"]
    assert module.installed_plugins() == {
        "'a' (package_a.gped)": ["shade violet"],
        "'b' (package_b.gped)": [],
    }


def test_a_plugin_cannot_take_the_name_of_a_built_in(plugins):
    def again():
        METHODS.register("sgld")(METHODS["sgld"])

    plugins(Entry("mine", again))
    METHODS._is_discovered = False
    with pytest.warns(EnvironmentWarning, match="by gped_nas.posterior.sgld and by plug-in 'mine'"):
        assert "sgld" in list(METHODS)


def test_a_component_is_registered_under_its_own_name():
    @dataclass
    class Color:
        name: str

    registry = Registry("color", "gped_nas.models")
    registry.register("red")(Color("red"))
    with pytest.raises(
        RegistryError, match="color 'blue' is registered under the name 'green', .*as 'blue'"
    ):
        registry.register("green")(Color("blue"))
    assert list(registry) == ["red"]


def test_only_what_a_registry_holds_is_registered():
    with pytest.raises(
        RegistryError, match="family 'mine': found the class Mlp, expected an object"
    ):
        FAMILIES.register("mine")(Mlp)
    with pytest.raises(RegistryError, match="method 'mine': found 3, expected a gped_nas.*Method"):
        METHODS.register("mine")(3)
    assert "mine" not in FAMILIES and "mine" not in METHODS


def test_a_policy_is_registered_under_the_name_that_its_settings_expect():
    with pytest.raises(RegistryError, match="policy 'noise' is registered under the name 'loud'"):
        POLICIES.register("loud")(POLICIES["noise"])


def test_a_name_in_a_file_is_looked_up_with_its_place():
    registry = empty()
    assert registry.find("red", "f: color") == "RED"
    assert registry.named({"color": "red"}, "color", "f") == "RED"

    with pytest.raises(
        RegistryError, match="^f: color: unknown color 'gren'; did you mean 'green'"
    ):
        registry.named({"color": "gren"}, "color", "f")
    with pytest.raises(
        ConfigError, match="f: color: found 3, expected the name of a color, one of: blue, green"
    ):
        registry.find(3, "f: color")
    with pytest.raises(ConfigError, match="f: color: found None"):
        registry.named({}, "color", "f")
    with pytest.raises(ConfigError, match="f: found 'red', expected a mapping with the key"):
        registry.named("red", "color", "f")

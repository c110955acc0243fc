"""Named components: families, methods, datasets, policies, targets, metrics, conditions.

A component is registered where it is defined. The modules of a registry's own package are imported
on first use, so that one new file is one new component; third parties use the entry point group
``gped_nas.plugins``.
"""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from gped_nas.errors import (
    ConfigError,
    EnvironmentProblem,
    EnvironmentWarning,
    GpedError,
    RegistryError,
    listed,
    nearest,
)

T = TypeVar("T")
PLUGIN_GROUP = "gped_nas.plugins"
"""The entry point group of packages that bring components of their own."""


class _Plugins:
    """The plug-ins of this process: loaded once, and which one is being loaded."""

    def __init__(self) -> None:
        self._started = False
        self.loading = ""
        self.problems: dict[str, str] = {}
        """What is wrong with those that cannot be loaded, by plug-in."""

    def load(self) -> None:
        """Import every plug-in, once a process; one that cannot be is left out with a warning."""
        if self._started:
            return
        self._started = True  # before the imports, which look names up themselves

        for entry in entry_points(group=PLUGIN_GROUP):
            try:
                self._load(entry)
            except (Exception, SystemExit) as error:  # a stranger's import may raise anything
                self._disable(_describe(entry), error)

    def _disable(self, plugin: str, error: BaseException) -> None:
        # half a plug-in may be worse than none
        for registry in _REGISTRIES:
            registry.withdraw(f"plug-in {plugin}")

        self.problems[plugin] = f"cannot be loaded: {type(error).__name__}: {error}"
        warnings.warn(
            f"plug-in {plugin}: {self.problems[plugin]}; this run goes on without it; mend it or "
            "uninstall it",
            EnvironmentWarning,
            stacklevel=2,
        )

    def _load(self, entry: EntryPoint) -> None:
        self.loading = f"plug-in {_describe(entry)}"
        try:
            entry.load()
        finally:
            self.loading = ""


_PLUGINS = _Plugins()
_REGISTRIES: list["Registry[Any]"] = []


def load_plugins() -> dict[str, str]:
    """Import every plug-in of the entry point group ``gped_nas.plugins``, once a process.

    Returns:
        What is wrong with those that cannot be loaded, by plug-in: a stranger's error, or a name
        that is taken. They are left out, with a warning.
    """
    _PLUGINS.load()
    return dict(_PLUGINS.problems)


def installed_plugins() -> dict[str, list[str]]:
    """What each installed plug-in has registered so far: ``{"'mine' (my.gped)": ["metric euro"]}``.

    A plug-in that is not loaded, or could not be, has registered nothing or a part.
    """
    registries = sorted(_REGISTRIES, key=lambda registry: registry.kind)

    registered: dict[str, list[str]] = {}
    for entry in entry_points(group=PLUGIN_GROUP):
        plugin = _describe(entry)
        components = []
        for registry in registries:
            for name in registry.registered_by(f"plug-in {plugin}"):
                components.append(f"{registry.kind} {name}")
        registered[plugin] = components

    return registered


def _describe(entry: EntryPoint) -> str:
    """A plug-in for people: ``'mine' (my_package.gped)``."""
    return f"'{entry.name}' ({entry.value})"


def _registering_module() -> str:
    """The module that is being imported, and so registers a component; or the plug-in it is of."""
    frame = sys._getframe(1)
    while frame.f_code.co_name != "<module>" and frame.f_back is not None:
        frame = frame.f_back
    module = str(frame.f_globals.get("__name__"))

    # a plug-in may be the first to import a module of ours
    is_ours = module.split(".")[0] == "gped_nas"
    if _PLUGINS.loading and not is_ours:
        return _PLUGINS.loading
    return module


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from name to component, filled by ``register``.

    Args:
        kind: what it holds, for messages: ``"family"``.
        package: the package whose modules register the built-in components.
        contract: the class that components are of, or have the public attributes of; None if any
            callable will do.
    """

    def __init__(self, kind: str, package: str, contract: type | None = None) -> None:
        self.kind = kind
        self._package = package
        self._contract = contract
        self._items: dict[str, T] = {}
        self._sources: dict[str, str] = {}
        self._is_discovered = False
        _REGISTRIES.append(self)

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a component under ``name``.

        Raises:
            RegistryError: the name is taken, or is not the one that the component itself bears; or
                the component is not what the registry holds.
        """

        def file(item: T) -> T:
            source = _registering_module()
            if name in self._items:
                raise RegistryError(
                    f"{self.kind} '{name}' is registered twice, by {self._sources[name]} and by "
                    f"{source}; choose another name"
                )

            # a component with a name of its own would be looked up, and called, by two names
            stated_name = getattr(item, "name", None)
            if isinstance(stated_name, str) and stated_name != name:
                raise RegistryError(
                    f"{self.kind} '{stated_name}' is registered under the name '{name}', by "
                    f"{source}; expected its own name; register it as '{stated_name}'"
                )

            self._check_contract(name, item)
            self._items[name] = item
            self._sources[name] = source
            return item

        return file

    def _check_contract(self, name: str, item: object) -> None:
        contract = self._contract
        if contract is None or isinstance(item, contract):
            return

        component = f"{self.kind} '{name}'"
        if isinstance(item, type):
            raise RegistryError(
                f"{component}: found the class {item.__name__}, expected an object of it"
            )
        expected = f"{contract.__module__}.{contract.__qualname__}"
        raise RegistryError(
            f"{component}: found {item!r}, expected a {expected}, or one that inherits it"
        )

    def add(self, item: T) -> T:
        """File a component under the name that it states itself, and return it.

        Raises:
            RegistryError: the name is taken, or the component has none.
        """
        name = getattr(item, "name", None)
        if not isinstance(name, str):
            raise RegistryError(
                f"{self.kind}: found {item!r}, which states no name; use register(name)"
            )
        return self.register(name)(item)

    def find(self, name: object, where: str) -> T:
        """The component that a file names.

        Args:
            name: what the file holds where a name is expected.
            where: file and key of it, for messages.

        Raises:
            ConfigError: it is not text.
            RegistryError: nobody registered it; the message names the nearest one.
            EnvironmentProblem: likewise, and a plug-in that may have it cannot be loaded.
        """
        if not isinstance(name, str):
            raise ConfigError(
                f"{where}: found {name!r}, expected the name of a {self.kind}, one of: "
                f"{listed(list(self))}"
            )
        if name not in self:
            raise self._unknown(name, f"{where}: ")
        return self[name]

    def named(self, settings: object, key: str, where: str) -> T:
        """The component that ``settings[key]`` names.

        Args:
            settings: plain data from a file.
            key: the setting that holds the name.
            where: file and key of ``settings``, for messages.

        Raises:
            ConfigError: ``settings`` is not a mapping, or the name is missing or not text.
            RegistryError: nobody registered the name.
        """
        if not isinstance(settings, Mapping):
            raise ConfigError(
                f"{where}: found {settings!r}, expected a mapping with the key '{key}'"
            )
        return self.find(settings.get(key), f"{where}: {key}")

    def registered_by(self, source: str) -> list[str]:
        """The names that a module, or a plug-in as messages call it, has registered."""
        return sorted(name for name, by in self._sources.items() if by == source)

    def withdraw(self, source: str) -> None:
        """Forget what a module, or a plug-in as messages call it, has registered."""
        for name in self.registered_by(source):
            del self._items[name], self._sources[name]

    def _unknown(self, name: object, where: str = "") -> GpedError:
        """The error of a name that nobody registered."""
        if not _PLUGINS.problems:
            return RegistryError(f"{where}unknown {self.kind} '{name}'{nearest(name, self._items)}")

        broken = ", ".join(f"plug-in {plugin} {why}" for plugin, why in _PLUGINS.problems.items())
        return EnvironmentProblem(
            f"{where}unknown {self.kind} '{name}', and it may be of a plug-in that is left out "
            f"({broken}); mend the plug-in, or correct the name"
        )

    def _discover(self) -> None:
        if self._is_discovered:
            return
        self._is_discovered = True  # before the imports, which look names up themselves

        try:
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            load_plugins()
        except GpedError:
            self._is_discovered = False  # so that the next look says it again
            raise

    def __getitem__(self, name: str) -> T:
        """The component called ``name``.

        Raises:
            RegistryError: nobody registered it; the message names the nearest one.
            EnvironmentProblem: likewise, and a plug-in that may have it cannot be loaded.
        """
        if name not in self:
            raise self._unknown(name)
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._items:  # what is here already needs no import of all the others
            self._discover()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._discover()
        return len(self._items)

"""Named components: families, methods, datasets, policies, targets, metrics.

A component is registered where it is defined. The modules of a registry's own package are imported
on first use, so that one new file is one new component; third parties use the entry point group
``gped_nas.plugins``.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from gped_nas.errors import RegistryError, nearest

T = TypeVar("T")
_plugins_loaded = False


def load_plugins() -> None:
    """Import every plugin of the entry point group ``gped_nas.plugins``, once a process."""
    global _plugins_loaded
    if not _plugins_loaded:
        _plugins_loaded = True
        for entry in entry_points(group="gped_nas.plugins"):
            entry.load()


class Registry(Mapping[str, T], Generic[T]):
    """A read-only mapping from name to component, filled by ``register``.

    Args:
        kind: what it holds, for messages: ``"family"``.
        package: the package whose modules register the built-in components.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._items: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files a component under ``name``.

        Raises:
            RegistryError: the name is taken, or the component calls itself otherwise.
        """

        def file(item: T) -> T:
            stated = getattr(item, "name", name)
            if stated != name:
                raise RegistryError(
                    f"{self.kind} '{stated}' is registered under the name '{name}'; files and "
                    "messages would call it by either, so give both the same name"
                )
            if name in self._items:
                raise RegistryError(
                    f"{self.kind} '{name}' is registered twice; choose another name"
                )
            self._items[name] = item
            return item

        return file

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

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            load_plugins()

    def __getitem__(self, name: str) -> T:
        """The component called ``name``.

        Raises:
            RegistryError: nobody registered it; the message names the nearest one.
        """
        if name not in self._items:  # what is here already needs no import of all the others
            self._discover()
        try:
            return self._items[name]
        except KeyError:
            raise RegistryError(
                f"unknown {self.kind} '{name}'{nearest(name, self._items)}"
            ) from None

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._discover()
        return len(self._items)

"""Methods that keep another one's posterior samples in few bytes: a file a codec, see ``base``."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):  # registers them
    importlib.import_module(f"{__name__}.{_module.name}")

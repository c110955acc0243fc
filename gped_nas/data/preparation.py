"""How a user's file becomes raw inputs; it travels with every student."""

from collections.abc import Mapping
from typing import Any

from gped_nas.config import parse
from gped_nas.data.columns import TableColumns
from gped_nas.data.pictures import PicturePreparation

AnyPreparation = TableColumns | PicturePreparation


def parse_preparation(data: Mapping[str, Any], where: str) -> AnyPreparation:
    """The preparation that plain data describe.

    Raises:
        ConfigError: they are of no known kind.
    """
    if data.get("kind") == "pictures":
        return parse(PicturePreparation, data, where)
    return parse(TableColumns, data, where)

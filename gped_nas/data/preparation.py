"""How a user's file becomes raw inputs; it travels with every student."""

from collections.abc import Mapping
from typing import Any

from gped_nas.config import parse
from gped_nas.data.columns import TableColumns

AnyPreparation = TableColumns


def parse_preparation(data: Mapping[str, Any], where: str) -> AnyPreparation:
    """The preparation that plain data describe.

    Raises:
        ConfigError: they are of no known kind.
    """
    return parse(TableColumns, data, where)

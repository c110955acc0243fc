"""What a quality objective is worth on bootstrap draws of validation, as a trial's record keeps it.

One short text an objective: ``NUM_DRAWS`` little-endian float32 numbers in base64. The draws are
the first ones of the study's, the same for every student, so that two students, and two fronts, are
compared on the same examples. A number that does not exist on a draw is NaN.
"""

import base64
import binascii

import numpy as np

from gped_nas.errors import StudyError
from gped_nas.search.pareto import Floats

NUM_DRAWS = 100
"""A standard deviation over so many is right to 7 %."""
_DTYPE = np.dtype("<f4")


def pack_draws(values_R: Floats) -> str:
    """The text of an objective's values on the first ``NUM_DRAWS`` draws."""
    return base64.b64encode(np.asarray(values_R[:NUM_DRAWS], _DTYPE).tobytes()).decode()


def unpack_draws(text: str, where: str) -> Floats:
    """The values of a text that ``pack_draws`` made, (R,).

    Args:
        text: the text.
        where: whose it is, for the message.

    Raises:
        StudyError: it is no such text.
    """
    try:
        data = base64.b64decode(text, validate=True)
        values = np.frombuffer(data, _DTYPE)
    except (binascii.Error, ValueError):
        values = np.empty(0, _DTYPE)
    if len(values) != NUM_DRAWS:
        raise StudyError(
            f"{where}: found {text[:20]!r}, expected {NUM_DRAWS} numbers in base64; restore the "
            "study from a backup, or choose another --study-name"
        )
    return values.astype(np.float64)

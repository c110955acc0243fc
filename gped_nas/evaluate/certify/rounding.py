"""How far what a processor computes may be from real arithmetic: outward slack.

A sum of n products that are each rounded once, in any order, with or without fused operations, is
within ``gamma(n, u)`` times the sum of the magnitudes of its exact value, with the unit roundoff u.

Source: Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1, equation 3.4.
"""

import math

UNIT = 2.0**-53
"""Unit roundoff of float64, in which bounds are computed."""
TINY = 1e-290
"""What float64 may lose of any sum here to underflow."""


class RunTime:
    """What a network is run in, so that bounds hold for what it computes there.

    Args:
        unit: its unit roundoff; 0 is real arithmetic.
        tiny: the smallest normal number: smaller ones may be flushed to zero.
        largest: the largest finite number: beyond it nothing is promised.
    """

    def __init__(self, unit: float, tiny: float, largest: float) -> None:
        self.unit = unit
        self.tiny = tiny
        self.largest = largest

    def share(self, num_terms: int) -> float:
        """The error of a sum of so many terms, as a share of the sum of their magnitudes.

        That of float64 is added: bounds hold in real arithmetic too.
        """
        return gamma(num_terms, self.unit)

    def least(self, num_terms: int) -> float:
        """The error that so many terms may have by underflow alone."""
        return 2 * num_terms * self.tiny

    def least_lead(self, num_classes: int) -> float:
        """How far a logit must lead, so that its class leads after a softmax, too.

        A softmax subtracts the largest logit, and then the logarithm of a sum, which is ``log C``
        at most: a lead below the rounding of that is lost. An exponential rounds twice more.
        """
        return 4 * self.unit * (math.log(num_classes) + 4)


FLOAT32 = RunTime(2.0**-24, 2.0**-126, 3.4e38)
"""The float32 of a student's and a teacher's forward pass on a processor."""
REAL = RunTime(0.0, 0.0, 1e300)
"""Real arithmetic: nothing is rounded but in the computation of the bound."""


def gamma(num_terms: int, unit: float) -> float:
    """``n u / (1 - n u)``, itself rounded upward.

    Raises:
        ValueError: there are so many terms that nothing can be said.
    """
    total = num_terms * unit
    if total >= 0.5:
        raise ValueError(f"found a sum of {num_terms} terms, expected fewer than {0.5 / unit:.3g}")
    return total / (1 - total) * (1 + 8 * UNIT)

"""What is said of many values at once."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.stats.mstats import hdquantiles


class Mean(NamedTuple):
    """A mean, and the number of values that it is of; NaN of none."""

    value: float
    of: int


def present(values: Iterable[float]) -> list[float]:
    """Those that are not NaN."""
    return [v for v in values if not math.isnan(v)]


def mean(values: Iterable[float]) -> Mean:
    """The mean of the values that are not NaN."""
    found = present(values)
    return Mean(math.fsum(found) / len(found) if found else math.nan, len(found))


def quantiles(values: Iterable[float], shares: Iterable[float]) -> list[float]:
    """Quantiles of the values that are not NaN, none of which is a single value; NaN of none.

    Each is a mean over all values with weights that are largest around the quantile (Harrell & Davis 1982,
    doi:10.1093/biomet/69.3.635). The usual quantiles are often the very value of one case; these never are, unless
    there is only one or all are equal.
    """
    found, wanted = present(values), list(shares)
    if len(found) < 2:
        return [found[0] if found else math.nan] * len(wanted)
    return [float(q) for q in hdquantiles(np.array(found), wanted)]

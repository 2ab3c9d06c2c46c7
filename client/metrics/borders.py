"""Metrics that measure between the surfaces, in mm."""

import math

from client.metrics.pair import Pair


def hd95_of(pair: Pair) -> float:
    """The larger of the two directed 95th percentiles of distance; the image's diagonal with the label in one map."""
    if pair.empty or pair.one_sided:
        return math.nan if pair.empty else pair.diagonal
    return max(side.percentile(95) for side in pair.distances)


def assd_of(pair: Pair) -> float:
    """The mean distance over the area of both surfaces; the image's diagonal with the label in one map."""
    if pair.empty or pair.one_sided:
        return math.nan if pair.empty else pair.diagonal
    whole = sum(float(side.area.sum()) for side in pair.distances)
    return sum(float(side.distance @ side.area) for side in pair.distances) / whole


def nsd_of(pair: Pair, tolerance: float) -> float:
    """The share of both surfaces' area that is within `tolerance` mm of the other one; 0 with the label in one map."""
    if pair.empty or pair.one_sided:
        return math.nan if pair.empty else 0.0
    whole = sum(float(side.area.sum()) for side in pair.distances)
    return sum(side.within(tolerance) for side in pair.distances) / whole

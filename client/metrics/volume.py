"""Metrics of size alone."""

import math

from client.metrics.pair import Pair


def relative_error_of(pair: Pair) -> float:
    """(|P| − |T|) / |T|; NaN where the truth has no label."""
    found, there, _ = pair.sizes
    return (found - there) / there if there else math.nan


def millilitres_of(pair: Pair) -> float:
    """| |P| − |T| | in ml (1000 mm³); NaN where neither map has the label."""
    found, there, _ = pair.sizes
    return math.nan if pair.empty else abs(found - there) * math.prod(pair.spacing) / 1000

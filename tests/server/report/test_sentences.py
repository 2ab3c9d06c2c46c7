"""Numbers in sentences."""

import pytest

from server.report.sentences import signed


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "+0.012"), (-0.0123, "−0.012"), (0.0004, "0.000"), (-0.0004, "0.000"), (0.0, "0.000")],
)
def test_what_rounds_to_nothing_has_no_sign(value: float, text: str) -> None:
    assert signed(value) == text

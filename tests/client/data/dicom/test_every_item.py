"""Every DICOM object of the real data is read as others read it, and the page that says so is the one that is made."""

from pathlib import Path

import pytest

from simulations.benchmarks.items import Row, measure, table

PAGE = Path(__file__).parents[4] / "docs" / "dicom-measured.md"


@pytest.fixture(scope="module")
def rows(fedscan_data: Path) -> list[Row]:
    return list(measure(fedscan_data))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")  # of the other readers, about what is odd in these files
def test_each_series_and_each_label_agrees_with_an_independent_reader(rows: list[Row]) -> None:
    assert [row for row in rows if row.agrees is not True] == []
    kinds = [row.kind for row in rows]
    # 3 cardiac series, 7 small ones (two folders share a series UID), 7 of the prostate; labels as in the README.
    assert kinds.count("SEG") == 10
    assert kinds.count("RTSTRUCT") == 7
    assert len(kinds) - 17 == 17


@pytest.mark.data
@pytest.mark.filterwarnings("ignore")
def test_the_page_is_up_to_date(rows: list[Row]) -> None:
    assert PAGE.read_text(encoding="utf-8") == table(rows), "python -m simulations.benchmarks.items > " + PAGE.name

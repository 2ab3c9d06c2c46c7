"""The metrics by which a study may be judged: name, unit, range and words. The sites compute them (`client/metrics`).

A metric has one value per case and label. One rule for empty masks holds for all: a label that is in neither map has
no value, and is left out of every mean. What a label counts that is in one map only, each metric says itself.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from common.cards import Card, described
from common.names import METRICS
from common.registry import did_you_mean

Tolerance = Annotated[float, Field(gt=0, le=1000)]
Spread = Literal["none", "quartiles", "worst"]
SPREADS: tuple[Spread, ...] = ("none", "quartiles", "worst")
QUARTILES = {"q25": 0.25, "median": 0.5, "q75": 0.75}
"""What tells of the spread over a site's cases, besides the worst one."""

WORST, TOLD = "worst", "told"

DICE = "dice"
"""Always measured: by its mean on validation cases the best round is chosen."""


class Metric:
    """Base of all metrics.

    Attributes:
        unit: Of its values; empty for shares.
        ideal: Its value where prediction and truth are equal.
        least, most: Its range; None where it has no end.
    """

    unit: ClassVar[str] = ""
    ideal: ClassVar[float] = 1.0
    least: ClassVar[float] = 0.0
    most: ClassVar[float | None] = 1.0

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Option and what is wrong with it in a study of these dimensions and labels."""
        yield from ()

    def settings(self, label: str) -> dict[str, float]:
        """The options that hold for `label`."""
        return {}

    def distance(self, value: float) -> float:
        """How far a value is from the ideal; the smaller the better."""
        return abs(value - self.ideal)


class _Millimetres(Metric):
    unit = "mm"
    ideal = 0.0
    most = None


@described(
    Card(
        title="Dice",
        source="Dice 1945, doi:10.2307/1932409",
        suited="Overlap; always measured. Severe on small structures, blind to where the errors lie.",
    )
)
class Dice(Metric):
    """Twice the overlap by the sum of both sizes: 2·|P ∩ T| / (|P| + |T|). In one map only: 0."""


@described(
    Card(
        title="IoU",
        source="Jaccard 1912, doi:10.1111/j.1469-8137.1912.tb05611.x",
        suited="Overlap where others report it; D / (2 − D) of Dice D, so it orders cases as Dice does.",
    )
)
class IoU(Metric):
    """The overlap by the union: |P ∩ T| / |P ∪ T|. In one map only: 0."""


@described(
    Card(
        title="Sensitivity",
        source="Yerushalmy 1947, doi:10.2307/4586294",
        suited="Whether structures are found whole: the share of the truth that the model found.",
    )
)
class Sensitivity(Metric):
    """|P ∩ T| / |T|. Only in the prediction: no value, there is nothing to find. Only in the truth: 0."""


@described(
    Card(
        title="Precision",
        source="van Rijsbergen 1979, Information Retrieval, chapter 7",
        suited="Whether what is found is right: the share of the model's voxels that the truth has too.",
    )
)
class Precision(Metric):
    """|P ∩ T| / |P|. Only in the truth: no value, nothing was claimed. Only in the prediction: 0."""


@described(
    Card(
        title="HD95",
        source="Huttenlocher et al. 1993, doi:10.1109/34.232073; weighted by area as Nikolov et al. 2021, "
        "doi:10.2196/26151",
        suited="How far the border is off at its worst, less the worst 5 %.",
    )
)
class HD95(_Millimetres):
    """The 95th percentile of the distances between the surfaces, in mm.

    From each surface to the other one the distance that 95 % of its area does not exceed; the larger of the two. In one
    map only: the diagonal of the image, the largest distance that there could be.
    """


@described(
    Card(
        title="ASSD",
        source="Heimann et al. 2009, doi:10.1109/TMI.2009.2013851",
        suited="How far the border is off on average.",
    )
)
class ASSD(_Millimetres):
    """The mean distance between the surfaces, in mm, over the area of both.

    In one map only: the diagonal of the image, the largest distance that there could be.
    """


@described(
    Card(
        title="NSD",
        source="Nikolov et al. 2021, doi:10.2196/26151",
        suited="The share of the border that nobody would correct: set the tolerance to what two experts differ by.",
    )
)
class NSD(Metric):
    """Normalised surface Dice: the share of both surfaces' area that is within the tolerance of the other surface.

    In one map only: 0.

    Args:
        tolerance: In mm, for all labels, or for each label by its name.
    """

    def __init__(self, *, tolerance: Tolerance | dict[str, Tolerance] = 1.0) -> None:
        self.tolerance = tolerance

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Labels without a tolerance, tolerances without a label."""
        if isinstance(self.tolerance, Mapping):
            for name in self.tolerance:
                if name not in labels:
                    yield f"tolerance.{name}", f"is no label of the study.{did_you_mean(name, labels)}"
            if missing := [label for label in labels if label not in self.tolerance]:
                yield "tolerance", f"says nothing of {', '.join(missing)}"

    def settings(self, label: str) -> dict[str, float]:
        """The label's tolerance."""
        return {"tolerance": self.tolerance[label] if isinstance(self.tolerance, Mapping) else self.tolerance}


@described(
    Card(
        title="Volume error",
        source="Heimann et al. 2009, doi:10.1109/TMI.2009.2013851",
        suited="Whether volumes are over- or underestimated: a mean far from 0 is a bias.",
    )
)
class VolumeError(Metric):
    """(|P| − |T|) / |T|, with its sign: 0.1 is a tenth too much. Only in the prediction: no value; in the truth: −1."""

    ideal = 0.0
    least = -1.0
    most = None


@described(
    Card(
        title="Volume difference",
        source="Heimann et al. 2009, doi:10.1109/TMI.2009.2013851",
        suited="Volumes that somebody acts on, in their own unit.",
    )
)
class VolumeDifference(Metric):
    """| |P| − |T| | in ml. In one map only: the volume that is there."""

    unit = "ml"
    ideal = 0.0
    most = None

    def misfits(self, dimensions: int, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Pictures have no volume."""
        if dimensions == 2:
            yield "name", "volume_difference is in ml, and pictures (data.dimensions: 2) have no volume"


@described(
    Card(
        title="Lesion F1",
        source="Maier-Hein et al. 2024, doi:10.1038/s41592-023-02151-z",
        suited="Many small structures of one label, each of which counts: whether they are found, and nothing else is.",
    )
)
class LesionF1(Metric):
    """F1 over lesions: 2·(pairs) / (lesions of the prediction + lesions of the truth). In one map only: 0.

    A lesion is a connected component, neighbours across corners included. One of the prediction and one of the truth
    are a pair when their IoU reaches `overlap`; each is in one pair at most, and as many pairs are made as can be.

    Args:
        overlap: Least IoU of a pair.
    """

    def __init__(self, *, overlap: Annotated[float, Field(gt=0, le=1)] = 0.1) -> None:
        self.overlap = overlap

    def settings(self, label: str) -> dict[str, float]:
        """The same for all labels."""
        return {"overlap": self.overlap}


def score_key(metric: str, label: str, what: str = "") -> str:
    """The key of a number that leaves a site: `METRIC.LABEL` is the mean over its cases, `METRIC.LABEL.WHAT` the rest.

    No label and no metric has a dot in its name.
    """
    return f"{metric}.{label}.{what}" if what else f"{metric}.{label}"


def count_key(label: str) -> str:
    """The key of the number of cases that have a Dice of `label`."""
    return f"cases.{label}"


def spread_stats(spread: Spread) -> tuple[str, ...]:
    """What is told of each metric and label besides the mean."""
    return {"none": (), "quartiles": tuple(QUARTILES), "worst": (*QUARTILES, WORST)}[spread]


def score_limits(metrics: Iterable[str], labels: Iterable[str], spread: Spread) -> dict[str, float | None]:
    """The keys of all scores by metric and label that leave a site with a judged model; each with its largest value.

    Of Dice: the mean and the number of cases. Of any other metric: the mean, and `told`, which is 1 where it has a
    value in as many cases as may be told of; how many those are would tell of the few in which it has none.
    """
    limits: dict[str, float | None] = {}
    for label in labels:
        limits[count_key(label)] = None
        for name in metrics:
            most = METRICS.get(name).most  # type: ignore[attr-defined]
            limits |= {score_key(name, label, what): most for what in ("", *spread_stats(spread))}
            if name != DICE:
                limits[score_key(name, label, TOLD)] = 1.0
    return limits


def stated(metric: type[Metric] | Metric, pictures: bool) -> dict[str, Any]:
    """Unit, ideal and range for reports; distances in pictures without a physical size (`plan.size`) are in pixels."""
    unit = "px" if pictures and metric.unit == "mm" else metric.unit
    return {"unit": unit, "ideal": metric.ideal, "least": metric.least, "most": metric.most}

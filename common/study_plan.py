"""A study's data and plan: what the scans show, and what becomes of them before the net sees them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.codes import SnomedCode, value_of
from common.documents import wrong_at
from common.registry import did_you_mean
from common.section import Name, Section


class ZScore(Section):
    """Subtract the mean and divide by the standard deviation of the volume (of its non-zero voxels if `nonzero`)."""

    method: Literal["zscore"] = "zscore"
    nonzero: bool = False


class Percentile(Section):
    """Map the `low`th to the `high`th percentile of the volume to −1 … 1, values outside clipped."""

    method: Literal["percentile"] = "percentile"
    low: float = Field(0.5, ge=0, lt=100)
    high: float = Field(99.5, gt=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Window(Section):
    """Map `low` … `high` (CT: Hounsfield units) to −1 … 1, values outside clipped."""

    method: Literal["window"] = "window"
    low: float = -1000.0
    high: float = 400.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


Intensity = Annotated[ZScore | Percentile | Window, Field(discriminator="method")]


class Plan(Section):
    """How every case becomes an array, fixed before round 1.

    Attributes:
        spacing: Voxel size in mm (RAS+ axes) to which cases are resampled; none keeps each case's own grid.
        size: For 2D pictures without a physical size: pixels to which they are resized.
        patch: Size in voxels of what the net sees in training.
        intensity: One rule for all channels, or one per channel.
    """

    spacing: tuple[Annotated[float, Field(gt=0, le=100)], ...] | None = None
    size: tuple[Annotated[int, Field(ge=8, le=8192)], ...] | None = None
    patch: tuple[Annotated[int, Field(ge=8, le=1024)], ...]
    intensity: Intensity | tuple[Intensity, ...] = ZScore()


class Data(Section):
    """What a case consists of, and what happens to a case that cannot be used.

    Attributes:
        channels: Names of the image channels, in the order in which the net sees them.
        labels: Names of the structures; the first has value 1 in the label map, background is 0.
        codes: Label -> SNOMED CT code, by which it is found in files that carry codes.
        dimensions: 3 for volumes, 2 for pictures.
        modality: What the scans are (DICOM's word); sites then hold the intensities against it: CT in Hounsfield units,
            PT without negative values, and so on. None: nothing is asked.
        bad_cases: `exclude` leaves a bad case out and says so; `refuse` refuses the whole site.
        ignore: Value in the label files of voxels that nobody labelled: no loss and no metric counts them; none: all
            voxels are labelled.
    """

    channels: tuple[Name, ...] = Field(("image",), min_length=1, max_length=32)
    labels: tuple[Name, ...] = Field(min_length=1, max_length=254)
    codes: dict[Name, SnomedCode] = Field({})
    dimensions: Literal[2, 3] = 3
    modality: Literal["CT", "MR", "PT", "MG", "DX", "CR", "XA"] | None = None
    bad_cases: Literal["exclude", "refuse"] = "exclude"
    ignore: int | None = Field(None, ge=-(2**15), lt=2**16, json_schema_extra={"not": {"const": 0}})

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (("channels", self.channels), ("labels", self.labels)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what}: each name may stand once: {', '.join(names)}")
        if "background" in self.labels:
            raise ValueError("labels: background is always value 0; leave it out")
        for name in self.codes:
            if name not in self.labels:
                raise wrong_at(f"codes.{name}", f"is no label of the study.{did_you_mean(name, self.labels)}")
        values = [value_of(code) for code in self.codes.values()]
        if len(set(values)) < len(values):
            raise wrong_at("codes", "each code may stand for one label only")
        if self.ignore == 0:
            raise wrong_at("ignore", "0 is the background; voxels without a label need a value of their own, e.g. 255")
        return self

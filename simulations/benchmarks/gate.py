"""The quality gate on real scans: how often it finds what was planted, and how often it cries without cause.

`FEDSCAN_DATA=... python -m simulations.benchmarks.gate` reads the three public sets that this folder holds
(hippocampus MR, lung nodule CT, chest X-ray) and prints two Markdown tables. Each planted defect is put into one case
of a seeded sample at a time, the other cases of its site staying as they are.
"""

import argparse
import csv
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from client.data import preprocess
from client.data.gate.cases import check_kept
from client.data.gate.duplicates import check_duplicates
from client.data.gate.mirrors import Edges
from client.data.gate.orientation import check_directions, check_images
from client.data.gate.outliers import check_fragments, check_volumes
from client.data.gate.placement import ALIKE, check_placements, check_shifts
from client.data.gate.site import check_site
from client.data.gate.summary import summarise
from client.data.preprocess import Meta
from client.data.readers import read
from client.data.volume import Case, Finding, Volume
from common.seeds import generator
from common.study import Study


@dataclass(frozen=True)
class Set:
    """One public set and the study that is asked of it."""

    folder: str
    title: str
    data: dict[str, Any]
    plan: dict[str, Any]

    def study(self) -> Study:
        """The study."""
        training = {"steps": 1}
        return Study.model_validate({"name": "gate", "data": self.data, "plan": self.plan, "training": training})


SETS = (
    Set("hippocampus-mr-3d", "hippocampus MR", {"labels": ["anterior", "posterior"], "modality": "MR"},
        {"spacing": [1, 1, 1], "patch": [32, 32, 32]}),
    Set("lung-nodule-ct-3d", "nodule CT", {"labels": ["nodule"], "modality": "CT"},
        {"spacing": [1, 1, 1], "patch": [32, 32, 32]}),
    Set("chest-xray-lungs-2d", "chest X-ray", {"labels": ["lung"], "modality": "CR", "dimensions": 2},
        {"size": [256, 256], "patch": [128, 128]}),
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """One case in memory."""

    site: str
    case: Case
    image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    affine: NDArray[np.float64]

    def meta(self, study: Study) -> Meta:
        """What `prepare` would keep of it."""
        volume = Volume(self.image, self.affine)
        counts = np.bincount(self.truth.ravel(), minlength=study.classes)[1 : study.classes].tolist()
        return {
            "image": hashlib.sha256(repr(self.image.shape).encode() + self.image.tobytes()).hexdigest(),
            "content": "",
            "own": preprocess.grid(self.image.shape[1:], self.affine),
            "plan": preprocess.plan_grid(volume, study.plan),
            "voxels": counts,
            "plan_voxels": counts,
            "unlabelled": [],
            "notes": [],
            "gate": summarise(self.image, self.truth, volume.spacing, len(study.data.labels)),
        }


def scans(root: Path, chosen: Set) -> Iterator[Scan]:
    """Every case of the set."""
    with (root / chosen.folder / "cases.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            image, label = root / chosen.folder / row["image"], root / chosen.folder / row["label"]
            scan, mask = read(image), read(label, label=True).array[0]
            truth = mask >= 128 if mask.ndim == 2 else np.rint(mask)
            case = Case(row["case"], row.get("patient") or row["case"], (image,), label)
            yield Scan(row["site"], case, scan.array[:1].astype(np.float32), truth.astype(np.uint8), scan.affine)


Defect = Callable[[Scan, np.random.Generator], Scan | None]


def mirrored_mask(axis: int) -> Defect:
    """The mask alone, mirrored; None where it is like its mirror image."""

    def plant(scan: Scan, random: np.random.Generator) -> Scan | None:
        mask = scan.truth > 0
        other = np.flip(mask, axis)
        if not mask.any() or (mask & other).sum() >= ALIKE * mask.sum():
            return None
        return replace(scan, truth=np.ascontiguousarray(np.flip(scan.truth, axis)))

    return plant


def mirrored_case(axis: int) -> Defect:
    """Image and mask, mirrored."""

    def plant(scan: Scan, random: np.random.Generator) -> Scan:
        image = np.ascontiguousarray(np.flip(scan.image, axis + 1))
        return replace(scan, image=image, truth=np.ascontiguousarray(np.flip(scan.truth, axis)))

    return plant


def shifted_mask(scan: Scan, random: np.random.Generator) -> Scan | None:
    """The mask moved by a tenth of the longest axis."""
    axis = int(np.argmax(scan.truth.shape))
    by = max(4, scan.truth.shape[axis] // 10)
    moved = ndimage.shift(scan.truth, [by if a == axis else 0 for a in range(scan.truth.ndim)], order=0)
    return replace(scan, truth=moved) if (moved > 0).sum() * 2 > (scan.truth > 0).sum() else None


def intensities(change: Callable[[NDArray[np.float32], np.random.Generator], Any]) -> Defect:
    """The image's values changed."""

    def plant(scan: Scan, random: np.random.Generator) -> Scan:
        return replace(scan, image=np.ascontiguousarray(change(scan.image, random), dtype=np.float32))

    return plant


def exchanged(scan: Scan, random: np.random.Generator) -> Scan:
    """Labels 1 and 2 exchanged."""
    return replace(scan, truth=np.array([0, 2, 1], np.uint8)[scan.truth])


def truncated(scan: Scan, random: np.random.Generator) -> Scan | None:
    """The field of view ends in the middle of the mask."""
    if not (scan.truth > 0).any():
        return None
    end = round(float(np.argwhere(scan.truth > 0)[:, 0].mean()))
    return replace(scan, image=scan.image[:, :end], truth=scan.truth[:end]) if end > 7 else None


def scaled(factor: float) -> Defect:
    """A wrong voxel size in the header."""

    def plant(scan: Scan, random: np.random.Generator) -> Scan:
        return replace(scan, affine=scan.affine @ np.diag([factor, factor, factor, 1.0]))

    return plant


def speckled(scan: Scan, random: np.random.Generator) -> Scan:
    """Forty stray voxels."""
    truth = scan.truth.copy()
    truth[tuple(random.integers(0, n, 40) for n in truth.shape)] = 1
    return replace(scan, truth=truth)


def zoomed(factor: float) -> Defect:
    """Resampled; thin axes are left."""

    def plant(scan: Scan, random: np.random.Generator) -> Scan:
        zoom = [factor if n >= 12 else 1.0 for n in scan.truth.shape]
        truth = ndimage.zoom(scan.truth, zoom, order=0)
        return replace(scan, image=ndimage.zoom(scan.image, [1.0, *zoom], order=1), truth=truth)

    return plant


def _window(low: float, high: float) -> Defect:
    return intensities(lambda image, _: np.clip(image, *np.percentile(image, [low, high])))


MASKS = {"mask-mirrored", "mask-shifted", "structure-side"}
CASES = {"case-mirrored", "structure-side"}
COPIES: tuple[tuple[str, Defect], ...] = (
    ("exact copy", lambda scan, _: scan),
    ("copy, 1.3 times the voxels per axis", zoomed(1.3)),
    ("copy, 0.7 times the voxels per axis", zoomed(0.7)),
    ("copy, window from the 10th to the 90th percentile", _window(10, 90)),
    ("copy, noise of 5 %",
     intensities(lambda image, random: image + random.normal(0, 0.05 * image.std(), image.shape))),
    ("copy, inverted", intensities(lambda image, _: image.max() - image)),
    ("copy, mirrored and resampled",
     lambda scan, random: (m := mirrored_case(0)(scan, random)) and zoomed(1.3)(m, random)),
)  # fmt: skip
# Set -> what is planted, how, and the codes of which one must be found.
PLANTED: dict[str, tuple[tuple[str, Defect, set[str]], ...]] = {
    "3d": (("mask mirrored left–right", mirrored_mask(0), MASKS), ("mask mirrored front–back", mirrored_mask(1), MASKS),
           ("mask mirrored up–down", mirrored_mask(2), MASKS), ("mask shifted by a tenth", shifted_mask, MASKS),
           ("case mirrored left–right", mirrored_case(0), CASES), ("case mirrored front–back", mirrored_case(1), CASES),
           ("case mirrored up–down", mirrored_case(2), CASES), ("voxel size doubled", scaled(2), {"label-volume"}),
           ("voxel size in metres", scaled(0.001), {"spacing"})),
    "2d": (("mask mirrored up–down", mirrored_mask(0), MASKS), ("mask mirrored left–right", mirrored_mask(1), MASKS),
           ("mask shifted by a tenth", shifted_mask, MASKS), ("case mirrored up–down", mirrored_case(0), CASES),
           ("case mirrored left–right", mirrored_case(1), CASES)),
    "": (("field of view ends in the mask", truncated, {"label-cut"}),
         ("40 stray voxels", speckled, {"label-fragments"}),
         ("inverted", intensities(lambda image, _: image.max() + image.min() - image), {"case-inverted", "inverted"}),
         ("bright end cut at the 85th percentile", _window(0, 85), {"saturated"})),
    "hippocampus-mr-3d": (("labels exchanged", exchanged, {"structure-side"}),),
    "lung-nodule-ct-3d": (
        ("1024 added", intensities(lambda image, _: image + 1024), {"ct-offset"}),
        ("8 bits of a lung window", intensities(lambda image, _: np.rint(np.clip((image + 1350) / 1500, 0, 1) * 255)),
         {"ct-window"}),
        ("cut to −160 … 240 HU", intensities(lambda image, _: np.clip(image, -160, 240)), {"ct-window"}),
        ("normalised to mean 0, deviation 1", intensities(lambda image, _: (image - image.mean()) / image.std()),
         {"ct-scaled"})),
}  # fmt: skip


def site_findings(cases: Sequence[tuple[Case, Meta]], study: Study) -> list[Finding]:
    """Those of `check_site` that are about single cases, without the search for copies."""
    structures = [(case, meta["gate"]["structures"]) for case, meta in cases]
    labels = study.data.labels
    found = check_volumes(structures, labels) + check_fragments(structures, labels)
    found += check_shifts([(case, meta["gate"]["edges"]) for case, meta in cases])
    return found + check_directions(structures, labels) + check_images([(c, m["gate"]) for c, m in cases])


def hit(known: dict[str, list[tuple[Case, Meta]]], scan: Scan, study: Study, codes: set[str]) -> bool:
    """Whether the gate says one of `codes` about the changed case among its site's others."""
    meta = scan.meta(study)
    site = [(case, meta if case.id == scan.case.id else other) for case, other in known[scan.site]]
    found = check_kept(scan.case, meta, study) + site_findings(site, study)
    return any(f.code in codes and f.case == scan.case.id for f in found)


def copies(known: Sequence[tuple[Case, Meta]], some: Sequence[Scan], defect: Defect, study: Study) -> float:
    """Share of the copies (of other patients) that are found."""
    made = [defect(scan, generator(1, scan.case.id)) for scan in some]
    late = [(replace(s.case, id=f"copy {s.case.id}", patient=f"copy {s.case.id}"), s.meta(study)) for s in made if s]
    found = {f.case for f in check_duplicates([*known, *late])}
    return sum(case.id in found for case, _ in late) / len(late)


def systematic(known: dict[str, list[tuple[Case, Meta]]], whole: Sequence[Scan], study: Study, axis: int) -> str:
    """Sites found of those in which all masks were mirrored along `axis`."""
    sites = {site: cases for site, cases in known.items() if len(cases) >= 10}
    found = 0
    for site in sites:
        edges: list[tuple[Case, Edges | None]] = []
        for scan in [s for s in whole if s.site == site][:60]:
            truth = np.ascontiguousarray(np.flip(scan.truth, axis))
            edges.append((scan.case, replace(scan, truth=truth).meta(study)["gate"]["edges"]))
        found += bool(check_placements(edges))
    return f"{found} of {len(sites)} sites"


def measure(root: Path, chosen: Set, sample: int, show: Callable[[str], None]) -> Counter[str]:
    """Print the set's rows of the table of hits; count the false alarms by code."""
    study, whole = chosen.study(), list(scans(root, chosen))
    known: dict[str, list[tuple[Case, Meta]]] = {}
    for scan in whole:
        known.setdefault(scan.site, []).append((scan.case, scan.meta(study)))
    alarms: Counter[str] = Counter({"cases": len(whole)})
    for cases in known.values():
        found = [f for case, meta in cases for f in check_kept(case, meta, study)] + check_site(cases, study)
        alarms.update(f.code for f in found)
    random = generator(1, "gate", chosen.folder)
    some = [whole[i] for i in sorted(random.choice(len(whole), min(sample, len(whole)), replace=False))]
    for title, defect, codes in (*PLANTED[f"{study.data.dimensions}d"], *PLANTED[""], *PLANTED.get(chosen.folder, ())):
        made = [new for scan in some if (new := defect(scan, generator(1, scan.case.id))) is not None]
        hits = sum(hit(known, new, study, codes) for new in made)
        show(f"| {chosen.title} | {title} | {len(made)} | {hits / max(len(made), 1):.0%} |")
    for axis in range(study.data.dimensions):
        show(f"| {chosen.title} | all masks of a site mirrored along axis {axis + 1} | – | "
             f"{systematic(known, whole, study, axis)} |")  # fmt: skip
    everyone = [case for cases in known.values() for case in cases]
    for title, defect in COPIES:
        show(f"| {chosen.title} | {title} | {len(some)} | {copies(everyone, some, defect, study):.0%} |")
    return alarms


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sample", type=int, default=60, help="cases of each set into which defects are planted")
    sample, start = parser.parse_args().sample, time.monotonic()
    folder = os.environ.get("FEDSCAN_DATA", "")
    if not folder:
        print("FEDSCAN_DATA is not set: it names the folder of real scans", file=sys.stderr)
        return 2
    print("| set | planted | cases | found |\n|---|---|---|---|")
    alarms = {s.title: measure(Path(folder), s, sample, lambda line: print(line, flush=True)) for s in SETS}
    print("\n| set | clean cases | findings without cause |\n|---|---|---|")
    for title, counts in alarms.items():
        rest = ", ".join(f"`{code}` {n}" for code, n in sorted(counts.items()) if code != "cases")
        print(f"| {title} | {counts['cases']} | {rest or 'none'} |")
    print(f"\n{time.monotonic() - start:.0f} seconds", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())

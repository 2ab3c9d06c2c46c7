"""Preflight of the trainer's side: device and data. Says how many, never which."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from client.data.catalogue import look
from client.data.labels import label_map
from client.data.volume import Case, files_of
from client.desk.findings import Check, ok, problem
from client.device import pick_device
from client.site import SiteConfig
from common.errors import DataError, FedscanError
from common.study import Study, load_study

# A compressed 16-bit scan takes 0.8 to 1.5 bytes per voxel; prepared it takes 4, and 2 for labels, uncompressed. A plan
# with finer spacing than the scans' own takes more.
CACHE_FACTOR = 8


def device(config: SiteConfig) -> Check:
    """Whether the device that site.yaml names is there and does arithmetic."""
    try:
        found = pick_device(config.device)
        total = float(torch.ones(8, device=found).sum())
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        return problem("device", f"{config.device} cannot be used ({why})", "Correct `device` in site.yaml, or install "
                       "the driver and PyTorch for it")  # fmt: skip
    if total != 8:
        return problem("device", f"{found} miscalculates", "Have the hardware checked")
    if found.type == "cuda":
        about = torch.cuda.get_device_properties(found)
        return ok("device", f"{about.name}, {about.total_memory / 1e9:.0f} GB")
    if found.type == "cpu":
        return ok("device", f"CPU, {os.cpu_count()} cores (a round takes many times as long as on a GPU)")
    return ok("device", str(found))


def data(config: SiteConfig, home: Path, study_path: Path | None) -> Iterator[Check]:
    """Whether cases are found, whether they have labels, and whether their arrays will fit the disk."""
    study = None
    if study_path is not None:
        try:
            study = load_study(study_path)
        except FedscanError as error:
            yield problem("study", str(error), "Correct the study file, or leave --study out")
        except OSError as error:
            yield problem("study", f"{study_path} cannot be read ({error.strerror})", "Check the path")
    channels = study.data.channels if study is not None else ("",)
    if not os.access(config.data, os.R_OK):
        where = "does not exist" if not config.data.exists() else "may not be read by this user"
        yield problem("data", f"{config.data} {where}", "Correct `data` in site.yaml, or let this user read it")
        return
    try:
        found = look(config, len(channels), channels)
    except (DataError, OSError):
        # Its words may name a case.
        remedy = "Compare with the layouts that site.yaml may name; `fedscan simulate` on this folder names the file"
        yield problem("data", f"no cases can be listed in {config.data} (layout {config.layout})", remedy)
        return
    yield _labelled(config, found.layout, found.cases)
    if study is not None:
        yield _rules(config, study)
    yield _room(home, found.cases)


def _files(case: Case) -> list[Path]:
    return [file for source in (*case.images, *([case.label] if case.label else [])) for file in files_of(source)]


def _labelled(config: SiteConfig, layout: str, cases: Sequence[Case]) -> Check:
    with_label = sum(case.label is not None for case in cases)
    patients = len({case.patient for case in cases})
    said = f"{len(cases)} cases of {patients} patients (layout {layout}), {with_label} with a label"
    missing = sum(not path.exists() for case in cases for path in _files(case))
    if missing:
        return problem("data", f"{said}; {missing} of the files that are listed are not there", "Correct the table")
    if not with_label and config.use == "train":
        return problem("data", said, "Training needs labels: see the layout's rules for where they lie")
    return ok("data", said)


def _rules(config: SiteConfig, study: Study) -> Check:
    try:
        label_map(study.data.labels, config.labels, study.data.ignore, config.ignored)
    except FedscanError as error:
        return problem("labels", str(error), "Correct `labels` in site.yaml")
    return ok("labels", f"{', '.join(study.data.labels)}: each has a rule")


def _room(home: Path, cases: Sequence[Case]) -> Check:
    files = {path for case in cases for path in _files(case)}
    size = sum(path.stat().st_size for path in files if path.exists())
    where = home / "cache" if (home / "cache").is_dir() else home
    free, need = shutil.disk_usage(where).free, CACHE_FACTOR * size
    said = f"scans of {size / 1e9:.2g} GB, prepared up to {need / 1e9:.2g} GB; {free / 1e9:.0f} GB are free"
    if free < need:
        return problem("room", said, f"Make room in {where}, or mount a larger disk there")
    return ok("room", said)

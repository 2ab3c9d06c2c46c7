"""Nothing that identifies anybody is in any byte that leaves, also when all goes wrong.

Every header, file name and folder of the scans holds a marker, every UID of DICOM scans another. What the coordinator
got, what it wrote, what the link may read and what the logs say is searched for each: as it is, as base64, hex, UTF-16
and percent-encoded, and within gzip, zlib and zip streams found in it. That the search finds is shown first.
"""

import base64
import contextlib
import gzip
import io
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nibabel as nib
import pydicom
import pytest
import torch
import yaml
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from client.work.discretion import Discretion
from common.errors import RoundError
from server.report.run import write_run_report
from simulations.phantom import make_phantom
from tests.e2e.conftest import World
from tests.security.federation import Federation

MARK = "Zq7DOEJOHN"  # every marker begins so; letters and digits, that nothing else would write
UID = "47110815471108154711"  # in all UIDs, which have no letters


def spellings(mark: str) -> list[bytes]:
    """All that is looked for; of base64 what stands the same wherever in a text the marker does."""
    raw = mark.encode()
    found = [raw, raw.lower(), raw.upper(), raw[::-1], mark.encode("utf-16-le"), mark.encode("utf-16-be"),
             raw.hex().encode(), raw.hex().upper().encode(), quote(mark).encode()]  # fmt: skip
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * shift + raw)
            # The first letters also hold bits of what comes before, the last ones of what comes after.
            found.append(text[-(-shift * 8 // 6) : len(text) // 4 * 4 - 4])
    return found


def unpacked(raw: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes, and what is in every compressed stream that begins anywhere in them."""
    yield raw
    if depth == 2:
        return
    for sign, make in ((b"\x1f\x8b\x08", 31), (b"\x78\x9c", 15), (b"\x78\x01", 15), (b"\x78\xda", 15)):
        at = raw.find(sign)
        while at >= 0:
            with contextlib.suppress(zlib.error):
                yield from unpacked(zlib.decompressobj(make).decompress(raw[at:], 1 << 24), depth + 1)
            at = raw.find(sign, at + 1)
    at = raw.find(b"PK\x03\x04")
    if at >= 0:
        try:
            with zipfile.ZipFile(io.BytesIO(raw[at:])) as file:
                for name in file.namelist():
                    yield name.encode()
                    yield from unpacked(file.read(name), depth + 1)
        except (zipfile.BadZipFile, OSError):
            pass


def hits(raw: bytes) -> list[bytes]:
    marks = [*spellings(MARK), UID.encode()]
    return [mark for part in unpacked(raw) for mark in marks if mark in part]


def zipped(raw: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.txt", raw)
    return buffer.getvalue()


HIDING: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "base64": base64.b64encode,
    "base64 after one": lambda raw: base64.b64encode(b"?" + raw),
    "base64 after two": lambda raw: base64.b64encode(b"??" + raw + b"!"),
    "hex": lambda raw: raw.hex().encode(),
    "utf-16": lambda raw: raw.decode().encode("utf-16"),
    "gzip": gzip.compress,
    "gzip of base64": lambda raw: gzip.compress(base64.b64encode(raw)),
    "zlib": zlib.compress,
    "zip": zipped,
    "gzip in gzip": lambda raw: gzip.compress(b"x" + gzip.compress(raw)),
}


@pytest.mark.parametrize("how", HIDING)
def test_the_search_finds_what_is_hidden(how: str) -> None:
    noise = os.urandom(500)
    assert hits(noise + HIDING[how](f"{MARK}-7".encode()) + noise)
    assert not hits(noise)


@pytest.fixture
def marked(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Six phantoms, each with markers of its own in headers and names."""
    kind: Any = request.param
    root = make_phantom(tmp_path / f"{MARK}-root", sites=1, cases=6, format=kind)[0]
    (mark_dicom if kind == "dicom" else mark_nifti)(root)
    moved = root.with_name(f"{MARK}-ward")
    root.rename(moved)
    return moved


def mark_nifti(root: Path) -> None:
    for i, path in enumerate(sorted(root.rglob("*.nii.gz"))):
        image: Any = nib.load(path)
        image.header["descrip"] = f"{MARK}d{i}"
        image.header["aux_file"] = f"{MARK}a{i}"
        image.header["intent_name"] = f"{MARK}i{i}"
        case = path.name.replace("h1_", f"{MARK}c")
        marked: Any = nib.Nifti1Image
        nib.save(marked(image.get_fdata().astype("int16"), image.affine, image.header), path.with_name(case))
        path.unlink()


def mark_dicom(root: Path) -> None:
    """Every text that is free, names, numbers and private elements; UIDs keep pointing at what they pointed at."""
    for i, path in enumerate(sorted(p for p in (root / "scans").rglob("*") if p.is_file())):
        data = pydicom.dcmread(path)
        data.PatientID = f"{MARK}p{data.PatientID}"
        data.PatientName = f"{MARK}^Jane"
        for keyword in FREE:
            setattr(data, keyword, f"{MARK}t{i}"[:16])
        data.private_block(0x0099, f"{MARK}v", create=True).add_new(1, "LO", f"{MARK}w{i}")
        data.walk(mark_uid)
        data.file_meta.walk(mark_uid)
        data.save_as(path.with_name(f"{MARK}f{i}.dcm"))
        path.unlink()
    for case in sorted((root / "scans").iterdir()):
        case.rename(case.with_name(f"{MARK}{case.name}"))


FREE = (
    "PatientComments", "OtherPatientIDs", "PatientAddress", "InstitutionName", "InstitutionAddress", "StationName",
    "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "ReferringPhysicianName",
    "PerformingPhysicianName", "OperatorsName", "ImageComments", "DeviceSerialNumber", "ReasonForStudy",
)  # fmt: skip


def mark_uid(data: Dataset, element: DataElement) -> None:
    if element.VR == "UI" and str(element.value).startswith("2.25."):
        element.value = f"2.25.{UID}{element.value[-18:]}"


class Said(logging.StreamHandler[io.StringIO]):
    """What the processes' logs say, through the filter that the trainer's has."""

    def __init__(self, home: Path) -> None:
        super().__init__(io.StringIO())
        self.discretion = Discretion(home / "trainer")
        self.addFilter(self.discretion)
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))


@pytest.fixture
def federation(tmp_path: Path, marked: Path) -> Iterator[Federation]:
    world = World(tmp_path / "w")
    (tmp_path / "w").mkdir(exist_ok=True)
    made = Federation(world, marked)
    rules = marked / "site.yaml"
    labels = yaml.safe_load(rules.read_text())["labels"] if rules.exists() else {"liver": 1, "kidneys": 2}
    made.hospital.configure(data=str(marked / "scans" if rules.exists() else marked), labels=json.dumps(labels))
    yield made
    world.close()


def searched(federation: Federation, said: Said) -> None:
    """Everything outside the hospital, and what in it the link may read."""
    assert federation.captured
    for reply in federation.captured:
        assert hits(reply.everything) == []
    outside = [federation.folder / "run-1", federation.folder / "chain", federation.folder / "inbox"]
    files = [p for folder in outside for p in folder.rglob("*") if p.is_file()]
    files += [p for p in federation.hospital.mailbox.folder.iterdir() if p.is_file()]
    files += [federation.home / "trainer" / name for name in ("audit.jsonl", "egress.jsonl")]
    assert len(files) > 4
    for path in files:
        assert (path.name, hits(path.name.encode() + path.read_bytes())) == (path.name, [])
    assert isinstance(said.stream, io.StringIO)
    assert hits(said.stream.getvalue().encode()) == []


def corrupt(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = Path(federation.hospital.scans)
    path = sorted([*scans.rglob("imagesTr/*"), *scans.rglob("series-1/*")])[0]
    path.write_bytes(path.read_bytes()[:200])


def out_of_memory(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> float:
        raise torch.OutOfMemoryError(f"CUDA out of memory while /data/{MARK}/IM0001 was read")

    monkeypatch.setattr("client.app.train", full)


def crash(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> float:
        raise FileNotFoundError(2, "No such file or directory", f"/data/PACS/{MARK}/IM0001.dcm")

    monkeypatch.setattr("client.app.train", broken)


def no_validation(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.app.evaluate", crash)


TROUBLE: dict[str, Callable[[Federation, pytest.MonkeyPatch], None]] = {
    "none": lambda federation, patch: None,
    "a corrupt scan": corrupt,
    "out of memory": out_of_memory,
    "an error nobody expected": crash,
    "an error in the validation": no_validation,
}


@pytest.mark.parametrize(
    ("marked", "trouble"), [*(("nifti", t) for t in TROUBLE), ("dicom", "none"), ("dicom", "a corrupt scan")],
    indirect=["marked"],
)  # fmt: skip
def test_no_marker_leaves(
    trouble: str, federation: Federation, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said, root = Said(federation.home), logging.getLogger()
    root.addHandler(said)
    level, hospital = root.level, federation.hospital
    root.setLevel(logging.DEBUG)
    TROUBLE[trouble](federation, monkeypatch)
    study = hospital.study(rounds={"number": 2})
    ended = True
    try:
        with hospital.trainer(), federation.running() as server:
            try:
                federation.run(server, study)
            except RoundError:
                ended = False
    finally:
        root.setLevel(level)
        root.removeHandler(said)
        said.discretion._file.close()
    assert ended == (trouble not in ("out of memory", "an error nobody expected"))
    if ended:
        write_run_report(federation.folder / "run-1", study, "finished")
        assert (federation.folder / "run-1" / "report.html").exists()
    searched(federation, said)
    assert hits("".join(capfd.readouterr()).encode()) == []
    # They are all inside: the search would find them where they may be.
    inside = [p for p in (federation.home / "trainer").rglob("*") if p.is_file()]
    assert any(hits(p.read_bytes()) for p in inside)

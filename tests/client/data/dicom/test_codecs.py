"""Compressed pixels: encoders of pydicom's plug-ins and of GDCM write what our decoders read."""

from pathlib import Path

import gdcm
import numpy as np
import pytest
import SimpleITK

from client.data.dicom import codecs
from client.data.dicom.problems import Unreadable
from client.data.dicom.reading import read_stack
from client.data.dicom.scan import scan
from tests.client.data.dicom.series import data_sets, smooth, write
from tests.client.data.dicom.test_pixels import values_of

RLE, JPEG_LS, JPEG_LS_NEAR = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K, J2K_LOSSY = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"
LOSSLESS_14, LOSSLESS_1 = "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
BASELINE, EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"


def by_gdcm(source: Path, target: Path, syntax: gdcm.TransferSyntax) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("syntax", [RLE, JPEG_LS, J2K])
@pytest.mark.parametrize("kind", ["<i2", "<u2", "<u1"])
def test_lossless_by_pydicom(tmp_path: Path, syntax: str, kind: str) -> None:
    low, high = (-1000, 2000) if kind == "<i2" else (0, 60000) if kind == "<u2" else (0, 255)
    array = (smooth((3, 67, 65), 0, 1000).astype(float) / 1000 * (high - low) + low).astype(kind)
    sets = data_sets(array)
    for data in sets:
        # GDCM's RLE encoder aborts the process on odd widths.
        data.compress(syntax, generate_instance_uid=False, encoding_plugin="pydicom" if syntax == RLE else "")
    write(sets, tmp_path)
    assert np.array_equal(values_of(tmp_path), array)


@pytest.mark.parametrize(
    "syntax", [gdcm.TransferSyntax.JPEGLosslessProcess14, gdcm.TransferSyntax.JPEGLosslessProcess14_1,
               gdcm.TransferSyntax.JPEGLSLossless, gdcm.TransferSyntax.JPEG2000Lossless,
               gdcm.TransferSyntax.RLELossless],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["<i2", "<u2"])
def test_lossless_by_gdcm(tmp_path: Path, syntax: gdcm.TransferSyntax, kind: str) -> None:
    array = smooth((3, 32, 28), -1000 if kind == "<i2" else 0, 3000).astype(kind)
    (tmp_path / "packed").mkdir()
    for path in write(data_sets(array), tmp_path / "plain"):
        by_gdcm(path, tmp_path / "packed" / path.name, syntax)
    assert np.array_equal(values_of(tmp_path / "packed"), array)


@pytest.mark.parametrize("syntax", [gdcm.TransferSyntax.JPEGBaselineProcess1, gdcm.TransferSyntax.JPEG2000])
def test_lossy_is_what_simpleitk_decodes(tmp_path: Path, syntax: gdcm.TransferSyntax) -> None:
    array = smooth((3, 32, 28), 0, 250).astype(np.uint8)
    (tmp_path / "packed").mkdir()
    for path in write(data_sets(array), tmp_path / "plain"):
        by_gdcm(path, tmp_path / "packed" / path.name, syntax)
    (stack,), _, _ = scan(tmp_path / "packed")
    expected = np.concatenate([SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(f))) for f in stack.files])
    apart = np.abs(values_of(tmp_path / "packed").astype(int) - expected)
    # Decoders of DCT and wavelets may round the last bit differently (ITU-T T.83).
    assert apart.max() <= 1
    assert np.abs(values_of(tmp_path / "packed").astype(int) - array).max() < 25


def test_near_lossless_stays_within_its_bound(tmp_path: Path) -> None:
    array = smooth((3, 32, 28), 0, 4000).astype(np.uint16)
    sets = data_sets(array)
    for data in sets:
        data.compress(JPEG_LS_NEAR, jls_error=3, generate_instance_uid=False)
    write(sets, tmp_path)
    assert np.abs(values_of(tmp_path).astype(int) - array).max() <= 3


@pytest.mark.parametrize("uid", [uid for uid, syntax in codecs.SYNTAXES.items() if syntax.refused])
def test_refusals_name_the_syntax(uid: str) -> None:
    with pytest.raises(Unreadable, match=uid.replace(".", r"\.")) as caught:
        codecs.check_readable(uid)
    assert caught.value.reason == "transfer-syntax"
    assert codecs.SYNTAXES[uid].name in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs, "find_spec", lambda module: None)
    with pytest.raises(Unreadable, match=r"JPEG lossless.*install the package python-gdcm"):
        codecs.check_readable(LOSSLESS_1)
    codecs.check_readable(RLE)


def test_every_readable_syntax_has_its_package_installed() -> None:
    for uid, syntax in codecs.SYNTAXES.items():
        if not syntax.refused:
            codecs.check_readable(uid)


def test_truncated_frame_is_a_refusal(tmp_path: Path) -> None:
    sets = data_sets(smooth((3, 64, 64)))
    for data in sets:
        data.compress(J2K, generate_instance_uid=False)
    paths = write(sets, tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-300])
    (stack,), _, _ = scan(tmp_path)
    with pytest.raises(Exception, match="damaged"):
        read_stack(stack)

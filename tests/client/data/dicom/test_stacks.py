"""What is made of headers: order, spacing, volumes told apart. Positions and names are known by construction."""

from collections.abc import Sequence

import numpy as np
import pytest

from client.data.dicom.records import Frame
from client.data.dicom.stacks import Entry, stacks_of
from tests.client.data.dicom.series import entry


def codes(entries: Sequence[Entry]) -> tuple[list[str], set[str]]:
    stacks, findings = stacks_of(entries)
    return [s.name for s in stacks], {f.code for f in findings}


def line(count: int, step: float = 2.0, **changes: object) -> list[Entry]:
    return [entry(n, n * step, **changes) for n in range(count)]


def test_order_follows_positions_not_names_or_numbers() -> None:
    positions = [6.0, 0.0, 4.0, 2.0]
    (stack,), findings = stacks_of([entry(n, z) for n, z in enumerate(positions)])
    assert [positions[int(uid.rsplit(".", 1)[1]) - 1] for uid in stack.instances] == sorted(positions)
    assert stack.shape == (8, 8, 4)
    # LPS to RAS: the first two axes change their signs, in directions and origin.
    assert np.allclose(stack.affine, np.diag([-1, -1, 2, 1]))
    assert findings == []


def test_oblique_stack_has_the_standards_affine() -> None:
    # PS3.3 C.7.6.2.1.1: P = position + column index · column spacing · row cosines + row index · …
    turn = np.array([[0.8, 0.6, 0], [-0.36, 0.48, 0.8], [0.48, -0.64, 0.6]])
    entries = [
        entry(
            n, 0, position=tuple(turn[2] * 3.0 * n + [5, 6, 7]), orientation=(*turn[0], *turn[1]), spacing=(0.5, 0.25)
        )
        for n in range(5)
    ]
    (stack,), _ = stacks_of(entries[::-1])
    for column, row, k in ((0, 0, 0), (7, 2, 4)):
        lps = np.array([5, 6, 7]) + turn[0] * 0.25 * column + turn[1] * 0.5 * row + turn[2] * 3.0 * k
        assert np.allclose(stack.affine @ [column, row, k, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-9)


def test_missing_slice_is_an_error_and_the_volume_is_left_out() -> None:
    entries = line(9)
    names, found = codes(entries[:4] + entries[6:])
    assert names == []
    assert found == {"dicom-missing-slice"}
    (finding,) = stacks_of(entries[:4] + entries[6:])[1]
    assert "2 slice(s)" in finding.what


@pytest.mark.parametrize(
    ("off", "expected"), [(0.004, set()), (0.03, {"dicom-uneven-slices"}), (0.5, {"dicom-uneven-slices"})]
)
def test_uneven_slices(off: float, expected: set[str]) -> None:
    entries = [entry(n, 2.0 * n + (off * 2.0 if n == 4 else 0)) for n in range(9)]
    stacks, findings = stacks_of(entries)
    assert {f.code for f in findings} == expected
    assert len(stacks) == (off < 0.1)


def test_a_slice_under_another_instance_uid_is_refused_where_nothing_tells() -> None:
    assert codes([*line(6), entry(20, 4.0)]) == ([], {"dicom-duplicate-slice"})


def test_copies_of_files_are_passed_over() -> None:
    double = entry(2, 4.0)
    copy = Entry(double.file.with_name("copy"), 1, 1, double.header)
    assert codes([*line(6), copy]) == ([""], {"dicom-copies"})


def test_gantry_tilt_is_refused() -> None:
    entries = [entry(n, 0, position=(0.0, n * 0.5, n * 2.0)) for n in range(9)]
    assert codes(entries) == ([], {"dicom-gantry-tilt"})


def test_slices_moved_within_their_planes_are_refused() -> None:
    entries = [entry(n, 0, position=(0.0, 3.0 * (n % 2), n * 2.0)) for n in range(8)]
    assert codes(entries) == ([], {"dicom-shifted-slices"})


def test_mixed_orientations_become_volumes_of_their_own() -> None:
    coronal = [
        entry(10 + n, 0, position=(0.0, 2.0 * n, 0.0), orientation=(1.0, 0.0, 0.0, 0.0, 0.0, -1.0)) for n in range(4)
    ]
    assert codes(line(5) + coronal) == (["plane=axial", "plane=coronal"], {"dicom-mixed-series"})


def test_two_sizes_in_one_series_become_two_volumes() -> None:
    other = [entry(10 + n, 2.0 * n, rows=16, columns=16) for n in range(3)]
    assert codes(line(5) + other) == (["size=8x8", "size=16x16"], {"dicom-mixed-series"})


def test_a_frame_of_reference_for_every_slice_is_one_volume() -> None:
    entries = [entry(n, 2.0 * n, frame_of_reference=f"1.9.{n + 1}") for n in range(4)]
    (stack,), findings = stacks_of(entries)
    assert stack.frame_of_reference == ("1.9.1", "1.9.2", "1.9.3", "1.9.4")
    assert findings == []


def several(**values: Sequence[object]) -> list[Entry]:
    """Five places; at each, one slice per value of a mark."""
    (mark, each), count = next(iter(values.items())), len(next(iter(values.values())))
    return [
        entry(count * place + n, 2.0 * place, marks={mark: value}) for place in range(5) for n, value in enumerate(each)
    ]


@pytest.mark.parametrize(
    ("entries", "names"),
    [
        (several(b=(50.0, 400.0, 800.0)), ["b=50", "b=400", "b=800"]),
        (several(echo=(1.0, 2.0)), ["echo=1", "echo=2"]),
        (several(te=(4.6, 2.3)), ["te=2.3", "te=4.6"]),
        (several(time=(1.0, 2.0, 10.0)), ["t=01", "t=02", "t=10"]),
        (several(type=("ORIGINAL\\PRIMARY\\M", "ORIGINAL\\PRIMARY\\P")), ["type=M", "type=P"]),
        (several(acquisition=(3.0, 4.0)), ["acq=3", "acq=4"]),
        (several(kernel=("B30f", "B70f")), ["kernel=B30f", "kernel=B70f"]),
    ],
)
def test_volumes_are_named_by_the_mark_that_tells_them_apart(entries: list[Entry], names: list[str]) -> None:
    stacks, findings = stacks_of(entries)
    assert [s.name for s in stacks] == names
    assert [len(s.files) for s in stacks] == [5] * len(names)
    assert {f.code for f in findings} == {"dicom-several-volumes"}


def test_trigger_times_that_differ_per_slice_are_ranked() -> None:
    entries = [
        entry(3 * place + n, 2.0 * place, marks={"trigger": 100.0 * n + place}) for place in range(5) for n in range(3)
    ]
    stacks, _ = stacks_of(entries)
    assert [s.name for s in stacks] == ["t=1", "t=2", "t=3"]
    assert stacks[1].instances == tuple(f"1.2.3.{3 * place + 2}" for place in range(5))


def test_two_marks_tell_apart_together() -> None:
    entries = [
        entry(9 * place + n, 2.0 * place, marks={"b": b, **({"direction": d} if d else {})})
        for place in range(4)
        for n, (b, d) in enumerate([(0.0, ""), (1000.0, "1 0 0"), (1000.0, "0 1 0")])
    ]
    assert codes(entries)[0] == ["b=0", "b=1000,dir=1", "b=1000,dir=2"]


def test_a_mark_that_changes_from_slice_to_slice_splits_nothing() -> None:
    entries = [entry(n, 2.0 * n, marks={"acquisition": float(n), "content": float(n)}) for n in range(6)]
    assert codes(entries) == ([""], set())


def test_where_only_the_number_tells_it_is_said() -> None:
    entries = [entry(place + 5 * n, 2.0 * place) for place in range(5) for n in range(2)]
    names, found = codes(entries)
    assert names == ["n=1", "n=2"]
    assert found == {"dicom-split-by-number"}


def test_a_missing_slice_of_one_time_point_spoils_only_that_one() -> None:
    entries = [e for e in several(time=(1.0, 2.0, 3.0)) if e.header.instance != "1.2.3.8"]
    names, found = codes(entries)
    assert names == ["t=1", "t=3"]
    assert found == {"dicom-missing-slice", "dicom-several-volumes"}


def test_a_time_point_cut_off_at_its_end_is_noticed() -> None:
    entries = [e for e in several(time=(1.0, 2.0)) if e.header.instance != "1.2.3.10"]
    names, found = codes(entries)
    assert names == ["t=1", "t=2"]
    assert found == {"dicom-incomplete-volume", "dicom-several-volumes"}


def test_two_ranges_of_one_series_are_told_apart_by_acquisition() -> None:
    first = [entry(n, 2.0 * n, marks={"acquisition": 1.0}) for n in range(6)]
    second = [entry(10 + n, 100.7 + 2.0 * n, marks={"acquisition": 2.0}) for n in range(4)]
    assert codes(first + second)[0] == ["acq=1", "acq=2"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"samples": 3, "photometric": "RGB"}, "dicom-colour"),
        ({"modality": "US"}, "dicom-modality"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.7", "position": None}, "dicom-secondary-capture"),
        ({"facts": {"image_type": "ORIGINAL\\PRIMARY\\LOCALIZER"}}, "dicom-localiser"),
        ({"facts": {"image_type": "ORIGINAL\\PRIMARY\\M\\MOSAIC"}}, "dicom-mosaic"),
        ({"position": None}, "dicom-no-position"),
        ({"orientation": (1.0, 0.0, 0.0, 0.5, 0.5, 0.0)}, "dicom-orientation"),
        ({"syntax": "1.2.840.10008.1.2.4.93"}, "dicom-transfer-syntax"),
        ({"problem": "cut off"}, "dicom-damaged"),
        ({"frames": (Frame(), Frame())}, "dicom-film"),
    ],
)
def test_what_is_no_volume_is_named(changes: dict[str, object], code: str) -> None:
    assert codes([entry(n, 2.0 * n, **changes) for n in range(3)]) == ([], {code})


def test_one_unreadable_slice_leaves_the_whole_volume_out() -> None:
    # Without it the volume would be shorter, and nothing would show it.
    entries = [*line(5), entry(5, 10.0, problem="cut off")]
    assert codes(entries) == ([], {"dicom-damaged"})


def test_enhanced_frames_are_slices_of_one_file() -> None:
    frames = tuple(
        Frame(position=(0, 0, z), orientation=(1, 0, 0, 0, 1, 0), spacing=(1, 1), marks={"time": t})
        for t in (1.0, 2.0)
        for z in (4.0, 2.0, 0.0)
    )
    stacks, _ = stacks_of([entry(0, 0, frames=frames)])
    assert [(s.name, s.frames) for s in stacks] == [("t=1", (2, 1, 0)), ("t=2", (5, 4, 3))]
    assert stacks[0].files == (stacks[0].files[0],) * 3


def test_projection_pictures_have_rows_first() -> None:
    (stack,), _ = stacks_of([entry(0, 0, modality="MG", position=None, orientation=None, rows=20, columns=10,
                                   spacing=(0.2, 0.1))])  # fmt: skip
    assert stack.shape == (20, 10)
    assert np.allclose(stack.affine, np.diag([0.2, 0.1, 1, 1]))

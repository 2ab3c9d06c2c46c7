"""What a site keeps between rounds: only counted states are gone on with, and the best round's is still there."""

from pathlib import Path

import pytest
import torch

from client.work.state import SiteState
from common.errors import CheckpointError


def stage(state: SiteState, *rounds: int) -> None:
    for number in rounds:
        state.stage(number, {"x": torch.tensor([number])})


def loaded(state: SiteState, counted: int) -> int:
    found = state.load(counted)
    return int(found["x"]) if found else 0


def rounds(folder: Path) -> list[int]:
    return sorted(int(p.stem[6:]) for p in folder.iterdir())


def test_nothing_is_kept_at_the_start(tmp_path: Path) -> None:
    assert SiteState(tmp_path / "none").load(0) == {}


def test_a_lost_reply_never_puts_the_site_ahead(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    stage(state, 1, 2)
    # Round 2's reply was lost: round 3 begins with 1 as the last counted.
    state.clean(acknowledged=1)
    assert loaded(state, 1) == 1
    stage(state, 3)
    state.clean(acknowledged=3)
    assert rounds(tmp_path) == [3]
    assert loaded(state, 3) == 3


def test_a_round_done_twice_starts_from_the_same_state(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    stage(state, 1, 2)
    for _ in range(2):
        state.clean(acknowledged=1)
        assert loaded(state, 1) == 1
        stage(state, 2)


def test_the_best_round_is_kept(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    for number in range(1, 7):
        state.clean(acknowledged=number - 1, best=2 if number > 2 else number - 1)
        stage(state, number)
    assert rounds(tmp_path) == [2, 5, 6]
    assert loaded(state, min(6, 2)) == 2


def test_the_best_round_was_one_that_the_site_missed(tmp_path: Path) -> None:
    """Its reply of round 2 was late, and round 2 became the best: what counts there is round 1."""
    state = SiteState(tmp_path)
    stage(state, 1, 2)
    state.clean(acknowledged=1, best=2)
    stage(state, 3)
    state.clean(acknowledged=3, best=2)
    assert rounds(tmp_path) == [1, 3]
    assert loaded(state, min(3, 2)) == 1


def test_a_damaged_state_is_said(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    stage(state, 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"round-00001\.safetensors is damaged; put it back from a backup"):
        state.load(1)


def test_what_training_needs_and_is_gone_is_said(tmp_path: Path) -> None:
    state = SiteState(tmp_path)
    assert state.load(0, needed=True) == {}
    stage(state, 2)
    assert state.load(2, needed=True)
    with pytest.raises(CheckpointError, match=r"round-00003\.safetensors is gone, and without it"):
        state.load(3, needed=True)
    assert loaded(state, 3) == 2

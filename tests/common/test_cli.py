from common.quiet import SWITCHES

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from common import cli
from common.errors import DataError, FedscanError, StudyError

ROOT = Path(__file__).parent.parent.parent


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_help_lists_commands_without_loading_the_heavy_libraries() -> None:
    result = python(
        "import sys, json; from common.cli import run; code = run(['--help']);"
        "print(json.dumps([code, [m for m in ('torch', 'monai', 'flwr', 'ray', 'pydantic') if m in sys.modules]]))"
    )
    *text, last = result.stdout.splitlines()
    assert json.loads(last) == [0, []]
    overview = " ".join(" ".join(text).split())
    for name, module in (("study", "common.study_cli"), ("simulate", "simulations.cli")):
        first = (importlib.import_module(module).__doc__ or "").splitlines()[0]
        assert f"{name} {first}" in overview


def test_libraries_are_silenced_before_they_are_imported() -> None:
    result = python("import os, json, common.cli; print(json.dumps(dict(os.environ)))")
    environment = json.loads(result.stdout)
    assert {key: environment[key] for key in SWITCHES} == SWITCHES


def test_flower_reads_the_telemetry_switch() -> None:
    # The oracle is Flower's own flag, read when it is imported; an upgrade that renames the switch fails here.
    result = python("import common.quiet; from flwr.supercore.telemetry import FLWR_TELEMETRY_ENABLED as on; print(on)")
    assert result.stdout.strip() == "0", result.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("fedscan 0.")


def test_mistyped_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["simulat"]) == 2
    assert "there is no command 'simulat'. Did you mean 'simulate'?" in capsys.readouterr().err


def test_mistyped_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["study", "chek"]) == 2
    assert "check" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (StudyError("study.yaml:3: rate: wrong"), 2, "error: study.yaml:3: rate: wrong\n"),
        (StudyError("a: one\nb: two"), 2, "error: 2 things are wrong\n  a: one\n  b: two\n"),
        (DataError("no scans"), 1, "error: no scans\n"),
        (FedscanError(""), 1, "error: FedscanError\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_expected_errors_become_a_message_and_an_exit_code(
    raised: BaseException, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: click.Command("study", callback=fail))
    assert cli.run(["study"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.lstrip("\n") == says


def test_unexpected_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.Commands, "get_command", lambda *_: click.Command("study", callback=lambda: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        cli.run(["study"])


def test_without_entry_points_the_user_learns_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: ())
    assert cli.run(["study"]) == 2
    assert "pip install" in capsys.readouterr().err
    assert cli.run(["--help"]) == 0
    assert "pip install" in capsys.readouterr().out

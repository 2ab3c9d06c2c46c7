"""The rules of the house that a linter cannot say: who may import what, nothing that runs data as code."""

import ast
import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("server", "client", "common", "simulations")

# Third parties and the only places that may import them.
ROOMS = {
    "pydicom": ("client/data/", "simulations/dicom"),
    "highdicom": ("client/data/", "simulations/dicom"),
    "nibabel": ("client/data/", "simulations/phantom", "simulations/dicom"),
    "tifffile": ("client/data/",),
    "matplotlib": ("server/report/", "simulations/"),
}
FLOWER_PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}
FLOWER_PRIVATE_ROOMS = (
    "server/link.py",
    "server/port/fleet_api.py",
    "client/network/fleet.py",
    "client/network/things.py",
    "common/wire.py",
)
PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
UNSAFE = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "torch.load", "numpy.load"}


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from flwr import server` names a module as `from flwr.server import x` does.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def misplaced_imports(where: str, tree: ast.Module) -> list[str]:
    found = []
    for name in imported(tree):
        top = name.partition(".")[0]
        if top in ROOMS and not where.startswith(ROOMS[top]):
            found.append(name)
        private = top == "flwr" and ".".join(name.split(".")[:2]) not in FLOWER_PUBLIC
        if private and where not in FLOWER_PRIVATE_ROOMS:
            found.append(name)
    return found


def unsafe_calls(tree: ast.Module) -> list[str]:
    found = [name for name in imported(tree) if name.partition(".")[0] in PICKLERS]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).replace("np.", "numpy.")
        if called in RUNS_CODE or called in UNSAFE:
            plain = any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)
            if not (called == "numpy.load" and plain):
                found.append(called)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_module_keeps_the_rules(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert misplaced_imports(str(path.relative_to(ROOT)), tree) == []
    assert unsafe_calls(tree) == []


@pytest.mark.parametrize(
    ("where", "code", "found"),
    [
        ("common/x.py", "import nibabel as nib", ["nibabel"]),
        ("server/x.py", "from matplotlib import pyplot", ["matplotlib.pyplot"]),
        ("server/rounds.py", "from flwr.common import Message", ["flwr.common.Message"]),
        ("server/rounds.py", "from flwr import server", ["flwr.server"]),
        ("client/app.py", "from flwr.app import Message", []),
        ("common/wire.py", "from flwr.supercore.task_identity import TaskIdentity", []),
    ],
)
def test_misplaced_imports_are_found(where: str, code: str, found: list[str]) -> None:
    assert misplaced_imports(where, ast.parse(code)) == found


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "eval('1')", "torch.load(f)", "yaml.load(f, Loader=L)", "np.load(f)",
     "np.load(f, allow_pickle=True)", "exec(text)"],
)  # fmt: skip
def test_unsafe_calls_are_found(code: str) -> None:
    assert unsafe_calls(ast.parse(code))


def test_safe_calls_are_not_reported() -> None:
    assert unsafe_calls(ast.parse("np.load(f, allow_pickle=False)\nnet.eval()\nyaml.safe_load(f)")) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_names_resolve_inside_the_project(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert {Path(p).resolve() for p in spec.submodule_search_locations} == {(ROOT / package).resolve()}


def test_tests_are_no_package() -> None:
    # With an __init__.py, tests/client would hide the package client from pytest.
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_readme_holds_the_one_test_command_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    rule = next(line for line in script.splitlines() if line.startswith('command="$(awk'))
    result = subprocess.run(
        ["bash", "-c", f'{rule}\nprintf %s "$command"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    install = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]"'
    assert result.stdout == f"{install} && .venv/bin/pytest -n 3 --dist loadfile"

"""The examples of CONTRIBUTING.md run as they are printed."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from common.registry import OptionsError, Registry
from common.study import Study
from common.wire import Schema
from server.spool import Spool
from server.strategies.base import Fold

ROOT = Path(__file__).parent.parent


def example(number: int, folder: Path) -> ModuleType:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    path = folder / "example.py"
    path.write_text(blocks[number], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("contributed_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example(0, tmp_path)
    monkeypatch.setitem(sys.modules, "contributed_example", module)
    nets = Registry("net", {"linear": "contributed_example:linear"})
    options: dict[str, Any] = nets.check("linear", {"width": 5})
    net = nets.get("linear")(2, 1, 3, **options)
    assert net(torch.zeros(1, 1, 8, 8)).shape == (1, 3, 8, 8)
    # A convolution's parameters: kernel area times channels in and out, and a bias for each output.
    assert sum(p.numel() for p in net.parameters()) == 5 * 5 * 1 * 3 + 3
    with pytest.raises(OptionsError):
        nets.check("linear", {"width": 10})


def test_the_strategy(tmp_path: Path) -> None:
    strategy = example(1, tmp_path).Damped(rate=0.25)
    study = Study.model_validate(
        {
            "name": "t",
            "data": {"labels": ["a"], "dimensions": 2},
            "plan": {"patch": [32, 32]},
            "net": {"name": "dynunet", "size": "small"},
            "training": {"steps": 1},
        }
    )
    schema = Schema.of(study)
    spool = Spool(tmp_path / "spool", schema)
    n = schema.sizes["float32"]
    for site, value in (("a", 1.0), ("b", 2.0), ("c", 99.0)):
        spool.add(1, site, {"float32": np.full(n, value, np.float32)}, {"num-examples": 1.0})
    base = {"float32": np.full(n, 2.0, np.float32)}
    replies = spool.replies(1, ("a", "b", "c"))
    folded = strategy.fold(Fold(study, schema, replies, [1.0, 1.0, 1.0], base, 1, {}))
    assert folded["float32"].dtype == np.float32
    # The mean is 34; a quarter of the way from 2.
    assert set(folded["float32"]) == {2.0 + 0.25 * 32.0}

"""Do no harm: at the end of a run a site takes the model that is best on its own validation cases, whichever it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from client.corrections import Kept, under
from client.evaluation import CaseResult, evaluate, summary
from client.open_site import OpenSite
from client.own_layers import initial
from client.training import Span, make_optimizer, train
from client.work.results import write_results
from common.disk import write_whole
from common.errors import CheckpointError
from common.own_choice import CANDIDATES, CHOSEN, JUDGED, PREFIX, Candidate, candidates, score_of
from common.seeds import derive
from common.study import Study
from common.study_training import Training
from common.wire import Task

CHOICE, NAME, KEY = "chosen.safetensors", "candidate", "key"


@dataclass(frozen=True)
class Choice:
    """One site's choice at the end of one run.

    Attributes:
        site: The site.
        study: What was run.
        task: The final test.
        net: On its device, as the final test was made with it: the global weights, and the site's own layers.
        loss_of: The study's loss.
        kept: What the site kept of the round whose weights are tested.
        base: Hash of the weights that came.
        small: What is said of fewer cases is left out.
    """

    site: OpenSite
    study: Study
    task: Task
    net: nn.Module
    loss_of: nn.Module
    kept: Kept
    base: str
    small: int

    @property
    def folder(self) -> Path:
        """Where the candidates lie, and at the end the chosen one."""
        return choice_folder(self.site.home, self.task.run)

    def make(self, tested: list[CaseResult]) -> dict[str, float]:
        """Make the candidates, choose, and test the chosen one.

        The chosen model stays in the site's folder, unless it is the global one. Test cases have no say in the choice.

        Args:
            tested: The global model's results on the test cases.

        Returns:
            What the site tells of it, see `common.own_choice`.

        Raises:
            TrainingError: A candidate's loss became NaN or infinite.
            StorageError: The disk is full.
        """
        states: dict[Candidate, dict[str, Tensor]] = {"global": _copy(self.net)}
        judged: dict[Candidate, list[CaseResult]] = {}
        for name in candidates(self.study):
            state = states.get(name) or self._state(name, states["global"])
            if state is not None:
                states[name], judged[name] = state, self._judge(state)
        scores = {name: summary(results, self.study) for name, results in judged.items()}
        # Python's max takes the first of equal ones.
        chosen = max(scores, key=lambda name: scores[name]["dice"])
        if chosen != "global":
            self.net.load_state_dict(states[chosen])
            tested = evaluate(self.net, self.site.data(self.study).test, self.study, self.site.workplace.device)
        self._keep(chosen, states[chosen])
        path = self.site.home / "results" / self.task.run / f"round-{self.task.round:05d}-test-own.json"
        write_results(path, self.study, tested)
        return self._told(chosen, judged, tested)

    def _state(self, name: Candidate, start: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """The candidate's tensors; none where the site has no such candidate: it took no part in the training."""
        own, training, rounds = self.study.evaluation.own, self.study.training, self.study.rounds.number
        if own is None or not self.task.acknowledged:
            return None
        count = self.site.steps(self.study)
        if name == "finetuned":
            rate = own.rate if own.rate is not None else training.rate / 10
            settings = training.model_copy(update={"rate": rate, "warmup": 0})
            return self._trained(name, lambda: start, settings, rounds * count, own.finetune)
        if name == "local":
            # It begins at random, also where the study begins with given weights: then it must learn all of the net.
            settings = training if self.study.start is None else training.model_copy(update={"freeze": ()})
            return self._trained(name, lambda: initial(self.study), settings, 0, rounds * count)
        return under("personal.net.", self.kept) or None

    def _trained(
        self, name: Candidate, start: Callable[[], dict[str, Tensor]], settings: Training, first: int, count: int
    ) -> dict[str, Tensor]:
        """The net after `count` steps from `start` on, on the site's batches from `first` on; made once."""
        site, batches = self.site, self.site.batches(self.study)
        key = f"{self.study.digest()} {self.task.round} {self.task.acknowledged} {self.base} {batches.stream}"
        path = self.folder / f"{name}.safetensors"
        found = _read(path, key)
        if found is not None:
            return found
        self.net.load_state_dict(start())
        optimizer, progress = make_optimizer(self.net, settings), site.progress(derive(batches.stream, name), count)
        torch.manual_seed(derive(batches.stream, "dropout", name))
        still = batches.prefetch(first + progress.done, count - progress.done)
        train(
            self.net, self.loss_of, optimizer, still, settings, Span(0, count, count), None, site.on_step, progress
        )  # fmt: skip
        state = _copy(self.net)
        write_whole(path, lambda part: save_file(state, part, metadata={KEY: key}))
        return state

    def _judge(self, state: dict[str, Tensor]) -> list[CaseResult]:
        self.net.load_state_dict(state)
        cases = self.site.data(self.study).validation
        return evaluate(self.net, cases, self.study, self.site.workplace.device, self.site.on_case)

    def _keep(self, chosen: Candidate, state: dict[str, Tensor]) -> None:
        if chosen != "global":
            write_whole(self.folder / CHOICE, lambda part: save_file(state, part, metadata={NAME: chosen}))
        for path in self.folder.glob("*.safetensors"):
            if path.name != CHOICE or chosen == "global":
                path.unlink()

    def _told(
        self, chosen: Candidate, judged: dict[Candidate, list[CaseResult]], tested: list[CaseResult]
    ) -> dict[str, float]:
        by = {name: summary(results, self.study, self.small) for name, results in judged.items()}
        cases = by["global"]["num-examples"]
        scores = {score_of(n): by[n]["dice"] if cases and n in by else 0.0 for n in candidates(self.study)}
        test = {PREFIX + key: value for key, value in summary(tested, self.study, self.small).items()}
        return {CHOSEN: CANDIDATES.index(chosen), JUDGED: cases, **scores, **test}


def choice_folder(home: Path, run: str) -> Path:
    """Where a site keeps its choice of one run; goes with what else it keeps of the run."""
    return home / "state" / run / "own"


def read_choice(home: Path, run: str) -> tuple[Candidate, dict[str, Tensor]] | None:
    """Name and tensors of the model that the site in `home` chose instead of the global one; raises CheckpointError."""
    path = choice_folder(home, run) / CHOICE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            candidate = next(c for c in CANDIDATES if c == file.metadata()[NAME])
            return candidate, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, StopIteration):
        raise CheckpointError(f"{path} is damaged; remove it to go on without it") from None


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    """A candidate that was made before; none where it is another's, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(KEY) != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 -- it is no dictionary
    except (FileNotFoundError, SafetensorError, OSError):
        return None


def _copy(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone().contiguous() for name, value in net.state_dict().items()}

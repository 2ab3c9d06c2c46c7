"""The state of a run between two rounds, on disk whole or not at all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from common.disk import write_whole
from common.errors import CheckpointError
from common.wire import Flat, Schema


@dataclass
class State:
    """Everything of a run but the weights.

    Attributes:
        digest: The study's; another study's state is refused.
        round: The last round that counted, 0 at the start.
        best_round: The round whose weights had the best validation metric so far, 0 for none.
        best_metric: That metric.
        acknowledged: The last counted round of each site.
        replies: Hash of each site's last counted reply, where replies are signed.
        memory: Whether the strategy keeps something at the server.
        seconds: Time spent so far, over all processes that worked on the run.
        finished: Whether the final evaluation is done.
    """

    digest: str
    round: int = 0
    best_round: int = 0
    best_metric: float = -1.0
    acknowledged: dict[str, int] = field(default_factory=dict)
    replies: dict[str, str] = field(default_factory=dict)
    memory: bool = False
    seconds: float = 0.0
    finished: bool = False


class Checkpoints:
    """The checkpoints of one run: the newest and the best are kept.

    Weights and what the strategy keeps (its memory) are written first, under names of their own; `state.json` names
    them and is replaced last, so whatever moment a crash chooses, `state.json` and all that it names are whole.
    """

    def __init__(self, folder: Path, digest: str, schema: Schema) -> None:
        self._folder = folder
        self._digest = digest
        self._schema = schema
        folder.mkdir(parents=True, exist_ok=True)

    def state(self) -> State | None:
        """The state on disk, None for a run that has none; raises CheckpointError for another study's or a torn one."""
        path = self._folder / "state.json"
        if not path.exists():
            return None
        try:
            state = State(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise CheckpointError(f"{path} is damaged; remove the run's folder to start it anew") from None
        if state.digest != self._digest:
            raise CheckpointError(
                f"{path} belongs to study {state.digest[:12]}, not to {self._digest[:12]}: the study was changed since "
                "the run began; give another --out, or undo the change"
            )
        return state

    def write(self, state: State, flat: Flat | None = None, memory: Mapping[str, Flat] | None = None) -> None:
        """Make `state`, and with it `flat` and `memory`, the weights and the strategy's memory of its round, the run's.

        Both are given for a new round; neither for another word on the round that is there.
        """
        if flat is not None:
            write_whole(self.path(state.round), lambda part: save_file(flat, part))
            state.memory = bool(memory)
        if memory:
            kept = {f"{name}/{key}": values for name, flats in memory.items() for key, values in flats.items()}
            write_whole(self._memory(state.round), lambda part: save_file(kept, part))
        text = json.dumps(asdict(state), indent=1)
        write_whole(self._folder / "state.json", lambda part: part.write_text(text, encoding="utf-8"))
        stay = {self.path(state.round), self.path(state.best_round), self._memory(state.round)}
        for path in self._folder.glob("*.safetensors"):
            if path not in stay:
                path.unlink()

    def weights(self, round_number: int) -> Flat:
        """The global weights after a round that is kept; raises CheckpointError when they are damaged."""
        path = self.path(round_number)
        try:
            flat: Flat = load_file(path)
        except (SafetensorError, OSError):
            raise CheckpointError(f"{path} is missing or damaged; remove the run's folder to start it anew") from None
        if {k: v.shape for k, v in flat.items()} != {k: (n,) for k, n in self._schema.sizes.items()}:
            raise CheckpointError(f"{path} does not hold this study's net; remove the run's folder to start it anew")
        return flat

    def memory(self, state: State) -> dict[str, Flat]:
        """What the strategy kept after `state`'s round, empty if nothing; raises CheckpointError when it is damaged."""
        if not state.memory:
            return {}
        path = self._memory(state.round)
        try:
            kept = load_file(path)
        except (SafetensorError, OSError):
            raise CheckpointError(f"{path} is missing or damaged; remove the run's folder to start it anew") from None
        memory: dict[str, Flat] = {}
        for name, values in kept.items():
            what, _, key = name.partition("/")
            memory.setdefault(what, {})[key] = values
        return memory

    def _memory(self, round_number: int) -> Path:
        return self._folder / f"server-{round_number:05d}.safetensors"

    def path(self, round_number: int) -> Path:
        """Where the weights after a round lie."""
        return self._folder / f"round-{round_number:05d}.safetensors"

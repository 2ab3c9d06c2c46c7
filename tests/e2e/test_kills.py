"""`kill -9` of the server, of a site's link and of its trainer: the study ends as if nothing had happened.

Every run is held against the undisturbed simulation: the weights of the last and of the best round, every site's loss
and Dice in every round, bit for bit. Who was killed is started again at once, as systemd and `fedscan site start` do.
"""

import random
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.e2e.crash import Trouble, owner_of
from tests.e2e.deployment import SERVER
from tests.e2e.toy import Toy

LINK, TRAINER = "site-01.link", "site-01.trainer"
ALL = f"{SERVER} {LINK} {TRAINER} site-02.link site-02.trainer"
STEP = "client.training:rate_at"

# Where, who is there, at which call, what happens, to whom. Two sites, three rounds of three steps.
POINTS: dict[str, dict[str, tuple[str, Trouble]]] = {
    "server": {
        "before the first question": (SERVER, Trouble("server.manifests:write_whole")),
        "while sites join": (SERVER, Trouble("server.service.gathering:member", 2)),
        "before the members are noted": (SERVER, Trouble("server.service.gathering:write_whole")),
        "while the first weights are written": (SERVER, Trouble("server.checkpoint:save_file", 1, "torn")),
        "before a manifest is noted": (SERVER, Trouble("server.manifests:write_whole", 2)),
        "during download": (SERVER, Trouble("server.link:object_answer", 12)),
        "during training": (TRAINER, Trouble(STEP, 5, whom=SERVER)),
        "during upload": (SERVER, Trouble("server.port.inbox:Inbox.put", 14)),
        "after upload": (SERVER, Trouble("server.link:assemble", 3)),
        "during spool": (SERVER, Trouble("server.spool:save_file", 2, "torn")),
        "after spool": (SERVER, Trouble("server.rounds:Run._trained", 2)),
        "before fold": (SERVER, Trouble("server.spool:Spool.close", 2)),
        "during fold": (SERVER, Trouble("server.spool:Reply.read", 3)),
        "after fold": (SERVER, Trouble("server.rounds:Run._validate", 2)),
        "during validation": (TRAINER, Trouble("client.app:evaluate", 2, whom=SERVER)),
        "during checkpoint": (SERVER, Trouble("server.checkpoint:save_file", 2, "torn")),
        "between weights and state": (SERVER, Trouble("server.checkpoint:write_whole", 4)),
        "between rounds": (SERVER, Trouble("server.spool:Spool.clear", 2)),
        "before the final test": (SERVER, Trouble("server.rounds:Run._final_test")),
        "after the last state": (SERVER, Trouble("server.rounds:read_events")),
        "before the run is noted as finished": (SERVER, Trouble("server.service.queue:Queue.mark", 2)),
    },
    "link": {
        "before download": (LINK, Trouble("client.link:read_layout", 2)),
        "during download": (LINK, Trouble("client.network.download:_write", 3)),
        "after download": (LINK, Trouble("client.network.open_task:OpenNote.write", 3)),
        "before the task is confirmed": (LINK, Trouble("client.network.fleet:Fleet.confirm", 2)),
        "during training": (TRAINER, Trouble(STEP, 5, whom=LINK)),
        "before upload": (LINK, Trouble("client.network.fleet:Fleet.announce", 2)),
        "during upload": (LINK, Trouble("client.network.fleet:Fleet.push", 7)),
        "after upload": (LINK, Trouble("client.network.open_task:OpenNote.write", 4)),
        "during validation": (TRAINER, Trouble("client.app:evaluate", 2, whom=LINK)),
        "while its status is written": (LINK, Trouble("client.network.standing:Standing.write", 9)),
    },
    "trainer": {
        "while scans are prepared": (TRAINER, Trouble("client.data.cache:_publish", 3)),
        "during download": (LINK, Trouble("client.network.download:_write", 3, whom=TRAINER)),
        "before a task is accepted": (TRAINER, Trouble("client.work.tasks:Intake.keep", 2)),
        "before training": (TRAINER, Trouble("client.app:train", 2)),
        "during training": (TRAINER, Trouble(STEP, 5)),
        "during the checkpoint of a round": (TRAINER, Trouble("client.work.midround:save_file", 4, "torn")),
        "after training": (TRAINER, Trouble("client.work.state:save_file", 2, "torn")),
        "before the reply": (TRAINER, Trouble("client.work.trainer:write_reply", 4)),
        "a reply that the disk lost": (TRAINER, Trouble("client.handover.files:write_whole", 4, "torn")),
        "after the reply": (TRAINER, Trouble("client.work.trainer:Trainer._end", 4)),
        "during upload": (LINK, Trouble("client.network.fleet:Fleet.push", 7, whom=TRAINER)),
        "during validation": (TRAINER, Trouble("client.app:evaluate", 2)),
        "while results per case are written": (TRAINER, Trouble("client.work.results:write_whole", 2)),
    },
    "everything": {
        "during training": (TRAINER, Trouble(STEP, 5, whom=ALL)),
        "during upload": (LINK, Trouble("client.network.fleet:Fleet.push", 7, whom=ALL)),
        "during fold": (SERVER, Trouble("server.spool:Reply.read", 3, whom=ALL)),
    },
}
MATRIX = [pytest.param(who, when, id=f"{who}-{when}".replace(" ", "-")) for who in POINTS for when in POINTS[who]]
PLAIN = [p for p in MATRIX if p.id in ("server-during-fold", "link-during-upload", "trainer-during-training")]


class Killed:
    """A deployment that is used again as long as all goes well."""

    def __init__(self, folder: pytest.TempPathFactory) -> None:
        self._folder = folder
        self._toy: Toy | None = None

    def toy(self) -> Toy:
        if self._toy is None:
            self._toy = Toy(self._folder.mktemp("kills"))
            self._toy.start()
        return self._toy

    def close(self) -> None:
        if self._toy is not None:
            self._toy.deployment.close()
        self._toy = None


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killed]:
    made = Killed(tmp_path_factory)
    yield made
    made.close()


@pytest.fixture
def toy(kept: Killed, request: pytest.FixtureRequest) -> Iterator[Toy]:
    """After a failed test the next one gets another deployment."""
    failed = request.session.testsfailed
    yield kept.toy()
    if request.session.testsfailed > failed:
        kept.close()


def killed(toy: Toy, who: str, when: str) -> None:
    made, (at, trouble) = toy.deployment, POINTS[who][when]
    if when == "while scans are prepared":
        # Only a trainer that does not know them yet prepares them.
        shutil.rmtree(made.site_home("site-01") / "cache")
        made.again(TRAINER)
    made.arm(at, trouble)
    run = toy.begin()
    for victim in trouble.whom.split() or [at]:
        made.revive(victim)
    assert toy.outcome(run) == toy.expected


@pytest.mark.parametrize(("who", "when"), MATRIX)
def test_every_point_is_in_the_code(who: str, when: str) -> None:
    """Else the matrix, which runs more rarely, would be the first to notice that a function has moved."""
    _, trouble = POINTS[who][when]
    assert callable(getattr(*owner_of(trouble.at)))


@pytest.mark.parametrize(("who", "when"), PLAIN)
def test_killed_at_one_point_each(toy: Toy, who: str, when: str) -> None:
    killed(toy, who, when)


@pytest.mark.full
@pytest.mark.parametrize(("who", "when"), MATRIX)
def test_killed_at_every_point(toy: Toy, who: str, when: str) -> None:
    killed(toy, who, when)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(10))
def test_killed_at_random_moments(toy: Toy, seed: int) -> None:
    """Three kills in each run, of whomever, whenever."""
    moments = random.Random(seed)
    run = toy.begin()
    for _ in range(3):
        time.sleep(moments.uniform(0, 3))
        if toy.deployment.finished(run):
            break
        toy.deployment.again(moments.choice(ALL.split()))
    assert toy.outcome(run) == toy.expected

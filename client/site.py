"""What a site says of itself: where its scans are and how they map to a study. Never leaves the site."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator

from client.approval import ApprovalRule
from client.exclusions import Exclusion, exclusions
from client.hours import Window
from client.label_rules import LabelEntry
from client.label_rules import LabelRange as LabelRange
from client.label_rules import LabelRule as LabelRule
from client.policy import Policy
from common.documents import Document
from common.records import canonical_json
from common.section import Name


class SeriesRule(BaseModel):
    """Which DICOM series is an image channel, where a subject has several. All that is given must fit.

    Attributes:
        modality: CT, MR, PT and so on, as the files say.
        description: Pattern for the series description (`*t2*tra*`; upper and lower case are alike).
        volume: Pattern for the name of the volume, where a series holds several (`b=800`, `echo=2`);
            `fedscan data inspect` lists the names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    modality: str | None = None
    description: str | None = None
    volume: str | None = None


class Limits(BaseModel):
    """Where a site stops to believe what it is sent, and what of the machine is not for fedscan.

    Attributes:
        norm: Largest L2 norm of the weights of a task, over all floating-point values of the net. Nets that learn have
            norms of 10 to 10 000; what is far beyond is broken, or made to do something else than to learn.
        gpu_memory: Share of the GPU's memory that may be taken.
        threads: Of the CPU, for computing; as many as there are if none.
        disk: GB that must stay free where the site's folder is: with less nothing is begun.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    norm: float = Field(1e6, gt=0, allow_inf_nan=False)
    gpu_memory: float = Field(1.0, gt=0, le=1)
    threads: int | None = Field(None, ge=1, le=1024)
    disk: float = Field(1.0, ge=0, allow_inf_nan=False)


class Egress(BaseModel):
    """What is kept here of what leaves; that it left is always written down (`fedscan site egress show`).

    Attributes:
        keep: Whether a copy of every reply stays in trainer/sent/.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    keep: bool = False


class Network(BaseModel):
    """The site's way to its coordinator, where it is not a straight one.

    Attributes:
        proxy: HTTP proxy, `http://host:port` or `https://host:port`, with `user:password@` before the host where the
            proxy wants them (signs such as `@` written as `%40`). What the environment says of proxies is not used.
        proxy_ca: Authorities (PEM) for the own certificate of an `https` proxy; those of the system if none. They
            never count for the coordinator.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    proxy: SecretStr | None = None
    proxy_ca: Path | None = None

    @field_validator("proxy", mode="before")
    @classmethod
    def _complete(cls, proxy: object) -> object:
        if proxy is None:
            return None
        # Its words are never repeated: they may hold a password.
        wrong = "must be of the form http://host:port or https://user:password@host:port"
        try:
            parts = urlsplit(proxy if isinstance(proxy, str) else "")
            port = parts.port
        except ValueError:
            raise ValueError(wrong) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not port or parts.path not in ("", "/"):
            raise ValueError(wrong)
        return proxy

    @model_validator(mode="after")
    def _together(self) -> Self:
        https = self.proxy is not None and self.proxy.get_secret_value().startswith("https:")
        if self.proxy_ca is not None and not https:
            raise ValueError("proxy_ca is for the certificate of an https proxy")
        return self


class Operators(BaseModel):
    """Who may approve, stop and look at what leaves, on this machine.

    Attributes:
        group: Unix group whose members may; none for the user of the trainer alone. The link's user must not be in it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    group: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None


class SiteConfig(BaseModel):
    """A site's own settings (site.yaml).

    Attributes:
        name: The site's name in the federation.
        data: Folder or table (CSV, JSON) of its cases.
        layout: How the cases lie there; `auto` recognises all of them.
        where: For tables: only the rows whose columns have these values.
        labels: Study label -> which stored structures it is: a value or segment number, several, a range of values, a
            name or pattern (`Liver*`; upper and lower case are alike), a coded concept, or `unlabelled` if nobody
            here annotates it. Without it: in numbers, the i-th study label is i; in files with names, the structure
            of the study's code or of the label's own name.
        ignored: Stored values and names (or patterns) that belong to no label.
        priority: Labels, the first of which takes the voxels that two structures claim; without it that is an error.
        series: Image channel -> which DICOM series it is, where a subject has several.
        excluded: Case -> why it is left out; `fedscan data exclude` adds to them.
        use: `test` sites are never trained on, only evaluated.
        device: `auto` takes CUDA, else MPS, else the CPU.
        approval: Who must say yes before a study runs here. Simulations do not ask.
        limits: Where the site stops to believe what it is sent, and what of the machine it leaves alone.
        policy: What may leave, whatever a study asks. Simulations do not ask.
        hours: Times of day at which work may be done, such as `20:00-06:00`; always if none. Simulations do not ask.
        egress: What is kept of what leaves.
        network: The site's way to its coordinator.
        operators: Who may say what happens here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    data: Path
    layout: Literal["auto", "nnunet", "msd", "bids", "table", "folders", "dicom"] = "auto"
    where: dict[str, str] = {}
    labels: dict[str, LabelRule] = {}
    ignored: tuple[LabelEntry, ...] = ()
    priority: tuple[str, ...] = ()
    series: dict[Name, SeriesRule] = {}
    excluded: dict[str, str] = {}
    use: Literal["train", "test"] = "train"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    approval: ApprovalRule = ApprovalRule()
    limits: Limits = Limits()
    policy: Policy = Policy()
    hours: tuple[Window, ...] = ()
    egress: Egress = Egress()
    network: Network = Network()
    operators: Operators = Operators()
    _marks: dict[str, frozenset[str]] = PrivateAttr(default_factory=dict)

    @property
    def marks(self) -> Mapping[str, frozenset[str]]:
        """Excluded case -> what it consists of (`client.data.left_out`), where that is known."""
        return self._marks

    def without(self, table: Mapping[str, Exclusion]) -> Self:
        """These settings with the cases of `table` excluded, too."""
        reasons = {case: entry.reason for case, entry in table.items()}
        changed = self.model_copy(update={"excluded": self.excluded | reasons})
        changed._marks = {case: frozenset(entry.marks) for case, entry in table.items() if entry.marks}
        return changed

    def permits(self) -> bytes:
        """The settings that say what may happen here, in one spelling, so that a change of them can be seen."""
        return canonical_json(self.model_dump(mode="json", include={"approval", "limits", "policy", "hours", "egress",
                                                                    "operators"}))  # fmt: skip


class Places(NamedTuple):
    """Where a site's home keeps what is made of its scans.

    Attributes:
        cache: Prepared cases.
        runs: Split, memory of files, kept state and per-case results.
    """

    cache: Path
    runs: Path


def places(home: Path) -> Places:
    """The folders in `home`, the same for the trainer and for commands."""
    return Places(home / "cache", home / "trainer" / "runs")


def home_of(file: Path) -> Path:
    """The home of the site whose file is `file`: the folder in which it lies, be it there as a link to elsewhere.

    Kubernetes shows a file of a ConfigMap as a link into a folder that is replaced; nothing may be kept there.
    """
    return file.absolute().parent


def site_of_home(home: Path) -> SiteConfig:
    """The settings in `home`/site.yaml; as `site_of_file`."""
    return site_of_file(home / "site.yaml")


def site_of_file(path: Path) -> SiteConfig:
    """The settings in a site's file, relative paths made whole, with the cases that are excluded beside it.

    Raises:
        StudyError: The file is wrong; names file, line and remedy.
        DataError: The list of excluded cases is damaged.
    """
    document = Document.read(path)
    config = document.validate(SiteConfig, document.data)
    home, network = home_of(path), config.network
    if network.proxy_ca is not None:
        network = network.model_copy(update={"proxy_ca": (home / network.proxy_ca).resolve()})
    whole = config.model_copy(update={"data": (home / config.data).resolve(), "network": network})
    return whole.without(exclusions(home))

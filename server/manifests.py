"""The manifests of a run at the coordinator: signed once, kept on disk, sent as often as needed.

A manifest is on the disk before it leaves, so that a restarted coordinator sends the same bytes and never forks its
own run.
"""

import base64
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.disk import write_whole
from common.errors import CheckpointError, SignatureError
from common.figures import Figures
from common.manifests import (
    Assignment,
    Counted,
    RoundManifest,
    SignedStudy,
    TaskKind,
    genesis,
    link,
    verified_manifest,
    verified_order,
)
from common.signing import Kind, Signed, key_of, key_text, read_signed, sign, sites_of


class Manifests:
    """The chain of one run.

    Args:
        folder: Where the manifests lie: one file each, by their place in the chain.
        signed: The signed study and its order.
        coordinator: The coordinator's id.
        signer: Its study-signing key.
        round_key: Its online key, the one that the order names.

    Raises:
        SignatureError: The signed study is not by `signer`.
        CheckpointError: The order names another online key, or a manifest on disk is damaged or of another run.
    """

    def __init__(
        self, folder: Path, signed: SignedStudy, coordinator: str, signer: str, round_key: Ed25519PrivateKey
    ) -> None:
        self._folder = folder
        self._signed = signed
        self._coordinator = coordinator
        self._key = round_key
        self.order = verified_order(signed.order, key_of(signer), coordinator)
        if self.order.round_key != key_text(round_key.public_key()):
            raise CheckpointError(
                f"the order of run {self.order.run} names another online key than this one's; sign the study again"
            )
        self._head = genesis(self.order.run, self.order.study)
        self._history = bytearray()
        self._last: tuple[Signed, RoundManifest] | None = None
        for path in sorted(folder.glob("[0-9]*.json")):
            self._append(*self._read(path))

    @property
    def last(self) -> RoundManifest | None:
        """The newest manifest."""
        return self._last[1] if self._last else None

    def issue(
        self,
        number: int,
        kind: TaskKind,
        part: Literal["train", "validation", "test"],
        base: str | None,
        roster: Mapping[str, Counted],
        terms: Mapping[str, float] | None = None,
        best: int = 0,
        figures: Figures | None = None,
    ) -> Assignment:
        """The assignment of a task; the newest manifest again when it says the same.

        Args:
            number: The round.
            kind: What is asked.
            part: Which cases are meant.
            base: `arrays_sha256` of the weights that go with it.
            roster: The sites that are asked, with their last counted replies.
            terms: The strategy's client half.
            best: The round with the best validation so far.
            figures: What the study found; with its result only.

        Returns:
            What travels with the weights, the same for all sites.

        Raises:
            StorageError: The manifest could not be written; nothing was signed for anybody then.
        """
        last = self.last
        same = last and last.model_copy(update={"round": number, "kind": kind, "part": part, "base": base, "best": best,
                                                "terms": dict(terms or {}), "roster": dict(roster),
                                                "figures": figures})  # fmt: skip
        if self._last is None or same != last:
            manifest = RoundManifest(
                run=self.order.run, study=self.order.study, sequence=last.sequence + 1 if last else 1,
                previous=self._head.hex(), round=number, kind=kind, part=part, base=base, best=best,
                terms=dict(terms or {}), roster=dict(roster), figures=figures,
            )  # fmt: skip
            signed = sign(self._key, Kind.MANIFEST, sites_of(self._coordinator), manifest.canonical())
            text = signed.canonical()
            write_whole(self._folder / f"{manifest.sequence:06d}.json", lambda part: part.write_bytes(text))
            self._append(signed, manifest)
        assert self._last is not None  # noqa: S101 -- for the type checker
        history = base64.b64encode(bytes(self._history)).decode()
        return Assignment(study=self._signed.study, order=self._signed.order, manifest=self._last[0], history=history)

    def _append(self, signed: Signed, manifest: RoundManifest) -> None:
        if self._last is not None:
            self._history += sha256(self._last[0].body.encode()).digest()
        self._head = link(self._head, sha256(signed.body.encode()).digest())
        self._last = (signed, manifest)

    def _read(self, path: Path) -> tuple[Signed, RoundManifest]:
        wrong = f"{path} is damaged or belongs to another run; remove the run's folder to start it anew"
        try:
            signed = read_signed(path.read_bytes())
            manifest = verified_manifest(signed, self._key.public_key(), self._coordinator)
        except SignatureError:
            raise CheckpointError(wrong) from None
        wanted = (self.order.run, self.order.study, int(path.stem), self._head.hex())
        if (manifest.run, manifest.study, manifest.sequence, manifest.previous) != wanted:
            raise CheckpointError(wrong)
        return signed, manifest

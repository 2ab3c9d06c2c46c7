"""The enrolled sites as the server reads them: whose certificate this is, and whether it still counts."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AwareDatetime, Field

from common.certificates import certificate_sha256, read_certificate
from common.enrolment import Pem
from common.errors import IdentityError
from common.keys import placed, read_small
from common.records import Record, RecordError, Sha256, read_record
from common.section import Name
from common.signing import Base64Key, key_id, key_of

MAX_SITE_BYTES = 1024 * 1024


class Credential(Record):
    """One certificate of a site and the keys that were enrolled with it.

    Attributes:
        certificate: PEM.
        certificate_sha256: Of its DER form.
        node_key: The node's public key, OpenSSH format.
        reply_key: Public half of the reply key.
        request: Fingerprint of the request.
        issued: When.
        ends: When it stops to count: the certificate's end, or earlier after a change of keys.
        revoked: When it was revoked.
    """

    certificate: Pem
    certificate_sha256: Sha256
    node_key: str = Field(max_length=400)
    reply_key: Base64Key
    request: str = Field(max_length=40)
    issued: AwareDatetime
    ends: AwareDatetime
    revoked: AwareDatetime | None = None

    def tls_key(self) -> EllipticCurvePublicKey:
        """The key in the certificate."""
        key = read_certificate(self.certificate, "a site's certificate").public_key()
        if not isinstance(key, EllipticCurvePublicKey):
            raise IdentityError("a site's certificate is not for an elliptic-curve key")
        return key


class SiteFile(Record):
    """One site as it stands on disk; the last credential is the newest."""

    format: Literal["fedscan.site"] = "fedscan.site"
    version: Literal[1] = 1
    name: Name
    credentials: tuple[Credential, ...] = Field(min_length=1, max_length=200)

    @property
    def newest(self) -> Credential:
        """The credential that was issued last."""
        return self.credentials[-1]


@dataclass(frozen=True)
class Site:
    """An enrolled site, seen through one of its certificates.

    Attributes:
        name: Its name in the federation.
        node_key: Its node's public key, OpenSSH format.
        reply_key: Public half of the reply key that came with this certificate.
        certificate_sha256: The certificate.
        expires: When this certificate stops to count.
        revoked: Whether it was revoked.
        request: Fingerprint of the request that it was issued for.
    """

    name: str
    node_key: str
    reply_key: str
    certificate_sha256: str
    expires: datetime
    revoked: bool
    request: str


class Enrolled:
    """The sites as they stand at the moment of each question; reads the folder again whenever it has changed.

    Args:
        folder: The coordinator's `enrolment` folder.

    Attributes:
        damaged: Messages about site files that cannot be read; their sites are not enrolled until they can.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mark: tuple[int, str] | None = None
        self._files: dict[str, SiteFile] = {}
        self._by_certificate: dict[str, Site] = {}
        self.damaged: list[str] = []
        self.refresh()

    def by_certificate(self, sha256: str) -> Site | None:
        """The site that a certificate (SHA-256 of its DER form, hex) was issued to, revoked and ended ones included."""
        self.refresh()
        return self._by_certificate.get(sha256)

    def sites(self) -> list[Site]:
        """All sites by name, revoked ones too, each through its newest certificate."""
        self.refresh()
        return [_site(file, file.newest) for _, file in sorted(self._files.items())]

    def reply_key(self, site: str, key: str) -> Ed25519PublicKey | None:
        """The site's reply key with this id, if it counts now; during a change of keys a site has two."""
        self.refresh()
        now = datetime.now(UTC)
        for credential in self._files[site].credentials if site in self._files else ():
            public = key_of(credential.reply_key)
            if key_id(public) == key and credential.revoked is None and credential.ends > now:
                return public
        return None

    def refresh(self) -> None:
        """Read the folder again if it has changed; raises IdentityError when it cannot be read."""
        try:
            while (mark := self._now()) != self._mark:
                # What is read may be newer than the mark, never older: a change in between is seen by the next look.
                self._read()
                self._mark = mark
        except OSError as error:
            raise IdentityError(f"{self._folder}: cannot be read ({error.strerror})") from None

    def _now(self) -> tuple[int, str]:
        # The folder's time alone may be too coarse for two changes in a row; the file alone would miss a copy put back.
        generation = self._folder / "generation"
        token = generation.read_text(encoding="utf-8") if generation.exists() else ""
        return os.stat(self._folder / "sites").st_mtime_ns, token

    def _read(self) -> None:
        files: dict[str, SiteFile] = {}
        damaged = []
        for path in sorted((self._folder / "sites").glob("*.json")):
            try:
                files[path.stem] = read_site(path)
            except IdentityError as error:
                damaged.append(str(error))
        by_certificate = {c.certificate_sha256: _site(f, c) for f in files.values() for c in f.credentials}
        self._files, self._by_certificate, self.damaged = files, by_certificate, damaged


def _site(file: SiteFile, c: Credential) -> Site:
    return Site(file.name, c.node_key, c.reply_key, c.certificate_sha256, c.ends, c.revoked is not None, c.request)


def read_site(path: Path) -> SiteFile:
    """A site's file, each part of which must belong to the others; raises IdentityError."""
    try:
        file = read_record(SiteFile, read_small(path, MAX_SITE_BYTES), MAX_SITE_BYTES)
    except RecordError as error:
        raise placed(path, error) from None
    if file.name != path.stem:
        raise IdentityError(f"{path} is the file of {file.name}: it was copied or renamed")
    for credential in file.credentials:
        certificate = read_certificate(credential.certificate, str(path))
        if certificate_sha256(certificate) != credential.certificate_sha256:
            raise IdentityError(f"{path}: a certificate does not have the hash that stands beside it")
    return file

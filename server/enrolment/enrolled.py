"""The enrolled sites, on disk: the one truth of who may take part.

    enrolment/sites/NAME.json    everything about one site, written whole or not at all
    enrolment/generation         changes with every change, so that a running server sees it with its next request
    enrolment/lock               held while something is changed

A site's node key is its identity and stays. Its TLS and reply keys may change: then the old certificate stays good for
KEY_CHANGE, in which the site changes over. A revoked site comes back with new keys only.
"""

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from common.certificates import certificate_sha256, spki
from common.disk import write_whole
from common.enrolment import Applicant, JoinFile, check_site_name
from common.errors import IdentityError
from common.keys import PRIVATE, private_folder
from server.enrolment.authority import Authority
from server.enrolment.identity import Card
from server.enrolment.site_file import Credential, SiteFile, read_site

KEY_CHANGE = timedelta(days=30)


class Enrolment:
    """Changes the enrolled sites; used by the operator's commands.

    Args:
        folder: The coordinator's `enrolment` folder.
        card: What join files say of the coordinator.
    """

    def __init__(self, folder: Path, card: Card) -> None:
        self._folder = folder
        self._card = card

    def add(self, applicant: Applicant, name: str, authority: Authority) -> JoinFile:
        """Enrol a new site, or a revoked one with new keys.

        Args:
            applicant: A verified request.
            name: The name that the operator gave; the request's own is only a proposal.
            authority: The unlocked authority.

        Returns:
            What the site installs.

        Raises:
            IdentityError: The name is taken, or a key of the request was enrolled before, by whomever.
            StudyError: The name is not a site's name.
        """
        check_site_name(name)
        with self._changing():
            self._refuse_known_keys(applicant)
            path = self._path(name)
            before: tuple[Credential, ...] = ()
            if path.exists():
                before = read_site(path).credentials
                if any(c.revoked is None for c in before):
                    raise IdentityError(
                        f"{name} is enrolled already; for a new certificate: fedscan server site renew {name}; "
                        "another site needs another --name"
                    )
            return self._issue(name, before, applicant.tls_key, applicant.node_key, applicant.reply_key,
                               applicant.fingerprint, authority)  # fmt: skip

    def renew(self, name: str, authority: Authority, applicant: Applicant | None = None) -> JoinFile:
        """Issue a new certificate; the one in use stays good, so that the site changes over without a stop.

        Args:
            name: An enrolled site.
            authority: The unlocked authority.
            applicant: A new request of the same site with new TLS and reply keys; without it the keys stay.

        Raises:
            IdentityError: Not enrolled, revoked, or the request has another node key than the enrolled one.
        """
        with self._changing():
            file = self._known(name)
            newest = file.newest
            if newest.revoked is not None:
                raise IdentityError(f"{name} was revoked; to let it in again it needs new keys and `site add`")
            if applicant is None:
                return self._issue(name, file.credentials, newest.tls_key(), newest.node_key, newest.reply_key,
                                   newest.request, authority)  # fmt: skip
            if applicant.node_key != newest.node_key:
                raise IdentityError(f"the request does not come from {name}: it has another node key")
            self._refuse_known_keys(applicant, but_node_of=name)
            end = _now() + KEY_CHANGE
            ending = tuple(c.model_copy(update={"ends": min(c.ends, end)}) for c in file.credentials)
            return self._issue(name, ending, applicant.tls_key, applicant.node_key, applicant.reply_key,
                               applicant.fingerprint, authority)  # fmt: skip

    def revoke(self, name: str) -> None:
        """Shut a site out, with all of its certificates, from this moment on; raises IdentityError."""
        with self._changing():
            file = self._known(name)
            now = _now()
            revoked = tuple(c.model_copy(update={"revoked": c.revoked or now}) for c in file.credentials)
            self._write(SiteFile(name=name, credentials=revoked))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        private_folder(self._folder / "sites")
        with (self._folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _issue(
        self,
        name: str,
        before: tuple[Credential, ...],
        tls_key: EllipticCurvePublicKey,
        node_key: str,
        reply_key: str,
        request: str,
        authority: Authority,
    ) -> JoinFile:
        certificate = authority.issue_site(name, tls_key)
        credential = Credential(
            certificate=certificate.public_bytes(Encoding.PEM).decode(),
            certificate_sha256=certificate_sha256(certificate), node_key=node_key, reply_key=reply_key,
            request=request, issued=_now(), ends=certificate.not_valid_after_utc,
        )  # fmt: skip
        self._write(SiteFile(name=name, credentials=(*before, credential)))
        return self._join_file(name, credential, authority.certificate.public_bytes(Encoding.PEM).decode())

    def _join_file(self, name: str, credential: Credential, authority: str) -> JoinFile:
        return JoinFile(
            site=name, host=self._card.hosts[0], port=self._card.port, certificate=credential.certificate,
            authority=authority, signing_key=self._card.signing_key, reply_key=credential.reply_key,
            node_key=credential.node_key,
        )  # fmt: skip

    def _refuse_known_keys(self, applicant: Applicant, but_node_of: str = "") -> None:
        """Two sites with one key would be one site; a key that was revoked stays revoked."""
        tls = spki(applicant.tls_key)
        for path in sorted((self._folder / "sites").glob("*.json")):
            file = read_site(path)
            for c in file.credentials:
                same_node = c.node_key == applicant.node_key and file.name != but_node_of
                if same_node or c.reply_key == applicant.reply_key or spki(c.tls_key()) == tls:
                    raise IdentityError(
                        f"a key of the request was enrolled before, for {file.name}: the site must make new keys"
                    )

    def _known(self, name: str) -> SiteFile:
        check_site_name(name)
        path = self._path(name)
        if not path.exists():
            names = ", ".join(p.stem for p in sorted((self._folder / "sites").glob("*.json"))) or "none yet"
            raise IdentityError(f"{name} is not enrolled; enrolled: {names}")
        return read_site(path)

    def _path(self, name: str) -> Path:
        return self._folder / "sites" / f"{name}.json"

    def _write(self, file: SiteFile) -> None:
        write_whole(self._path(file.name), lambda part: _fill(part, file.canonical()))
        token = secrets.token_hex(16)
        write_whole(self._folder / "generation", lambda part: _fill(part, token.encode()))


def _fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(PRIVATE)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)

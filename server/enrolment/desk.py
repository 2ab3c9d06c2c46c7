"""The operator's desk: enrolling, renewing and revoking sites, with the questions that a person must answer."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import click

from common.enrolment import MAX_REQUEST_BYTES, Applicant, JoinFile, check_site_name, read_request
from common.errors import IdentityError, StudyError
from common.keys import PUBLIC, read_small, write_new
from common.signing import same_fingerprint
from server.audit_heads import FILE as HEADS
from server.audit_heads import Heads, read_heads
from server.enrolment.authority import Authority
from server.enrolment.enrolled import Enrolment
from server.enrolment.identity import Coordinator
from server.enrolment.passphrase import known_passphrase
from server.enrolment.site_file import Enrolled, Site

RENEW_BEFORE = timedelta(days=30)

Standing = Literal["enrolled", "renew", "expired", "revoked"]


class Desk:
    """Commands that need the offline keys.

    Args:
        home: The coordinator's home.
        keys: Folder of the offline keys, when not in the home.
        passphrase_file: Holds their passphrase; none asks.
    """

    def __init__(self, home: Path, keys: Path | None, passphrase_file: Path | None) -> None:
        self._coordinator = Coordinator(home)
        self._keys = keys
        self._passphrase_file = passphrase_file
        self._enrolment = Enrolment(self._coordinator.enrolment_folder, self._coordinator.card)

    def add(self, request: Path, name: str | None, yes: str | None, out: Path | None) -> None:
        """Enrol the site whose request is in the file; see `fedscan server site add`."""
        applicant = _applicant(request)
        if yes is not None and name is None:
            raise StudyError("--yes needs --name: a request does not name a site, the coordinator does")
        _confirm(applicant, yes)
        chosen = name or click.prompt("Enrol it under the name", default=applicant.name)
        check_site_name(chosen)
        path = _free(out or Path(f"{chosen}.join"))
        self._answer(self._enrolment.add(applicant, chosen, self._authority()), path)

    def renew(self, name: str, request: Path | None, yes: str | None, out: Path | None) -> None:
        """Issue a new certificate; see `fedscan server site renew`."""
        applicant = _applicant(request) if request else None
        if applicant:
            _confirm(applicant, yes)
        path = _free(out or Path(f"{name}.join"))
        self._answer(self._enrolment.renew(name, self._authority(), applicant), path)

    def _authority(self) -> Authority:
        return self._coordinator.unlock(known_passphrase(self._passphrase_file), self._keys).authority

    def _answer(self, join: JoinFile, path: Path) -> None:
        write_new(path, join.canonical() + b"\n", PUBLIC)
        click.echo(f"{path} written for {join.site}: send it back. It holds no secret.")
        click.echo(f"  The site is shown the fingerprint {self._coordinator.fingerprint()}; compare it by telephone.")


def revoke_site(home: Path, name: str, yes: bool) -> None:
    """Revoke; see `fedscan server site revoke`."""
    coordinator = Coordinator(home)
    if not yes:
        click.confirm(f"Shut {name} out? It can come back with new keys only", abort=True)
    Enrolment(coordinator.enrolment_folder, coordinator.card).revoke(name)
    click.echo(f"{name} is shut out; a running server refuses its next request")


def show_sites(home: Path, as_json: bool) -> None:
    """List; see `fedscan server site list`."""
    enrolled = Enrolled(Coordinator(home).enrolment_folder)
    sites, now = enrolled.sites(), datetime.now(UTC)
    if as_json:
        heads = read_heads(home / HEADS)
        rows = [
            {"name": s.name, "state": standing(s, now), "expires": s.expires.isoformat(), "request": s.request,
             "certificate": s.certificate_sha256, "audit": _head(heads, s.name)}
            for s in sites
        ]  # fmt: skip
        click.echo(json.dumps({"sites": rows, "damaged": enrolled.damaged}, indent=1))
    else:
        for s in sites:
            click.echo(f"{s.name:<24} {standing(s, now):<10} until {s.expires:%Y-%m-%d}  {s.request}")
        if not sites:
            click.echo("no site is enrolled yet; begin with: fedscan server site add REQUEST")
    if enrolled.damaged:
        raise IdentityError("\n".join(enrolled.damaged))


def _head(heads: Heads, site: str) -> dict[str, str | int] | None:
    known = heads.sites.get(site)
    return known[-1].model_dump() if known else None


def standing(site: Site, now: datetime) -> Standing:
    """Whether a site may take part, in a word: revoked, expired, renew (its certificate ends soon) or enrolled."""
    if site.revoked:
        return "revoked"
    if site.expires <= now:
        return "expired"
    return "renew" if site.expires - now < RENEW_BEFORE else "enrolled"


def _applicant(request: Path) -> Applicant:
    return read_request(read_small(request, MAX_REQUEST_BYTES))


def _confirm(applicant: Applicant, yes: str | None) -> None:
    """Go on only when the request is the one that the hospital sees."""
    if yes is not None:
        if not same_fingerprint(yes, applicant.fingerprint):
            raise IdentityError(f"the request's fingerprint is {applicant.fingerprint}, not {yes}")
        return
    click.echo(f"The request proposes the name {applicant.name}; its fingerprint is")
    click.echo(f"  {applicant.fingerprint}")
    click.confirm("Does the hospital read the same to you by telephone?", abort=True)


def _free(path: Path) -> Path:
    """`path`, when nothing is there: seen before a certificate is issued that could not be handed over."""
    if path.exists():
        raise IdentityError(f"{path} exists already and is not written over; give another --out")
    return path

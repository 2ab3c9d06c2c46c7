"""Throw-away certificates on the loopback, for the legs that fedscan's enrolment is no part of."""

from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.keys import openssh, pem
from server.enrolment.authority import Authority


class Pair(NamedTuple):
    """A certificate and its key, in files."""

    certificate: Path
    key: Path


class Certificates:
    """An authority, a server and sites.

    Args:
        folder: Where the files go.
        sites: Number of sites.
    """

    def __init__(self, folder: Path, sites: int) -> None:
        folder.mkdir(parents=True)
        authority = Authority.new("benchmark")
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(sites + 1)]
        issued = [authority.issue_server(["127.0.0.1"], keys[0].public_key())]
        issued += [authority.issue_site(f"site-{i}", key.public_key()) for i, key in enumerate(keys[1:])]
        pairs = []
        for i, (key, certificate) in enumerate(zip(keys, issued, strict=True)):
            pairs.append(Pair(folder / f"{i}.pem", folder / f"{i}.key"))
            pairs[-1].certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
            pairs[-1].key.write_bytes(pem(key))
        self.server, self.sites = pairs[0], pairs[1:]


def node_keys(folder: Path, sites: int) -> list[Pair]:
    """Flower's keys of nodes: public halves (as `certificate`) and private ones, OpenSSH format, P-384."""
    pairs = []
    for i in range(sites):
        key = ec.generate_private_key(ec.SECP384R1())
        pairs.append(Pair(folder / f"node-{i}.pub", folder / f"node-{i}"))
        pairs[-1].key.write_bytes(openssh(key))
        pairs[-1].certificate.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    return pairs

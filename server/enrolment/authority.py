"""The federation's certificate authority: who gets which certificate, for how long, and why.

Lifetimes:
    authority   10 years: longer than a federation's studies; replacing it means that every site joins anew.
    server      825 days: the most that browsers and phones took of a private authority, so that nothing chokes on it;
                renewed with `fedscan server renew`, of which the sites notice nothing.
    site        397 days: a year and a month, so that a yearly appointment is in time; a forgotten site drops out.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.x509.oid import NameOID, ObjectIdentifier

from common.certificates import CLIENT, SERVER
from common.keys import pem

AUTHORITY_LIFE = timedelta(days=3652)
SERVER_LIFE = timedelta(days=825)
SITE_LIFE = timedelta(days=397)
# Clocks of hospitals differ by minutes; a certificate must not be "not yet valid" where it arrives.
BACKDATED = timedelta(hours=1)


class Authority:
    """Issues certificates.

    Args:
        key: The authority's private key, P-384.
        certificate: Its own certificate.
    """

    def __init__(self, key: EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self.certificate = certificate

    @classmethod
    def new(cls, name: str, now: datetime | None = None) -> "Authority":
        """A new authority for the federation of the server `name`, with a new key."""
        key = ec.generate_private_key(ec.SECP384R1())
        subject = _named(f"fedscan {name}"[:64])
        builder = _builder(subject, subject, key.public_key(), now or datetime.now(UTC), AUTHORITY_LIFE)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(key, builder.sign(key, hashes.SHA384()))

    def pem(self, passphrase: bytes) -> bytes:
        """Its private key as PEM, encrypted when there is a passphrase."""
        return pem(self._key, passphrase)

    def issue_site(self, site: str, key: EllipticCurvePublicKey, now: datetime | None = None) -> x509.Certificate:
        """A certificate for `site`, for client use only."""
        return self._issue(site, key, CLIENT, [], now or datetime.now(UTC), SITE_LIFE)

    def issue_server(
        self, hosts: Sequence[str], key: EllipticCurvePublicKey, now: datetime | None = None
    ) -> x509.Certificate:
        """A certificate for the server, for server use only.

        Args:
            hosts: DNS names and IP addresses under which sites reach it.
            key: Its TLS key.
            now: When it is issued.
        """
        names = [_alternative(host) for host in hosts]
        return self._issue(hosts[0][:64], key, SERVER, names, now or datetime.now(UTC), SERVER_LIFE)

    def _issue(
        self,
        name: str,
        key: EllipticCurvePublicKey,
        use: ObjectIdentifier,
        alternatives: list[x509.GeneralName],
        now: datetime,
        life: timedelta,
    ) -> x509.Certificate:
        life = min(life, self.certificate.not_valid_after_utc - now)
        identifier = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _builder(_named(name), self.certificate.subject, key, now, life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self._key, hashes.SHA384())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip

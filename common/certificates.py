"""X.509 certificates of a federation: one authority, one level, each certificate for one use."""

from datetime import datetime
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from common.errors import IdentityError

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_USES = {CLIENT: "a site", SERVER: "a server"}


def read_certificate(text: str, what: str) -> x509.Certificate:
    """The one certificate in a PEM text; raises IdentityError."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
        if len(found) != 1:
            raise ValueError
        found[0].extensions  # noqa: B018 -- parsed now, so that a damaged one is found here
        return found[0]
    except ValueError:
        raise IdentityError(f"{what} is not one certificate in PEM") from None


def certificate_sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER bytes, in hex: what the TLS layer shows of a peer."""
    return sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def spki(key: EllipticCurvePublicKey) -> bytes:
    """A public key's DER bytes (SubjectPublicKeyInfo)."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def common_name(certificate: x509.Certificate) -> str:
    """The subject's common name; empty when there is not exactly one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def check_authority(authority: x509.Certificate, now: datetime) -> None:
    """Raises IdentityError unless `authority` is a valid, self-signed certificate authority."""
    try:
        constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = None
    if constraints is None or not constraints.ca:
        raise IdentityError("the certificate of the authority may not issue certificates")
    _issued_by(authority, authority, "the authority's certificate is not signed by itself")
    _in_time(authority, "the authority's certificate", now)


def check_certificate(
    certificate: x509.Certificate, authority: x509.Certificate, use: ObjectIdentifier, now: datetime
) -> None:
    """Check an end certificate against its authority.

    Args:
        certificate: The site's or the server's.
        authority: The federation's own.
        use: CLIENT or SERVER: the certificate must be for this use and no other.
        now: The time, with its zone.

    Raises:
        IdentityError: Another authority, expired or not yet valid, another use, or itself an authority.
    """
    check_authority(authority, now)
    _issued_by(certificate, authority, "the certificate was issued by another authority than the one beside it")
    _in_time(certificate, "the certificate", now)
    extensions = certificate.extensions
    try:
        uses = list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        raise IdentityError("the certificate does not say what it is for") from None
    if uses != [use] or is_authority:
        raise IdentityError(f"the certificate is not one for {_USES[use]} and nothing else")


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate, message: str) -> None:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise IdentityError(message) from None


def _in_time(certificate: x509.Certificate, what: str, now: datetime) -> None:
    if now > certificate.not_valid_after_utc:
        raise IdentityError(f"{what} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now < certificate.not_valid_before_utc:
        raise IdentityError(
            f"{what} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, and this machine's clock "
            f"says {now:%Y-%m-%d %H:%M} UTC: set the clock"
        )

"""Private keys in files: made where they are used, readable by their owner only, never written over."""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import IdentityError
from common.records import RecordError

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey

PRIVATE, PUBLIC, FOLDER = 0o600, 0o644, 0o700
MAX_KEY_BYTES = 16 * 1024
# A mounted secret may be readable by the service's group; nobody else may read a key, and nobody else may write it.
FORBIDDEN = stat.S_IWGRP | stat.S_IRWXO


def pem(key: PrivateKey, passphrase: bytes = b"") -> bytes:
    """The key as PEM (PKCS #8), encrypted when there is a passphrase."""
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def openssh(key: EllipticCurvePrivateKey) -> bytes:
    """The key in OpenSSH's format, in which Flower reads the keys of nodes."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter; raises IdentityError when it cannot be made."""
    try:
        path.mkdir(mode=FOLDER, parents=True, exist_ok=True)
        path.chmod(FOLDER)
    except OSError as error:
        raise IdentityError(f"{path}: the folder cannot be made ({error.strerror})") from None


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, with `mode` from its first byte on, and put it on the disk.

    Raises:
        IdentityError: It exists, or cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise IdentityError(f"{path} exists already and is never written over") from None
    except OSError as error:
        raise IdentityError(f"{path}: cannot be written ({error.strerror})") from None
    with os.fdopen(handle, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def load_ec_key(path: Path, passphrase: bytes = b"") -> EllipticCurvePrivateKey:
    """The elliptic-curve key in `path`; raises IdentityError as `load_ed25519_key` does."""
    key = _load(path, passphrase)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise IdentityError(f"{path} does not hold an elliptic-curve key, which belongs there")
    return key


def load_ed25519_key(path: Path, passphrase: bytes = b"") -> Ed25519PrivateKey:
    """The Ed25519 key in `path`.

    Args:
        path: PEM (PKCS #8) or OpenSSH format.
        passphrase: Empty for a key that is not encrypted.

    Raises:
        IdentityError: Missing, readable by others, the wrong passphrase, or another kind of key.
    """
    key = _load(path, passphrase)
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path} does not hold an Ed25519 key, which belongs there")
    return key


def read_small(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most `limit` bytes; raises IdentityError."""
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        raise IdentityError(f"{path}: no such file") from None
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read ({error.strerror})") from None
    if len(raw) > limit:
        raise IdentityError(f"{path} is longer than {limit} bytes: not a file that fedscan wrote")
    return raw


def placed(path: Path, error: RecordError) -> IdentityError:
    """The error for a file whose content is not the record that it should be."""
    return IdentityError(f"{path} {error}")


def _load(path: Path, passphrase: bytes) -> object:
    raw = read_small(path, MAX_KEY_BYTES)
    if path.stat().st_mode & FORBIDDEN:
        raise IdentityError(f"{path} can be read or written by others; run: chmod 600 {path}")
    read = serialization.load_ssh_private_key if b"OPENSSH PRIVATE" in raw else serialization.load_pem_private_key
    try:
        return read(raw, passphrase or None)
    except TypeError:
        why = "is not encrypted, yet a passphrase was given" if passphrase else "is encrypted: its passphrase is needed"
        raise IdentityError(f"{path} {why}") from None
    except (ValueError, UnsupportedAlgorithm):
        why = "the passphrase is wrong, or the file is damaged" if passphrase else "this is not a private key"
        raise IdentityError(f"{path}: {why}") from None

"""Every error that fedscan raises on purpose, drawn as a tree.

    FedscanError
    ├── StudyError         a study or site file is wrong                 E_STUDY
    ├── DataError          a site's scans cannot be used                 E_DATA
    ├── TrainingError      training left the finite numbers              E_TRAINING
    ├── WireError          bytes that do not fit the study's schema      E_WIRE
    ├── RoundError         too few sites answered for the round to count E_ROUND
    ├── CheckpointError    a run's state on disk cannot be continued     E_CHECKPOINT
    ├── StorageError       a disk is full or refuses to be written       E_STORAGE
    ├── ModelError         a trained model's file cannot be used         E_MODEL
    ├── IdentityError      keys, certificates or enrolment do not fit    E_IDENTITY
    ├── PolicyError        a study wants more than the site lets out     E_POLICY
    ├── ApprovalError      the site does not let the study run          E_APPROVAL
    │                      (waiting, rejected, withdrawn, expired, for another purpose: E_APPROVAL_WAITING ...)
    ├── AuditError         the site's audit log was altered              E_AUDIT
    └── SignatureError     a signed message is refused                   E_SIGNATURE

The message is for the people of the machine it was raised on: it says what is wrong, where, and what to do.
Only `code` may leave a site.
"""

from typing import ClassVar


class FedscanError(Exception):
    """Base of all errors that a user can act on; the command line prints the message without a traceback."""

    code: ClassVar[str] = "E_FEDSCAN"


class StudyError(FedscanError):
    """A study or site file is wrong; the message names file, line, key and remedy."""

    code = "E_STUDY"


class DataError(FedscanError):
    """A site's scans cannot be used for the study."""

    code = "E_DATA"


class TrainingError(FedscanError):
    """Local training produced NaN or infinite values."""

    code = "E_TRAINING"


class WireError(FedscanError):
    """A message holds bytes, names or numbers that the study's schema does not allow."""

    code = "E_WIRE"


class RoundError(FedscanError):
    """Too few sites answered for a round to count."""

    code = "E_ROUND"


class CheckpointError(FedscanError):
    """A run's state on disk does not belong to this study, or is damaged."""

    code = "E_CHECKPOINT"


class StorageError(FedscanError):
    """A file could not be written: the disk is full, or the folder may not be written."""

    code = "E_STORAGE"


class ModelError(FedscanError):
    """A trained model's file is missing, damaged, incomplete or of another version."""

    code = "E_MODEL"


class IdentityError(FedscanError):
    """A key, a certificate, a request or a join file is missing, damaged or not the one that it should be."""

    code = "E_IDENTITY"


class PolicyError(FedscanError):
    """A study or a task asks for more than the site's policy lets out.

    Attributes:
        reason: Which bound of `policy` in site.yaml stood in the way.
    """

    code = "E_POLICY"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class AuditError(FedscanError):
    """The site's audit log is not what was written."""

    code = "E_AUDIT"


class SignatureError(FedscanError):
    """A signed message is refused.

    Attributes:
        reason: Which of its properties was wrong: a word of `common.signing.Refusal`.
    """

    code = "E_SIGNATURE"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ApprovalError(FedscanError):
    """The people of a site do not let a study run."""

    code = "E_APPROVAL"


class ApprovalWaitingError(ApprovalError):
    """Not enough of them have said yes yet."""

    code = "E_APPROVAL_WAITING"


class ApprovalRejectedError(ApprovalError):
    """They said no."""

    code = "E_APPROVAL_REJECTED"


class ApprovalWithdrawnError(ApprovalError):
    """They said yes, and then no longer."""

    code = "E_APPROVAL_WITHDRAWN"


class ApprovalExpiredError(ApprovalError):
    """They said yes for a time, or for a number of rounds, which is over."""

    code = "E_APPROVAL_EXPIRED"


class ApprovalPurposeError(ApprovalError):
    """They said yes to measuring a model with their scans, but not to training one."""

    code = "E_APPROVAL_PURPOSE"


APPROVAL_CODES = tuple(sorted(kind.code for kind in ApprovalError.__subclasses__()))

# A site tells why it has no reply by one of these words, never by a message of its own.
ERROR_CODES = tuple(
    sorted(e.code for e in tuple(vars().values()) if isinstance(e, type) and issubclass(e, FedscanError))
)

"""Transfer syntaxes: how pixels are stored, what decodes them, and which are refused.

Names and UIDs: DICOM PS3.5 section 10 and PS3.6 table A-1.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from client.data.dicom.problems import Unreadable

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
BIG_ENDIAN = "1.2.840.10008.1.2.2"

_RECOMPRESS = "have it sent or exported uncompressed"


@dataclass(frozen=True)
class Syntax:
    """A transfer syntax.

    Attributes:
        name: As people call it.
        packages: Package on a registry -> module in it; any one of them decodes the syntax. Empty if none is needed.
        refused: Why it is never read; empty if it is.
        lossy: The decoded pixels are not those that were recorded, and decoders may differ by one.
    """

    name: str
    packages: tuple[tuple[str, str], ...] = ()
    refused: str = ""
    lossy: bool = False


_GDCM = ("python-gdcm", "gdcm")
_PILLOW = ("pillow", "PIL")
_OPENJPEG = ("pylibjpeg-openjpeg", "openjpeg")
_JPEG_LS = ("pyjpegls", "jpeg_ls")
_INFLATES = "it may unpack to any size before it can be checked"
_VIDEO = "video is no volume and no picture"
_NO_DECODER = "no decoder for it installs from a registry"

SYNTAXES: dict[str, Syntax] = {
    IMPLICIT: Syntax("implicit VR little endian"),
    EXPLICIT: Syntax("explicit VR little endian"),
    BIG_ENDIAN: Syntax("explicit VR big endian"),
    "1.2.840.10008.1.2.5": Syntax("RLE lossless"),
    "1.2.840.10008.1.2.4.50": Syntax("JPEG baseline", (_PILLOW, _GDCM), lossy=True),
    "1.2.840.10008.1.2.4.51": Syntax("JPEG extended", (_GDCM,), lossy=True),
    "1.2.840.10008.1.2.4.57": Syntax("JPEG lossless, process 14", (_GDCM,)),
    "1.2.840.10008.1.2.4.70": Syntax("JPEG lossless, first-order prediction", (_GDCM,)),
    "1.2.840.10008.1.2.4.80": Syntax("JPEG-LS lossless", (_JPEG_LS, _GDCM)),
    "1.2.840.10008.1.2.4.81": Syntax("JPEG-LS near-lossless", (_JPEG_LS, _GDCM), lossy=True),
    "1.2.840.10008.1.2.4.90": Syntax("JPEG 2000 lossless", (_OPENJPEG, _GDCM)),
    "1.2.840.10008.1.2.4.91": Syntax("JPEG 2000", (_OPENJPEG, _GDCM), lossy=True),
    "1.2.840.10008.1.2.4.201": Syntax("HTJ2K lossless", (_OPENJPEG,)),
    "1.2.840.10008.1.2.4.202": Syntax("HTJ2K lossless RPCL", (_OPENJPEG,)),
    "1.2.840.10008.1.2.4.203": Syntax("HTJ2K", (_OPENJPEG,), lossy=True),
    "1.2.840.10008.1.2.1.98": Syntax("encapsulated uncompressed", refused=_NO_DECODER),
    "1.2.840.10008.1.2.1.99": Syntax("deflated explicit VR little endian", refused=_INFLATES),
    "1.2.840.10008.1.2.8.1": Syntax("deflated image frames", refused=_INFLATES),
    "1.2.840.10008.1.2.4.92": Syntax("JPEG 2000 part 2 lossless", refused=_NO_DECODER),
    "1.2.840.10008.1.2.4.93": Syntax("JPEG 2000 part 2", refused=_NO_DECODER),
    "1.2.840.10008.1.2.4.94": Syntax("JPIP referenced", refused="the pixels lie on another server"),
    "1.2.840.10008.1.2.4.95": Syntax("JPIP referenced deflated", refused=_INFLATES),
    **{f"1.2.840.10008.1.2.4.{n}": Syntax("MPEG or HEVC video", refused=_VIDEO) for n in range(100, 109)},
    **{f"1.2.840.10008.1.2.4.{n}": Syntax("JPEG XL", refused=_NO_DECODER) for n in range(110, 113)},
    "1.2.840.10008.1.2.4.204": Syntax("JPIP HTJ2K referenced", refused="the pixels lie on another server"),
    "1.2.840.10008.1.2.4.205": Syntax("JPIP HTJ2K referenced deflated", refused=_INFLATES),
}  # fmt: skip

NATIVE = (IMPLICIT, EXPLICIT, BIG_ENDIAN)


def check_readable(uid: str) -> None:
    """Raise unless the pixels of transfer syntax `uid` can be decoded here.

    Raises:
        Unreadable: "transfer-syntax": names the syntax, and the package to install or what else to do.
    """
    syntax = SYNTAXES.get(uid)
    if syntax is None:
        raise Unreadable("transfer-syntax", f"unknown transfer syntax {_plain(uid)}: {_RECOMPRESS}")
    if syntax.refused:
        raise Unreadable("transfer-syntax", f"{syntax.name}, {uid}: {syntax.refused}; {_RECOMPRESS}")
    if syntax.packages and not any(find_spec(module) for _, module in syntax.packages):
        raise Unreadable("transfer-syntax", f"{syntax.name}, {uid}: install the package {syntax.packages[0][0]}")


def _plain(uid: str) -> str:
    return uid if len(uid) <= 64 and all(c in "0123456789." for c in uid) else "(not a UID)"

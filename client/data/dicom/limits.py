"""What a DICOM file may ask of us. Beyond it, a file is refused before anything is allocated."""

MEMORY = 4 * 2**30  # bytes of address space of one child process
FILE = 9 * 2**30  # bytes of the largest file that a child may write: VOXELS as float32
OPEN_FILES = 128
REPLY = 64 * 2**20  # bytes of one answer of a child

SIDE = 16_384  # rows or columns of one frame; the largest mammography and X-ray detectors have fewer than 8000
FRAMES = 20_000  # of one file
SLICES = 20_000  # of one volume
VOXELS = 2**31  # of one volume
FRAME_VALUES = 2**27  # of one decoded frame, all samples
SLAB = 256 * 2**20  # bytes of decoded pixels that a child makes for one request
HEADER = 64 * 2**20  # bytes before the pixels
ELEMENTS = 200_000  # of one header, nested ones included
DEPTH = 16  # of nested sequences; enhanced multi-frame objects have six

SPACING = (0.001, 100.0)  # mm; microscopy lies below and planning localisers near the top

ZIP_ENTRIES = 200_000
ZIP_BYTES = 64 * 2**30  # of all entries together, unpacked
ZIP_RATIO = 200  # unpacked to packed, per entry; deflated CT with much air reaches about 20

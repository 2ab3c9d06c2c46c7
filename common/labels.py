"""The one value in label maps that is no class."""

# A voxel that nobody labelled: it teaches nothing and is not judged. A study has at most 254 labels and the background,
# so that as uint8 the value is free.
IGNORE = 255

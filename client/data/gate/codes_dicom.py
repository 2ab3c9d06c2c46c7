"""What is said of DICOM files, series and volumes, and of named structures on their images."""

from client.data.dicom.problems import AGAIN, REASONS, REMEDIES, RETRIED
from client.data.gate.code import Code

_SEVERAL = "Choose by its name in site.yaml: series: {image: {volume: NAME}}."

FILES = {
    f"dicom-{reason}": Code("error", f"a DICOM file {what}" if what[0].islower() else what, REMEDIES.get(reason, AGAIN))
    for reason, what in {
        **REASONS,
        "damaged": "is damaged or cut off",
        "not-dicom": "is named as one, and is none",
        "transfer-syntax": "is compressed in a way that cannot be read",
        "unsupported": "is of a kind that cannot be read",
    }.items()
    if reason not in RETRIED
}

KINDS = {
    "dicom-colour": Code("info", "colour pictures are left out", "Choose the original, grey series."),
    "dicom-film": Code(
        "warning",
        "films, whose frames have no place in the patient, are left out",
        "Choose a series of slices or single pictures.",
    ),
    "dicom-localiser": Code("info", "localisers are left out", "Nothing: they only show where the other series lie."),
    "dicom-mosaic": Code(
        "warning",
        "mosaics, with all slices of a volume in one picture, are left out",
        "Export the series as enhanced MR or as single slices, or convert it with dcm2niix.",
    ),
    "dicom-secondary-capture": Code(
        "info",
        "secondary captures are left out",
        "Choose the original series: captures have no geometry, and often names.",
    ),
    "dicom-bits": Code(
        "warning", "images with pixels of 1 or 64 bits are left out", "Export them with 8, 16 or 32 bits per pixel."
    ),
    "dicom-modality": Code(
        "info",
        "images of a modality that is not read are left out",
        "Read are CT, MR, PT and what lies in space as they do, MG, DX, CR, XA and RF.",
    ),
}

VOLUMES = {
    "dicom-copies": Code(
        "info", "one instance lies there several times", "Nothing; delete copies that are not wanted."
    ),
    "dicom-same-instance": Code(
        "warning",
        "different images have one instance UID",
        "Labels that refer to instances may meet the wrong slice. Have the software corrected that wrote them.",
    ),
    "dicom-several-volumes": Code("info", "one series holds several volumes, told apart by name", _SEVERAL),
    "dicom-split-by-number": Code(
        "warning",
        "one series holds several volumes that only the instance number tells apart",
        "Compare with a viewer: no attribute but the instance number tells them apart, and it may be wrong.",
    ),
    "dicom-mixed-series": Code(
        "warning",
        "one series has several orientations or sizes; each is a volume of its own",
        "Choose by name in site.yaml, or leave the series out.",
    ),
    "dicom-no-position": Code(
        "error",
        "position, orientation or pixel size are not in the header",
        "Have the original series exported, not a derived one.",
    ),
    "dicom-orientation": Code("error", "rows and columns are no right angle of unit vectors", AGAIN),
    "dicom-duplicate-slice": Code(
        "error",
        "several slices lie at one place, and nothing tells them apart",
        "Remove the slices that are doubled, or have the series sent again (files may be missing of one volume).",
    ),
    "dicom-missing-slice": Code("error", "slices are missing between the others", AGAIN),
    "dicom-uneven-slices": Code(
        "warning",
        "slices lie off their places; from a tenth of the distance an error",
        "Have a reconstruction with constant distances exported, or resample the series.",
    ),
    "dicom-shifted-slices": Code(
        "error",
        "slices are moved within their planes, each by another amount",
        "Have a reconstruction of one field of view exported.",
    ),
    "dicom-gantry-tilt": Code(
        "error",
        "the stack is sheared",
        "Have the tilt corrected by the scanner's or the PACS' software, or convert the series with dcm2niix.",
    ),
    "dicom-incomplete-volume": Code("warning", "another volume of the series has more slices", AGAIN),
    "dicom-spacing-tag": Code(
        "warning",
        "the header's distance between slices is not that of their positions, which count",
        "Compare with a viewer; if every other slice is missing, have the series sent again.",
    ),
    "dicom-no-thickness": Code(
        "warning", "a single slice without a thickness counts as 1 mm", "Nothing for a study of pictures."
    ),
    "dicom-absurd-volume": Code(
        "error",
        "a slice distance or a size that no scan has",
        "Check the positions in the headers, or leave the series out.",
    ),
    "dicom-link-outside": Code(
        "warning",
        "a link leads out of the folder and is not followed",
        "Point `data` to where the files lie, or copy them.",
    ),
    "dicom-archive": Code("error", "a zip file is not unpacked", "Unpack it yourself, and remove the archive."),
}

LAYOUT = {
    "dicom-folder": Code(
        "error",
        "a table names a folder that does not hold exactly one DICOM volume",
        "Name a folder with one series, or let fedscan find the cases itself (layout: dicom).",
    ),
    "dicom-several-labels": Code(
        "error",
        "several segmentations refer to one volume",
        "Say in site.yaml under `series`, in a rule `label`, which one counts (modality: SEG or RTSTRUCT; "
        "description), or take the others away.",
    ),
    "dicom-channel": Code(
        "error",
        "not exactly one volume of an examination is the image channel",
        "Say in site.yaml under `series` which series is the channel (modality, description, volume).",
    ),
    "dicom-several-patients": Code(
        "error",
        "one series has several patients",
        "Find out whose it is, and have it sent again; copies with another name or number belong elsewhere.",
    ),
    "dicom-not-chosen": Code(
        "warning",
        "a volume has a segmentation, and `series` chooses none such of its examination",
        "Correct the channel's rule under `series` in site.yaml; right if another structure was drawn there.",
    ),
    "dicom-label-rule": Code(
        "warning",
        "a volume has segmentations, and the rule `label` fits none of them",
        "Correct `label` under `series` in site.yaml; `fedscan data inspect` lists what is there.",
    ),
    "dicom-unknown-rule": Code(
        "warning",
        "a rule under `series` is for no channel of the study",
        "Correct its name in site.yaml, or take it away.",
    ),
    "dicom-no-image": Code(
        "warning",
        "a segmentation refers to images that are not here, or to several volumes alike",
        "Put the series to which it belongs into the same folder.",
    ),
}

_ELSEWHERE = "Find the series on which it was drawn, or the label of this series."

STRUCTURES = {
    "label-name": Code(
        "error",
        "a named structure belongs to no label, or to several",
        "Say in the site's file to which of `labels` it belongs, or list it under `ignored`.",
    ),
    "label-code": Code(
        "warning",
        "a structure has the name of one of the study's labels and the code of another; the name counts",
        "Look at the case: where the code is right, give the labels rules in the site's file ({code: …}, or the name).",
    ),
    "label-overlap": Code(
        "error", "structures of two labels overlap", "Say in the site's file which goes first: `priority`."
    ),
    "label-frame": Code("error", "nothing says that label and image lie in one space", _ELSEWHERE),
    "label-place": Code("error", "a frame lies elsewhere than the slice that it names", "Export the label again."),
    "label-plane": Code("warning", "contours lie off the image's slices; turned ones are an error", _ELSEWHERE),
    "label-outside": Code(
        "warning",
        "a structure reaches outside the image; all of it outside is an error",
        "Right if the image shows only a part of what was drawn.",
    ),
    "label-reference": Code("warning", "the label was drawn on other images than this volume's", _ELSEWHERE),
    "label-resampled": Code(
        "warning",
        "the label lies on another grid; each voxel takes the nearest",
        "Segment on the image itself where this is too coarse.",
    ),
    "label-absent": Code(
        "warning",
        "the file holds no structure for a label, which counts as absent",
        "Right if it is truly absent; if nobody annotated it here, say `unlabelled` in the site's file.",
    ),
    "label-hidden": Code(
        "warning",
        "all voxels of a structure belong to labels of higher priority",
        "Check the order of `priority` in the site's file.",
    ),
    "contour-open": Code(
        "warning", "contours that enclose nothing are left out", "Right if they are marks; else draw them closed."
    ),
    "contour-points": Code(
        "warning",
        "contours of fewer than three points are left out",
        "Right if they are stray clicks; else draw them again.",
    ),
    "contour-twice": Code("warning", "contours stand twice and are taken once", "Export the structures again."),
    "contour-gap": Code(
        "warning",
        "slices between the contours of a structure have none",
        "Right for separate parts; else let the planning system interpolate before export.",
    ),
}

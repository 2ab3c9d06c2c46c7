"""What the gate says of cases and sites, whatever the format of their files."""

from client.data.gate.code import Code

GATE: dict[str, Code] = {
    "unreadable": Code("error", "a reader refused a file", "Copy or export the file again."),
    "no-label": Code(
        "warning", "a case without a label file", "Annotate the case; until then it is left out."
    ),
    "channels": Code(
        "error",
        "the case's files do not hold as many channels as the study has",
        "Give one file per channel of the study, in its order, or one file with all.",
    ),
    "dimensions": Code(
        "error",
        "a picture in a study of volumes, or the reverse",
        "Leave the file out, or take it to a study with data.dimensions fitting it.",
    ),
    "image-grid": Code(
        "error",
        "the images of one case do not lie on one voxel grid",
        "Resample it to the first image's grid, or find the file that belongs to the case.",
    ),
    "label-grid": Code(
        "error",
        "the label map does not lie on its image's voxel grid",
        "Resample it to the image's grid (nearest neighbour for labels), or find the file that belongs to the image.",
    ),
    "not-finite": Code(
        "error",
        "voxels are NaN, infinite or more than float32 holds",
        "Export the scan again, or replace them with the background's value.",
    ),
    "constant": Code(
        "error",
        "all voxels of a channel are equal",
        "Export the scan again; the file holds no picture.",
    ),
    "label-channels": Code(
        "error",
        "the label map has several channels",
        "Save it as one channel in which each number is one structure.",
    ),
    "label-value": Code(
        "error",
        "a stored value that no label rule covers",
        "Say in the site file under `labels` which stored values belong to which label, or mend the file.",
    ),
    "label-nothing": Code(
        "error",
        "every voxel has the value that means not labelled (data.ignore of the study)",
        "Annotate some of it, or leave the case out.",
    ),
    "duplicate": Code(
        "error",
        "two patients have the same image, voxel for voxel; it could stand in training and in test",
        "Remove one of the two, or give both the same patient.",
    ),
    "spacing": Code(
        "warning",
        "a voxel size that no scanner makes; probably wrong units",
        "Check the units in the header; NIfTI files should say millimetres.",
    ),
    "label-empty": Code(
        "warning",
        "no voxel of any label",
        "Right if the structure is truly absent; else annotate the case.",
    ),
    "label-lost": Code(
        "warning",
        "a label has voxels in the file but none on the plan's grid, which is too coarse for it",
        "Choose a finer plan.spacing or plan.size, or leave the case out.",
    ),
    "few-cases": Code(
        "warning",
        "a part of the split has fewer than three patients",
        "Add annotated patients, or change evaluation.validation and evaluation.test in the study.",
    ),
    "masks-mirrored": Code(
        "warning",
        "most masks of the site fit their images better mirrored along one axis",
        "Look at a few cases with their masks; a converter has probably lost the orientation of one of the two.",
    ),
    "mask-mirrored": Code(
        "warning",
        "the mask fits its image better mirrored along an axis",
        "Look at the case; if the mask is mirrored, export image and mask again with one tool.",
    ),
    "mask-shifted": Code(
        "warning",
        "the mask fits its image better at another place",
        "Look at the case; if the mask is shifted, find the image on which it was drawn.",
    ),
    "near-duplicate": Code(
        "warning",
        "two patients have nearly the same image (resampled, windowed anew or mirrored); it could stand in training "
        "and in test",
        "Look at both; remove one of the two, or give both the same patient.",
    ),
    "repeated": Code(
        "info",
        "two cases of one patient have the same image",
        "Right for two readings of one scan; else remove one of the two.",
    ),
    "label-volume": Code(
        "warning",
        "a structure is larger or smaller by far than in the site's other cases",
        "Look at the case: wrong voxel size, wrong label number, or a rare patient.",
    ),
    "label-fragments": Code(
        "warning",
        "a structure lies in many loose parts, more than in the site's other cases",
        "Look at the case; remove stray voxels, or resample the mask with nearest neighbour.",
    ),
    "label-cut": Code(
        "warning",
        "a structure is cut off by the side of the field of view",
        "Right if the scan ends there; else find the whole scan.",
    ),
    "structure-side": Code(
        "warning",
        "a structure lies on the other side than in the site's other cases",
        "Look at the case: mirrored, turned, or with two label numbers exchanged.",
    ),
    "case-mirrored": Code(
        "warning",
        "the image looks like the site's others mirrored along an axis",
        "Compare it with its source; if it is mirrored, export it again. A rare anatomy may look so too.",
    ),
    "case-inverted": Code(
        "warning",
        "the image looks like a negative of the site's others",
        "Export it again with MONOCHROME1 turned to bright bone, or another contrast is in this folder by mistake.",
    ),
    "ct-scaled": Code(
        "warning", "a CT holds a normalised image, not Hounsfield units", "Export the original CT in Hounsfield units."
    ),
    "ct-window": Code(
        "warning",
        "a CT was cut to a window",
        "Export the original CT in Hounsfield units, without a window.",
    ),
    "ct-offset": Code(
        "warning",
        "a CT has no value below 0 HU: stored numbers, to which 1024 was added",
        "Export it again with rescale slope and intercept applied, or subtract 1024.",
    ),
    "pt-negative": Code(
        "warning", "a PET has negative values", "Export it again with rescale slope and intercept applied."
    ),
    "saturated": Code(
        "warning",
        "many voxels have exactly the largest value; what was brighter is lost",
        "Export the scan again without a window.",
    ),
    "inverted": Code(
        "warning",
        "the border of an MR or PET, which is air, is as bright as the brightest tissue",
        "Export the scan again without inverting it.",
    ),
    "thick-slices": Code(
        "warning",
        "voxels four times longer than the plan's, or more: most of what the net sees would be interpolated",
        "Leave the case out, or find the thin series of the same examination.",
    ),
    "anisotropic": Code(
        "warning",
        "voxels more than 15 times as long as wide",
        "Probably a localiser or a wrong slice distance: check it.",
    ),
    "small-field": Code(
        "info",
        "the scan is smaller than half the patch on the plan's grid; the rest of the patch is padding",
        "Right for small boxes; else check the voxel size, or choose a smaller plan.patch.",
    ),
    "privacy-header": Code(
        "info",
        "DICOM headers name persons; this stays here, as nothing of a header ever leaves",
        "Nothing, as long as the scans stay; before handing any on: fedscan data export.",
    ),
    "privacy-private": Code(
        "info",
        "DICOM headers have private elements, which may hold anything",
        "Nothing, as long as the scans stay; before handing any on: fedscan data export.",
    ),
    "privacy-text": Code(
        "warning",
        "a free text of the header, such as the series description, names a person",
        "Keep lists and screenshots of series to yourself; before handing scans on: fedscan data export.",
    ),
    "privacy-path": Code(
        "warning",
        "names of files or folders tell who the patients are; lists, logs and screens of this site show them",
        "Rename folders and files by numbers of your own, and keep the list of both where only you can read it.",
    ),
    "privacy-file-header": Code(
        "warning",
        "text inside NIfTI, NRRD or picture files tells who the patients are",
        "Convert again with the tool's option for anonymous headers, or use the files of: fedscan data export.",
    ),
    "burned-in": Code(
        "warning",
        "there is text in the pixels, which may name the patient, and which a net may learn from",
        "Mask it, choose the original series, or exclude the case.",
    ),
    "burned-in-unknown": Code(
        "info",
        "an image of a kind that often shows text, and its header does not say that it has none",
        "Look at it on the page with pictures.",
    ),
    "screen": Code(
        "warning",
        "a secondary capture or a screen: a picture of a scan, not a scan",
        "Choose the original series, or exclude the case.",
    ),
    "face": Code(
        "warning",
        "a head scan shows the face, from which a person can be known",
        "Nothing leaves the site. Before any export, remove the face.",
    ),
    "partly-labelled": Code(
        "warning",
        "the site does not annotate one of the study's labels; the case is kept, but not yet trained on",
        "Annotate the label, or take part in a study without it.",
    ),
    "excluded": Code("info", "the site leaves the case out", "Nothing; `fedscan data include` takes it in again."),
    "excluded-unknown": Code(
        "warning", "an excluded case does not exist", "Correct its name, or take it off the list."
    ),
    "held-out": Code(
        "warning",
        "a datalist has lists beside `training`, which are left out",
        "Only `training` is read, and divided into training, validation and test anew. To test on the others, list "
        "them in a table of their own, for a site with use: test.",
    ),
    "image-elsewhere": Code(
        "error",
        "in a simulation: two sites have the same image; in one part of the split a warning",
        "Leave it out at one of the two sites, or make them one site.",
    ),
    "patient-elsewhere": Code(
        "warning",
        "in a simulation: two sites have patients of the same name in different parts of the split",
        "If they are the same people, keep each at one site; else nothing is wrong.",
    ),
}  # fmt: skip

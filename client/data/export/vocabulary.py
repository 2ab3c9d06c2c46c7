"""Words that exported text may consist of. Whatever is not listed here could be a name, and does not leave.

Sources: defined terms of DICOM PS3.3 (2024b) at the attribute named, body parts of PS3.16 annex L.
"""

import re


def words(text: str) -> frozenset[str]:
    """The words of `text`."""
    return frozenset(text.split())


YES_NO = words("YES NO Y N 0 1 00 01")

MODALITIES = words("CT MR PT MG DX CR XA RF SEG RTSTRUCT US SC OT XC ES NM")

BODY_PARTS = words(
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST CAROTID CEREBRUM CERVIX CHEEK "
    "CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY CSPINE CTSPINE "
    "DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT GALLBLADDER HAND HEAD HEADNECK "
    "HEART HIP HUMERUS ILEUM ILIUM IAC JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MAXILLA "
    "MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID PATELLA "
    "PELVIS PENIS PHARYNX PROSTATE RECTUM RIB SACRUM SCALP SCAPULA SCLERA SCROTUM SELLA SHOULDER SIJOINT SINUS "
    "SKULL SPINE SPLEEN SSPINE STERNUM STOMACH TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TLSPINE TMJ TOE "
    "TONGUE TRACHEA TSPINE UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA"
)

IMAGE_TYPES = words(
    "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER CORONAL SAGITTAL OBLIQUE VOLUME MPR MIP MINIP PROJECTION "
    "RESAMPLED REFORMATTED CT_SOM5 CT_SOM7 SPI SEQ HELIX M M_FFE M_SE M_IR P PHASE MAGNITUDE R I REAL IMAGINARY FFE SE "
    "IR OTHER NONE MIXED ND NORM DIS2D DIS3D SH FM FIL MFSPLIT MOSAIC DIFFUSION TRACEW ADC FA B0 CALC_BVALUE CARDIAC "
    "PERFUSION T1 T2 T2_STAR PROTON_DENSITY WATER FAT IN_PHASE OUT_PHASE IP OP STATIC DYNAMIC GATED EMISSION "
    "TRANSMISSION TOMO RECON ATTENUATION SUBTRACTION ADDITION DIVISION MULTIPLICATION FILTERED ENHANCED DENSITY_MAP "
    "MONOCHROME"
)

# Keyword -> the words that each of its values must be one of.
WORDS: dict[str, frozenset[str]] = {
    "Modality": MODALITIES,
    "BodyPartExamined": BODY_PARTS,
    "ImageType": IMAGE_TYPES,
    "FrameType": IMAGE_TYPES,
    "PhotometricInterpretation": words("MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422"),
    "PresentationLUTShape": words("IDENTITY INVERSE"),
    "PixelPresentation": words("MONOCHROME COLOR MIXED"),
    "VolumetricProperties": words("VOLUME SAMPLED DISTORTED MIXED"),
    "VolumeBasedCalculationTechnique": words("NONE MAX_IP MIN_IP VOLUME_RENDER SURFACE_RENDER MPR CURVED_MPR MIXED"),
    "ComplexImageComponent": words("MAGNITUDE PHASE REAL IMAGINARY MIXED"),
    "AcquisitionContrast": words(
        "DIFFUSION FLOW_ENCODED FLUID_ATTENUATED PERFUSION PROTON_DENSITY STIR TAGGING T1 T2 T2_STAR TOF UNKNOWN MIXED"
    ),
    "DiffusionDirectionality": words("DIRECTIONAL BMATRIX ISOTROPIC NONE"),
    "MRAcquisitionType": words("2D 3D"),
    "ScanningSequence": words("SE IR GR EP RM"),
    "SequenceVariant": words("SK MTC SS TRSS SP MP OSP NONE"),
    "ScanOptions": words("PER RG CG PPG FC PFF PFP SP FS CT HELICAL AXIAL"),
    "AngioFlag": YES_NO,
    "VariableFlipAngleFlag": YES_NO,
    "InPlanePhaseEncodingDirection": words("ROW COL"),
    "RotationDirection": words("CW CC"),
    "PatientPosition": words("HFS HFP HFDR HFDL FFS FFP FFDR FFDL LFP LFS RFP RFS AFDR AFDL PFDR PFDL"),
    "PatientOrientation": words("A P L R H F AL AR AF AH PL PR PF PH LA LP LH LF RA RP RH RF HA HP HL HR FA FP FL FR"),
    "Laterality": words("L R"),
    "ImageLaterality": words("L R U B"),
    "FrameLaterality": words("L R U B"),
    "ViewPosition": words("AP PA LL RL RLD LLD RLO LLO CC MLO ML LM LMO XCC XCCL XCCM FB SIO ISO CV AT"),
    "PresentationIntentType": words("FOR_PRESENTATION FOR_PROCESSING") | {"FOR PRESENTATION", "FOR PROCESSING"},
    "PixelIntensityRelationship": words("LIN LOG DISP OTHER"),
    "PixelSpacingCalibrationType": words("GEOMETRY FIDUCIAL"),
    "DetectorType": words("DIRECT SCINTILLATOR STORAGE FILM"),
    "PositionerType": words("MAMMOGRAPHIC NONE CARM COLUMN"),
    "OrganExposed": words("BREAST"),
    "BreastImplantPresent": YES_NO,
    "PartialView": YES_NO,
    "RescaleType": words("HU HU_MOD US OD MGML Z_EFF ED EDW PCT"),
    "ModalityLUTType": words("HU HU_MOD US OD MGML Z_EFF ED EDW PCT"),
    "VOILUTFunction": words("LINEAR LINEAR_EXACT SIGMOID"),
    "Units": words("BQML CNTS CPS NONE CM2 CM2ML PCNT PROPCNTS PROPCPS MLMING MLG 1CM UMOLML GML STDDEV SUV"),
    "SUVType": words("BW LBM BSA LBMJAMES128 LBMJANMA IBW"),
    "CountsSource": words("EMISSION TRANSMISSION"),
    "SeriesType": words("STATIC DYNAMIC GATED IMAGE REPROJECTION") | {"WHOLE BODY"},
    "CorrectedImage": words("DECY ATTN SCAT DTIM MOTN PMOT CLN RAN RADL DCAL NORM"),
    "DecayCorrection": words("NONE START ADMIN"),
    "DecayCorrected": YES_NO,
    "RandomsCorrectionMethod": words("NONE DLYD SING"),
    "LossyImageCompression": YES_NO,
    "LossyImageCompressionMethod": words(
        "ISO_10918_1 ISO_14495_1 ISO_15444_1 ISO_15444_15 ISO_13818_2 ISO_14496_10 ISO_23008_2"
    ),
    "BurnedInAnnotation": words("NO"),
    "RecognizableVisualFeatures": YES_NO,
    "SpatialLocationsPreserved": YES_NO | {"REORIENTED_ONLY"},
    "SegmentationType": words("BINARY FRACTIONAL LABELMAP"),
    "SegmentationFractionalType": words("PROBABILITY OCCUPANCY"),
    "SegmentAlgorithmType": words("AUTOMATIC SEMIAUTOMATIC MANUAL"),
    "SegmentsOverlap": YES_NO | {"UNDEFINED"},
    "DimensionOrganizationType": words("3D 3D_TEMPORAL TILED_FULL TILED_SPARSE"),
    "ContourGeometricType": words("POINT OPEN_PLANAR OPEN_NONPLANAR CLOSED_PLANAR CLOSEDPLANAR_XOR"),
    "ROIGenerationAlgorithm": words("AUTOMATIC SEMIAUTOMATIC MANUAL"),
    "RTROIInterpretedType": words(
        "EXTERNAL PTV CTV GTV TREATED_VOLUME IRRAD_VOLUME BOLUS AVOIDANCE ORGAN MARKER REGISTRATION ISOCENTER "
        "CONTRAST_AGENT CAVITY SUPPORT FIXATION DOSE_REGION CONTROL DOSE_MEASUREMENT NONE"
    ),
    "ConversionType": words("DV DI DF WSD SD SI DRW SYN"),
}

# What an unknown word becomes where one must stand: DICOM has no empty value in between.
OTHERWISE: dict[str, str] = {"ImageType": "OTHER", "FrameType": "OTHER"}

# Values that do not depend on each other: an unknown one is left out, the others stay.
UNORDERED = frozenset({"ScanOptions", "SequenceVariant", "ScanningSequence", "CorrectedImage"})

# Makers by the beginning of their name, and what is written instead: spellings differ from machine to machine.
_MAKERS = {
    "siemens": "SIEMENS", "ge": "GE MEDICAL SYSTEMS", "gems": "GE MEDICAL SYSTEMS",
    "general electric": "GE MEDICAL SYSTEMS", "philips": "Philips", "toshiba": "TOSHIBA", "canon": "CANON_MEC",
    "hitachi": "Hitachi", "fujifilm": "FUJIFILM", "hologic": "HOLOGIC", "agfa": "Agfa",
    "carestream": "CARESTREAM", "kodak": "KODAK", "united imaging": "UIH", "uih": "UIH", "elekta": "ELEKTA",
    "varian": "Varian", "accuray": "ACCURAY", "shimadzu": "SHIMADZU", "samsung": "SAMSUNG",
    "konica": "KONICA MINOLTA", "esaote": "ESAOTE", "neusoft": "NEUSOFT", "bruker": "Bruker",
}  # fmt: skip


def maker(text: str) -> str:
    """The scanner's maker in one spelling; empty if it is none that is known."""
    low = text.strip().lower()
    return next((name for start, name in _MAKERS.items() if re.match(rf"{start}\b", low)), "")


def is_number(text: str) -> bool:
    """Whether `text` is a number as DICOM writes them (VR DS or IS)."""
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text) is not None

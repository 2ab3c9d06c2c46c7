"""The allow list: every DICOM attribute that an export may hold, and what is done with it. All else is removed.

Made for segmentation: geometry, voxels and what scales them, the settings that change how a scan looks, references,
and structures. Names are the keywords of PS3.6. What is listed never has the action X (remove) in the Basic Profile of
PS3.15 table E.1-1 (2026c), except where an option of the profile really applied says otherwise; a test compares.
"""

from client.data.export.vocabulary import words

# Kept unchanged, but only where each value is a number.
NUMBERS = words(
    """
    SeriesNumber AcquisitionNumber InstanceNumber TemporalPositionIdentifier NumberOfTemporalPositions
    TemporalPositionIndex TemporalPositionTimeOffset ImagesInAcquisition NumberOfSlices NumberOfTimeSlices ImageIndex
    ImagePositionPatient ImageOrientationPatient SliceLocation SliceThickness SpacingBetweenSlices PixelSpacing
    ImagerPixelSpacing NominalScannedPixelSpacing PixelAspectRatio EstimatedRadiographicMagnificationFactor
    GantryDetectorTilt ReconstructionDiameter DataCollectionDiameter TableHeight ReconstructionPixelSpacing
    SamplesPerPixel PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    SmallestImagePixelValue LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit
    RescaleIntercept RescaleSlope WindowCenter WindowWidth LUTDescriptor LossyImageCompressionRatio
    KVP ExposureTime XRayTubeCurrent Exposure ExposureInmAs DistanceSourceToDetector DistanceSourceToPatient FocalSpots
    SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor RevolutionTime
    CompressionForce BodyPartThickness PositionerPrimaryAngle PositionerSecondaryAngle PixelIntensityRelationshipSign
    RepetitionTime EchoTime EffectiveEchoTime InversionTime InversionTimes FlipAngle EchoNumbers EchoTrainLength
    NumberOfAverages ImagingFrequency MagneticFieldStrength NumberOfPhaseEncodingSteps PercentSampling
    PercentPhaseFieldOfView PixelBandwidth AcquisitionMatrix TriggerTime NominalCardiacTriggerDelayTime
    NominalPercentageOfCardiacPhase CardiacNumberOfImages TemporalResolution
    DiffusionBValue DiffusionGradientOrientation ParallelReductionFactorInPlane
    RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction RadiopharmaceuticalVolume
    FrameReferenceTime ActualFrameDuration DecayFactor DoseCalibrationFactor ScatterFractionFactor DeadTimeFactor
    PrimaryPromptsCountsAccumulated SliceSensitivityFactor AxialAcceptance AxialMash
    RealWorldValueFirstValueMapped RealWorldValueLastValueMapped RealWorldValueSlope RealWorldValueIntercept
    DoubleFloatRealWorldValueFirstValueMapped DoubleFloatRealWorldValueLastValueMapped
    DimensionIndexPointer FunctionalGroupPointer DimensionIndexValues InStackPositionNumber StackID
    FrameAcquisitionNumber ReferencedFrameNumber ReferencedSegmentNumber
    SegmentNumber MaximumFractionalValue RecommendedDisplayCIELabValue RecommendedDisplayGrayscaleValue
    ROINumber ReferencedROINumber ROIDisplayColor ROIVolume ObservationNumber ContourNumber AttachedContours
    NumberOfContourPoints ContourData ContourSlabThickness ContourOffsetVector
    """
)

# Kept cleaned, item by item, with this same list.
SEQUENCES = words(
    """
    UnassignedSharedConvertedAttributesSequence UnassignedPerFrameConvertedAttributesSequence
    SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence PlanePositionSequence
    PlaneOrientationSequence FrameContentSequence PixelValueTransformationSequence FrameVOILUTSequence
    RealWorldValueMappingSequence CTImageFrameTypeSequence MRImageFrameTypeSequence PETFrameTypeSequence
    FrameAnatomySequence MRDiffusionSequence DiffusionGradientDirectionSequence MREchoSequence
    MRTimingAndRelatedParametersSequence MRAveragesSequence CTReconstructionSequence CTGeometrySequence
    CTExposureSequence CTXRayDetailsSequence CTAcquisitionTypeSequence CTAcquisitionDetailsSequence
    TemporalPositionSequence CardiacSynchronizationSequence
    ModalityLUTSequence EnergyWindowRangeSequence RadiopharmaceuticalInformationSequence
    DimensionOrganizationSequence DimensionIndexSequence SegmentSequence SegmentIdentificationSequence
    DerivationImageSequence SourceImageSequence ReferencedImageSequence ReferencedSeriesSequence
    ReferencedInstanceSequence ReferencedFrameOfReferenceSequence RTReferencedStudySequence RTReferencedSeriesSequence
    ContourImageSequence StructureSetROISequence ROIContourSequence ContourSequence RTROIObservationsSequence
    """
)

# Items are codes: kept where the code is in a public dictionary, with the dictionary's meaning.
CODES = words(
    """
    SegmentedPropertyCategoryCodeSequence SegmentedPropertyTypeCodeSequence SegmentedPropertyTypeModifierCodeSequence
    AnatomicRegionSequence AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence DerivationCodeSequence
    PurposeOfReferenceCodeSequence ViewCodeSequence ViewModifierCodeSequence MeasurementUnitsCodeSequence
    PatientOrientationCodeSequence PatientOrientationModifierCodeSequence PatientGantryRelationshipCodeSequence
    RadionuclideCodeSequence RTROIIdentificationCodeSequence
    """
)

# Replaced by a UID that is the same wherever the old one stood.
UIDS = words(
    """
    StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID ReferencedFrameOfReferenceUID
    ReferencedSOPInstanceUID DimensionOrganizationUID SynchronizationFrameOfReferenceUID ConcatenationUID
    """
)

# Kept where the standard itself has issued them.
CLASSES = frozenset({"SOPClassUID", "ReferencedSOPClassUID"})

# Kept where the site says so (option 113108); ages above 89 are all called 90.
CHARACTERISTICS = frozenset({"PatientSex", "PatientAge", "PatientSize", "PatientWeight"})

# Kept with shifted dates (option 113107); else removed, emptied or a dummy, as the tables below say.
DATES = words(
    """
    StudyDate SeriesDate AcquisitionDate ContentDate AcquisitionDateTime StructureSetDate FrameAcquisitionDateTime
    FrameReferenceDateTime RadiopharmaceuticalStartDateTime RadiopharmaceuticalStopDateTime DecayCorrectionDateTime
    """
)
TIMES = words(
    """
    StudyTime SeriesTime AcquisitionTime ContentTime StructureSetTime RadiopharmaceuticalStartTime
    RadiopharmaceuticalStopTime
    """
)

# Names of structures: kept where they are labels of the study, else numbered.
STRUCTURES = {"SegmentLabel": "segment", "ROIName": "ROI"}

# Where the standard wants a value (type 1) that must not be kept: action D.
DUMMIES = {
    "ContentLabel": "SEGMENTATION",
    "StructureSetLabel": "RTSTRUCT",
    "SegmentAlgorithmName": "algorithm",
    "FrameAcquisitionDateTime": "19000101000000",
    "FrameReferenceDateTime": "19000101000000",
    "DecayCorrectionDateTime": "19000101000000",
    "LUTLabel": "map",
    "LUTExplanation": "map",
}
# The same, but only in the kinds of objects that want it.
ENHANCED_DUMMIES = {
    "Manufacturer": "removed",
    "ManufacturerModelName": "removed",
    "DeviceSerialNumber": "removed",
    "SoftwareVersions": "removed",
    "AcquisitionDateTime": "19000101000000",
}
DATED_DUMMIES = {
    "SEG": {"ContentDate": "19000101", "ContentTime": "000000"},
    "PT": {"SeriesDate": "19000101", "SeriesTime": "000000"},
}

# Where the standard wants the attribute but takes an empty value (type 2): action Z, if it was there.
EMPTIES = words(
    """
    StudyDate StudyTime ContentDate ContentTime AcquisitionDate AcquisitionTime StructureSetDate StructureSetTime
    AccessionNumber ReferringPhysicianName StudyID PatientName PatientID PatientBirthDate PatientSex Manufacturer
    OperatorsName
    PositionReferenceIndicator Laterality PatientPosition SeriesNumber AcquisitionNumber InstanceNumber ScanOptions KVP
    EchoTime EchoTrainLength SliceThickness PatientOrientation ContentDescription ContentCreatorName ROIInterpreter
    ROIGenerationAlgorithm RTROIInterpretedType SourceImageSequence DerivationImageSequence CorrectedImage
    PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence AcquisitionContextSequence
    """
)

"""Every name that a study may use: closed tables of import targets.

An entry is imported when it is first used. The strategies' code is the server's; a site never loads it.
"""

from common.registry import Registry

NETS = Registry(
    "net",
    {
        "dynunet": "common.nets.dynunet:dynunet",
        "unet": "common.nets.unet:UNet",
        "segresnet": "common.nets.segresnet:segresnet",
        "residual_unet": "common.nets.residual_unet:residual_unet",
        "cru_net": "common.nets.crunet:CRUNet",
        "uresnet": "common.nets.uresnet:uresnet",
        "r2unet": "common.nets.r2unet:r2unet",
        "multiscale_unet": "common.nets.multiscale_unet:MultiScaleUNet",
        "inverted_net": "common.nets.inverted_net:inverted_net",
        "inception_fcn": "common.nets.inception_fcn:inception_fcn",
        "attention_unet": "common.nets.attention_unet:attention_unet",
        "unetpp": "common.nets.unetpp:unetpp",
        "vnet": "common.nets.vnet:VNet",
        "vnet_monai": "common.nets.vnet_monai:vnet_monai",
        "fcn": "common.nets.fcn:FCN",
        "cmr_fcn": "common.nets.cmr_fcn:CMRFCN",
        "hed_fcn": "common.nets.hed_fcn:HEDFCN",
        "context_net": "common.nets.context_net:ContextNet",
        "nopoolaspp": "common.nets.nopoolaspp:NoPoolASPP",
        "lungnet": "common.nets.lungnet:LungNet",
        "highresnet": "common.nets.highresnet:highresnet",
        "dilated_unet": "common.nets.dilated_unet:DilatedUNet",
        "resenc": "common.nets.resenc:ResEncUNet",
        "mednext": "common.nets.mednext:mednext",
        "swinunetr": "common.nets.swinunetr:swinunetr",
        "flexibleunet": "common.nets.flexibleunet:flexibleunet",
        "planar": "common.nets.planar:Planar",
        "densevoxnet": "common.nets.densevoxnet:DenseVoxNet",
        "skipdenseseg": "common.nets.skipdenseseg:SkipDenseSeg",
        "densevnet": "common.nets.densevnet:DenseVNet",
        "hyperdensenet": "common.nets.hyperdensenet:HyperDenseNet",
        "dsn3d": "common.nets.dsn3d:DSN3D",
        "tripath": "common.nets.tripath:TriPath",
        "organ_heads": "common.nets.organ_heads:OrganHeads",
    },
)

LOSSES = Registry(
    "loss",
    {
        "dice_ce": "common.losses.compound:DiceCELoss",
        "dice_focal": "common.losses.compound:DiceFocalLoss",
        "sum": "common.losses.compound:SumLoss",
        "ce": "common.losses.distribution:CELoss",
        "focal": "common.losses.distribution:FocalLoss",
        "entropy": "common.losses.distribution:EntropyLoss",
        "dice": "common.losses.overlap:DiceLoss",
        "generalized_dice": "common.losses.overlap:GeneralizedDiceLoss",
        "jaccard": "common.losses.overlap:JaccardLoss",
        "tversky": "common.losses.overlap:TverskyLoss",
        "focal_tversky": "common.losses.overlap:FocalTverskyLoss",
        "boundary": "common.losses.distance:BoundaryLoss",
        "hausdorff": "common.losses.distance:HausdorffLoss",
        "cldice": "common.losses.skeleton:ClDiceLoss",
    },
)

POSTPROCESS = Registry(
    "post-processing step",
    {
        "largest_component": "common.postprocess.components:LargestComponent",
        "remove_small": "common.postprocess.components:RemoveSmall",
        "fill_holes": "common.postprocess.shape:FillHoles",
        "closing": "common.postprocess.shape:Closing",
        "watershed": "common.postprocess.watershed:Watershed",
        "crf": "common.postprocess.crf:CRF",
    },
)

METRICS = Registry(
    "metric",
    {
        "dice": "common.metrics:Dice",
        "iou": "common.metrics:IoU",
        "sensitivity": "common.metrics:Sensitivity",
        "precision": "common.metrics:Precision",
        "hd95": "common.metrics:HD95",
        "assd": "common.metrics:ASSD",
        "nsd": "common.metrics:NSD",
        "volume_error": "common.metrics:VolumeError",
        "volume_difference": "common.metrics:VolumeDifference",
        "lesion_f1": "common.metrics:LesionF1",
    },
)

UPDATES = Registry(
    "update",
    {
        "full": "common.updates.full:Full",
        "half": "common.updates.half:Half",
        "int8": "common.updates.int8:Int8",
        "topk": "common.updates.topk:TopK",
    },
)

STRATEGIES = Registry(
    "strategy",
    {
        "fedavg": "server.strategies.fedavg:FedAvg",
        "fedprox": "server.strategies.fedprox:FedProx",
        "scaffold": "server.strategies.scaffold:Scaffold",
        "feddyn": "server.strategies.feddyn:FedDyn",
        "moon": "server.strategies.moon:Moon",
        "ditto": "server.strategies.ditto:Ditto",
        "fedper": "server.strategies.fedper:FedPer",
        "fedrep": "server.strategies.fedrep:FedRep",
        "fedbn": "server.strategies.fedbn:FedBN",
        "silobn": "server.strategies.silobn:SiloBN",
        "fedavgm": "server.strategies.fedavgm:FedAvgM",
        "fedadam": "server.strategies.fedadam:FedAdam",
        "fedyogi": "server.strategies.fedyogi:FedYogi",
        "fedadagrad": "server.strategies.fedadagrad:FedAdagrad",
        "fednova": "server.strategies.fednova:FedNova",
        "median": "server.strategies.median:Median",
        "trimmed_mean": "server.strategies.trimmed_mean:TrimmedMean",
        "krum": "server.strategies.krum:Krum",
        "multi_krum": "server.strategies.multi_krum:MultiKrum",
        "geometric_median": "server.strategies.geometric_median:GeometricMedian",
        "norm_clipping": "server.strategies.norm_clipping:NormClipping",
        "cyclic": "server.strategies.cyclic:Cyclic",
        "feddg_ga": "server.strategies.feddg_ga:FedDGGA",
        "flower": "server.strategies.flower:Flower",
    },
)

"""The methods as pure functions of a model and tensors, and the parts that they are made of; no Lightning, no files."""

from lightning_cnnvis.functional.activations.harvest import Harvest, top_activations
from lightning_cnnvis.functional.activations.top_k import TopActivations
from lightning_cnnvis.functional.deconvnet.projection import Projections, project
from lightning_cnnvis.functional.deconvnet.rules import RULES, RectifiedBackward, Rectifier, Rule
from lightning_cnnvis.functional.deepdream.octaves import Dream, DreamOptions, dream, zoom
from lightning_cnnvis.functional.diagnosis.examination import diagnose
from lightning_cnnvis.functional.diagnosis.findings import Finding, FindingLimits
from lightning_cnnvis.functional.diagnosis.results import Diagnosis
from lightning_cnnvis.functional.inversion.metamers import Metamers
from lightning_cnnvis.functional.inversion.methods import (
    INVERSION_METHODS,
    InversionMethod,
    InversionStage,
    MethodOfLayer,
    inversion_method,
)
from lightning_cnnvis.functional.inversion.reconstruction import InversionOptions, invert, invert_layers
from lightning_cnnvis.functional.inversion.representations import FeatureMask
from lightning_cnnvis.functional.inversion.results import Inversions
from lightning_cnnvis.functional.network.forward import OUTPUT
from lightning_cnnvis.functional.network.receptive_field import ReceptiveField, receptive_field
from lightning_cnnvis.functional.optimization.augmentations import ColorShift, InOrder, RandomBoxes, RandomFlip
from lightning_cnnvis.functional.optimization.loop import Batch, Optimized, image_seeds, optimize
from lightning_cnnvis.functional.optimization.magnitude import FixedMagnitude, OwnMagnitude
from lightning_cnnvis.functional.optimization.network_priors import BatchNormPrior, NetworkPrior
from lightning_cnnvis.functional.optimization.norms import DifferenceNorm, RootNorm
from lightning_cnnvis.functional.optimization.objectives import (
    Objective,
    channel,
    class_log_probability,
    class_logit,
    class_margin,
    direction,
    directions_between,
    diversify,
    diversity,
    guided,
    layer_energy,
    neuron,
)
from lightning_cnnvis.functional.optimization.optimizers import (
    AdaGrad,
    Adam,
    Momentum,
    Nadam,
    Optimizer,
    PyramidDescent,
)
from lightning_cnnvis.functional.optimization.parameterizations import (
    Fourier,
    GaussianStart,
    ImageStatistics,
    Parameterization,
    Pixels,
    UniformStart,
)
from lightning_cnnvis.functional.optimization.recipes import Phase, Recipe, with_steps
from lightning_cnnvis.functional.optimization.regularizers import (
    AlphaNorm,
    Both,
    Bounds,
    ColorNormBound,
    Constraint,
    Regularizer,
    TotalVariation,
    YosinskiPrior,
    alpha_norm,
    gaussian_blur,
    total_variation,
)
from lightning_cnnvis.functional.optimization.transforms import RandomAffine, RandomCrop, RandomRoll, Transform, resize
from lightning_cnnvis.functional.randomization.results import Randomization
from lightning_cnnvis.functional.randomization.stages import randomization_test
from lightning_cnnvis.functional.registry import Registry
from lightning_cnnvis.functional.sensitivity.correspondence import Correspondence, correspondence
from lightning_cnnvis.functional.sensitivity.occlusion import Occlusion, occlusion
from lightning_cnnvis.functional.sensitivity.patches import Patches, patches
from lightning_cnnvis.functional.sensitivity.transformations import (
    TransformationInvariance,
    transformation_invariance,
)
from lightning_cnnvis.functional.sensitivity.unit_invariance import UnitInvariance, unit_invariance
from lightning_cnnvis.functional.style.transfer import Style, stylize
from lightning_cnnvis.functional.visualization.accentuation import Accentuations, accentuate
from lightning_cnnvis.functional.visualization.classes import visualize_classes
from lightning_cnnvis.functional.visualization.judging import Judge, Verdict, judge_images
from lightning_cnnvis.functional.visualization.paths import PathSimilarity, path_similarity
from lightning_cnnvis.functional.visualization.presets import PRESETS, Preset, preset_recipe
from lightning_cnnvis.functional.visualization.results import VisualizationOptions, Visualizations
from lightning_cnnvis.functional.visualization.units import maximize_activation
from lightning_cnnvis.inputs import InputSpec

__all__ = [
    "INVERSION_METHODS",
    "OUTPUT",
    "PRESETS",
    "RULES",
    "Accentuations",
    "AdaGrad",
    "Adam",
    "AlphaNorm",
    "Batch",
    "BatchNormPrior",
    "Both",
    "Bounds",
    "ColorNormBound",
    "ColorShift",
    "Constraint",
    "Correspondence",
    "Diagnosis",
    "DifferenceNorm",
    "Dream",
    "DreamOptions",
    "FeatureMask",
    "Finding",
    "FindingLimits",
    "FixedMagnitude",
    "Fourier",
    "GaussianStart",
    "Harvest",
    "ImageStatistics",
    "InOrder",
    "InputSpec",
    "InversionMethod",
    "InversionOptions",
    "InversionStage",
    "Inversions",
    "Judge",
    "Metamers",
    "MethodOfLayer",
    "Momentum",
    "Nadam",
    "NetworkPrior",
    "Objective",
    "Occlusion",
    "Optimized",
    "Optimizer",
    "OwnMagnitude",
    "Parameterization",
    "Patches",
    "PathSimilarity",
    "Phase",
    "Pixels",
    "Preset",
    "Projections",
    "PyramidDescent",
    "RandomAffine",
    "RandomBoxes",
    "RandomCrop",
    "RandomFlip",
    "RandomRoll",
    "Randomization",
    "ReceptiveField",
    "Recipe",
    "RectifiedBackward",
    "Rectifier",
    "Registry",
    "Regularizer",
    "RootNorm",
    "Rule",
    "Style",
    "TopActivations",
    "TotalVariation",
    "Transform",
    "TransformationInvariance",
    "UniformStart",
    "UnitInvariance",
    "Verdict",
    "VisualizationOptions",
    "Visualizations",
    "YosinskiPrior",
    "accentuate",
    "alpha_norm",
    "channel",
    "class_log_probability",
    "class_logit",
    "class_margin",
    "correspondence",
    "diagnose",
    "direction",
    "directions_between",
    "diversify",
    "diversity",
    "dream",
    "gaussian_blur",
    "guided",
    "image_seeds",
    "inversion_method",
    "invert",
    "invert_layers",
    "judge_images",
    "layer_energy",
    "maximize_activation",
    "neuron",
    "occlusion",
    "optimize",
    "patches",
    "path_similarity",
    "preset_recipe",
    "project",
    "randomization_test",
    "receptive_field",
    "resize",
    "stylize",
    "top_activations",
    "total_variation",
    "transformation_invariance",
    "unit_invariance",
    "visualize_classes",
    "with_steps",
    "zoom",
]

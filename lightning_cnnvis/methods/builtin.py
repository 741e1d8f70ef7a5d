"""The package's own methods as attributes of whatever runs methods, so that editors and type checkers know them."""

from lightning_cnnvis.methods.accentuate import ACCENTUATE
from lightning_cnnvis.methods.classes import CLASSES
from lightning_cnnvis.methods.correspondence import CORRESPONDENCE
from lightning_cnnvis.methods.deconv import DECONV
from lightning_cnnvis.methods.diagnose import DIAGNOSE
from lightning_cnnvis.methods.dream import DREAM
from lightning_cnnvis.methods.invariance import INVARIANCE
from lightning_cnnvis.methods.invert import INVERT
from lightning_cnnvis.methods.maximize import MAXIMIZE
from lightning_cnnvis.methods.method import MethodAttribute
from lightning_cnnvis.methods.occlusion import OCCLUSION
from lightning_cnnvis.methods.patches import PATCHES
from lightning_cnnvis.methods.randomization import RANDOMIZATION
from lightning_cnnvis.methods.style import STYLE
from lightning_cnnvis.methods.unit_invariance import UNIT_INVARIANCE


class BuiltinMethods:
    """The package's own methods; each is called with its options."""

    deconv = MethodAttribute(DECONV)
    classes = MethodAttribute(CLASSES)
    maximize = MethodAttribute(MAXIMIZE)
    dream = MethodAttribute(DREAM)
    accentuate = MethodAttribute(ACCENTUATE)
    style = MethodAttribute(STYLE)
    invert = MethodAttribute(INVERT)
    occlusion = MethodAttribute(OCCLUSION)
    correspondence = MethodAttribute(CORRESPONDENCE)
    invariance = MethodAttribute(INVARIANCE)
    patches = MethodAttribute(PATCHES)
    unit_invariance = MethodAttribute(UNIT_INVARIANCE)
    randomization = MethodAttribute(RANDOMIZATION)
    diagnose = MethodAttribute(DIAGNOSE)

# What a checker and an editor see; `__init__.py` imports each name when it is first used.
from tfrobust.attacks import ATTACKS as ATTACKS
from tfrobust.attacks.apgd import APGD as APGD
from tfrobust.attacks.apgd import TargetedAPGD as TargetedAPGD
from tfrobust.attacks.autoattack import autoattack as autoattack
from tfrobust.attacks.fab import FAB as FAB
from tfrobust.attacks.gradient import BIM as BIM
from tfrobust.attacks.gradient import FGSM as FGSM
from tfrobust.attacks.gradient import PGD as PGD
from tfrobust.attacks.square import Square as Square
from tfrobust.backbones import BACKBONES as BACKBONES
from tfrobust.backbones import build as build
from tfrobust.config import RunConfig as RunConfig
from tfrobust.data import DATASETS as DATASETS
from tfrobust.data import load as load
from tfrobust.data.sources import as_images as as_images
from tfrobust.errors import TFRobustError as TFRobustError
from tfrobust.errors import UsageError as UsageError
from tfrobust.evaluation.evaluate import evaluate as evaluate
from tfrobust.evaluation.report import RobustnessReport as RobustnessReport
from tfrobust.explain import EXPLAINERS as EXPLAINERS
from tfrobust.explain.explain import explain as explain
from tfrobust.export import export as export
from tfrobust.models.classifier import Classifier as Classifier
from tfrobust.models.classifier import as_classifier as as_classifier
from tfrobust.models.opening import load_any as load_any
from tfrobust.models.views import InputView as InputView
from tfrobust.run import RunFolder as RunFolder
from tfrobust.threat_model import L0 as L0
from tfrobust.threat_model import L1 as L1
from tfrobust.threat_model import L2 as L2
from tfrobust.threat_model import Linf as Linf
from tfrobust.threat_model import ThreatModel as ThreatModel
from tfrobust.training import METHODS as METHODS
from tfrobust.training.fit import fit as fit

__version__: str

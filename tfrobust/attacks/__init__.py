"""The tables of attacks (name -> frozen dataclass) and of suites, which are sets of attacks.

An attack is called as ``attack(model, x, y, threat_model, seed) -> x_adv``. It never
judges itself: the caller projects onto the ball, checks the bounds, takes the
worst case per example, and counts time and gradient evaluations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tfrobust.tables import Table

if TYPE_CHECKING:
    from tfrobust.typing import Attack

#: In order of cost; an evaluation runs them in this order.
ATTACKS: Table[Callable[..., Attack]] = Table(
    "attack",
    {
        "uniform-noise": "tfrobust.attacks.noise:UniformNoise",
        "gaussian-noise": "tfrobust.attacks.noise:GaussianNoise",
        "fgsm": "tfrobust.attacks.gradient:FGSM",
        "bim": "tfrobust.attacks.gradient:BIM",
        "pgd": "tfrobust.attacks.gradient:PGD",
        "optimised-noise": "tfrobust.attacks.noise:OptimisedNoise",
        "pixel": "tfrobust.attacks.pixel:PixelAttack",
        "pgd-l0": "tfrobust.attacks.pgd_l0:PGDL0",
        "deepfool": "tfrobust.attacks.deepfool:DeepFool",
        "ddn": "tfrobust.attacks.ddn:DDN",
        "fmn": "tfrobust.attacks.fmn:FMN",
        "mi": "tfrobust.attacks.transferable:mi",
        "ni": "tfrobust.attacks.transferable:ni",
        "di": "tfrobust.attacks.transferable:di",
        "ti": "tfrobust.attacks.transferable:ti",
        "si": "tfrobust.attacks.transferable:si",
        "vmi": "tfrobust.attacks.transferable:vmi",
        "apgd-ce": "tfrobust.attacks.apgd:APGD",
        "apgd-dlr": "tfrobust.attacks.autoattack:apgd_dlr",
        "apgd-t": "tfrobust.attacks.apgd:TargetedAPGD",
        "fab": "tfrobust.attacks.fab:FAB",
        "fab-t": "tfrobust.attacks.autoattack:fab_t",
        "sigma-zero": "tfrobust.attacks.sigma_zero:SigmaZero",
        "square": "tfrobust.attacks.square:Square",
        "simba": "tfrobust.attacks.simba:SimBA",
        "nes": "tfrobust.attacks.estimated:NES",
        "spsa": "tfrobust.attacks.estimated:SPSA",
        "geoda": "tfrobust.attacks.geoda:GeoDA",
        "hopskipjump": "tfrobust.attacks.hopskipjump:HopSkipJump",
        "boundary": "tfrobust.attacks.boundary_walk:Boundary",
        "sparse-rs": "tfrobust.attacks.sparse_rs:SparseRS",
        "sparse-rs-patch": "tfrobust.attacks.sparse_rs_patch:SparseRSPatch",
        "cw": "tfrobust.attacks.carlini_wagner:CarliniWagner",
        "ead": "tfrobust.attacks.ead:EAD",
    },
    "tfrobust.attacks",
)

#: The suite that an evaluation runs by default.
QUICK = "quick"
#: name -> version of `autoattack`, which returns name -> attack in the published order.
SUITES = {QUICK: "", "autoattack": "standard", "autoattack-plus": "plus", "autoattack-rand": "rand"}

"""The table of attacks: a name -> a frozen dataclass.

An attack is called as ``attack(model, x, y, threat_model, seed) -> x_adv``. It never
judges itself: the caller projects onto the ball, checks the bounds, takes the
worst case per example and counts time and gradient evaluations.
"""

from tfrobust.tables import Table

ATTACKS = Table(
    "attack",
    {
        "fgsm": "tfrobust.attacks.gradient:FGSM",
        "pgd": "tfrobust.attacks.gradient:PGD",
    },
)

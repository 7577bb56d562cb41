"""AutoAttack: the published ensembles of attacks, each in its published settings.

Croce and Hein (2020), https://arxiv.org/abs/2003.01690, in the order and with the settings
of the authors' current code (https://github.com/fra31/auto-attack), whose 'standard' version
has the targeted attacks in place of the paper's five restarts. In l1: Croce and Hein
(2021), "Mind the box", https://arxiv.org/abs/2103.01208.
"""

from __future__ import annotations

from dataclasses import replace

from tfrobust.errors import UsageError
from tfrobust.typing import Attack

VERSIONS = ("standard", "plus", "rand")


def autoattack(
    version: str = "standard", classes: int | None = None, norm: str = "linf"
) -> dict[str, Attack]:
    """The attacks of one version of AutoAttack, name -> attack, in the order to run them.

    Each attack is meant for the examples that survived those before it. In the norms 'linf' and
    'l2' the attacks are the same:

    - 'standard': apgd-ce, apgd-t (9 targets), fab-t (9 targets), square (5,000 queries).
      In 'l1' apgd-ce has 5 restarts and apgd-t 5 targets.
    - 'plus': apgd-ce, apgd-dlr and fab (5 restarts each), square, apgd-t, fab-t.
    - 'rand', for randomised models: apgd-ce and apgd-dlr, each gradient averaged over 20.

    The DLR loss divides by the distance to the third largest logit, the targeted one by that to
    the third and fourth. With fewer than 3 (targeted: 4) classes it is undefined, and the
    authors' code warns and fails; here the undivided margin of the same logits is used instead,
    which has the same zero and the same sign. The attacks then show ``loss='margin'`` among
    their parameters: such a result is not standard AutoAttack.

    Args:
      version: one of `VERSIONS`.
      classes: of the model, K; None means "at least 4". There are at most K - 1 targets.
      norm: of the ball, 'linf', 'l2' or 'l1'; in 'l1' only the version 'standard' is published.

    Raises:
      UsageError: unknown version or norm, an unpublished pair of them, or fewer than 2 classes.

    Examples:
      >>> list(tr.autoattack("standard", classes=10))
      ['apgd-ce', 'apgd-t', 'fab-t', 'square']
      >>> tr.autoattack(norm="l1")["apgd-ce"].restarts
      5
    """
    if version not in VERSIONS:
        names = ", ".join(VERSIONS)
        raise UsageError(f"autoattack version: expected one of {names}, found {version!r}.")
    if classes is not None and classes < 2:
        raise UsageError(f"classes: expected at least 2, found {classes!r}.")
    _check_norm(norm, version)
    known = 4 if classes is None else classes
    losses = {name: "dlr" if known >= least else "margin" for name, least in _DLR_CLASSES.items()}
    found = {"standard": _standard, "plus": _plus, "rand": _rand}[version](losses)
    return _in_l1(found) if norm == "l1" else found


def _check_norm(norm: str, version: str) -> None:
    if norm not in ("linf", "l2", "l1"):
        raise UsageError(
            f"autoattack: expected the norm linf, l2 or l1, found {norm!r}; use sparse-rs, pgd-l0 "
            "and sigma-zero in l0."
        )
    if norm == "l1" and version != "standard":
        raise UsageError(f"autoattack version: expected 'standard' in l1, found {version!r}.")


def _in_l1(standard: dict[str, Attack]) -> dict[str, Attack]:
    changes = {"apgd-ce": {"restarts": 5}, "apgd-t": {"n_targets": 5}}
    return {name: replace(attack, **changes.get(name, {})) for name, attack in standard.items()}


def apgd_dlr() -> Attack:
    """Auto-PGD on the DLR loss, as in AutoAttack."""
    from tfrobust.attacks.apgd import APGD

    return APGD(loss="dlr")


def fab_t() -> Attack:
    """Targeted FAB, as in AutoAttack: without the final search of FAB's paper."""
    from tfrobust.attacks.fab import FAB

    return FAB(targeted=True, final_search=0)


_DLR_CLASSES = {"apgd-dlr": 3, "apgd-t": 4}


def _standard(losses: dict[str, str]) -> dict[str, Attack]:
    from tfrobust.attacks.apgd import APGD, TargetedAPGD
    from tfrobust.attacks.square import Square

    return {
        "apgd-ce": APGD(),
        "apgd-t": TargetedAPGD(loss=losses["apgd-t"]),
        "fab-t": fab_t(),
        "square": Square(),
    }


def _plus(losses: dict[str, str]) -> dict[str, Attack]:
    from tfrobust.attacks.apgd import APGD
    from tfrobust.attacks.fab import FAB

    standard = _standard(losses)
    return {
        "apgd-ce": APGD(restarts=5),
        "apgd-dlr": APGD(loss=losses["apgd-dlr"], restarts=5),
        # FAB's first start is x itself, so its restarts are starts within one call.
        "fab": FAB(starts=5, final_search=0),
        "square": standard["square"],
        "apgd-t": standard["apgd-t"],
        "fab-t": standard["fab-t"],
    }


def _rand(losses: dict[str, str]) -> dict[str, Attack]:
    from tfrobust.attacks.apgd import APGD

    # One misclassification of a randomised model may be luck: no example stops early.
    return {
        "apgd-ce": APGD(eot_iter=20, early_stop=False),
        "apgd-dlr": APGD(loss=losses["apgd-dlr"], eot_iter=20, early_stop=False),
    }

"""The model card of a run: what the model is, how robust it is, what it is not for."""

from __future__ import annotations

from tfrobust.config import RunConfig
from tfrobust.evaluation.report import RobustnessReport, wilson
from tfrobust.settings import format_eps


def model_card(
    report: RobustnessReport, label_names: tuple[str, ...], trained: RunConfig | None
) -> str:
    """Markdown, after Mitchell et al. (2019), https://arxiv.org/abs/1810.03993.

    Args:
      report: what was measured.
      label_names: the model's classes.
      trained: the settings that the model was trained with; None where they are unknown,
        as of a bare model file.
    """
    shown = ", ".join(label_names[:20]) + (", ..." if len(label_names) > 20 else "")
    rows = [("clean", "", report.clean.correct.mean())]
    for attack in (*report.attacks, *report.sweep):
        eps = attack.threat_model.eps_text
        rows.append((attack.name, eps, attack.outcome.correct.mean()))
    rows.append(("worst case", report.threat_model.eps_text, report.robust.mean()))
    low, high = wilson(int(report.robust.sum()), len(report.labels))
    table = "\n".join(f"| {name} | {eps} | {accuracy:.3f} |" for name, eps, accuracy in rows)
    doubt = "\n".join(f"- **Unreliable**: {f['name']}: {f['meaning']}" for f in report.flags)
    return f"""# {report.model}

{_origin(trained)}
{len(label_names)} classes: {shown}.

## Measured on {len(report.labels)} images

| attack | eps ({report.threat_model.norm}) | accuracy |
|---|---|---|
{table}

The worst case's 95 % interval is {low:.3f} to {high:.3f}. Stronger attacks may lower these
figures, none can raise them.
{doubt}

## Limits

The figures hold for perturbations inside this ball, on images like these. They
say nothing of other norms, larger radii, rotations, weather or patches.
"""


def _origin(trained: RunConfig | None) -> str:
    if trained is None:
        return "A model file: how it was trained is not known here."
    backbone, threat = trained.backbone, trained.threat
    return (
        f"{backbone.name} (weights: {backbone.weights}), trained with "
        f"`{trained.training.method}` on `{trained.data.dataset}`; its settings name {threat.norm} "
        f"perturbations of {format_eps(threat.eps, threat.norm)}."
    )

"""The model card of a run: what the model is, how robust it is, what it is not for."""

from __future__ import annotations

from tfrobust.config import RunConfig
from tfrobust.evaluation.report import RobustnessReport, wilson
from tfrobust.settings import format_eps


def model_card(config: RunConfig, report: RobustnessReport, label_names: tuple[str, ...]) -> str:
    """Markdown, after Mitchell et al. (2019), https://arxiv.org/abs/1810.03993."""
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

{config.backbone.name} (weights: {config.backbone.weights}), trained with `{config.training.method}`
on `{config.data.dataset}` against {config.threat.norm} perturbations of
{format_eps(config.threat.eps, config.threat.norm)}. {len(label_names)} classes: {shown}.

## Measured on {len(report.labels)} test images

| attack | eps ({report.threat_model.norm}) | accuracy |
|---|---|---|
{table}

The worst case's 95 % interval is {low:.3f} to {high:.3f}. All attacks know the model
(white-box); stronger ones may lower these figures, none can raise them.
{doubt}

## Limits

The figures hold for perturbations inside this ball, on images like the test images. They
say nothing of other norms, larger radii, rotations, weather or patches.
"""

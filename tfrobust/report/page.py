"""The page: one self-contained HTML file, made of what the runs know of themselves."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tfrobust.report.charts import Line, chart
from tfrobust.report.runs import RunData
from tfrobust.report.summary import (
    attack_settings,
    conversion,
    cost,
    environment,
    robustness_rows,
    settings,
    training_seconds,
    transfer,
)
from tfrobust.report.summary_data import data_rows
from tfrobust.report.summary_explanations import explanations
from tfrobust.run import write_text
from tfrobust.settings import format_eps


def write_page(runs: Sequence[RunData], path: Path, *, title: str | None = None) -> Path:
    """Writes the report of one run, or of several side by side.

    The file holds all it needs: it opens without a network, on a phone, in light and in
    dark, and by keyboard alone.

    Args:
      runs: at least one.
      path: the file.
      title: of the page; by default the runs' names.

    Returns:
      `path`.

    Raises:
      TFRobustError: it cannot be written.
    """
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("tfrobust.report", "."), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    templates.filters |= {"percent": _percent, "interval": _interval, "picture": _picture}
    template = templates.get_template("page.html")
    text = template.render(
        title=title or " and ".join(run.name for run in runs),
        runs=[_shown(run, number) for number, run in enumerate(runs)],
        eps_chart=_eps_chart(runs),
    )
    write_text(path, text)
    return path


def _shown(run: RunData, number: int) -> dict[str, Any]:
    """What the template asks of a run."""
    found = run.evaluation
    return {
        "name": run.name,
        "id": f"run-{number}",
        "colour": number % 6,
        "evaluation": found,
        "eps": found["threat_model"]["eps_text"],
        "ball": f"{found['threat_model']['norm']}, eps {found['threat_model']['eps_text']}",
        "data": data_rows(run),
        "rows": list(robustness_rows(found)),
        "settings": settings(run.config),
        "environment": environment(run.environment),
        "training_chart": _training_chart(run, number),
        "seconds": training_seconds(run),
        "attacks": attack_settings(found["attacks"]),
        "cost": list(cost(found["attacks"])),
        "transfer": transfer(found),
        "conversion": conversion(found),
        "corruptions": found.get("corruptions"),
        "explanations": explanations(run.explanations),
        "explanations_note": run.explanations_note,
        "figures": run.figures,
    }


def _eps_chart(runs: Sequence[RunData]) -> Markup | None:
    """Accuracy against the radius, a curve for each run, by its strongest attack."""
    norms = {run.evaluation["threat_model"]["norm"] for run in runs}
    curves = [_eps_points(run.evaluation) for run in runs]
    if len(norms) > 1 or all(len(points) < 3 for points in curves):
        return None
    lines = [Line(run.name, points, i) for i, (run, points) in
             enumerate(zip(runs, curves, strict=True))]  # fmt: skip
    norm = norms.pop()
    ticks = sorted({eps for points in curves for eps, _ in points})
    kept = _spread(ticks)
    return chart(
        lines, title="Accuracy against the radius of the attack", x_label=f"eps ({norm})",
        x_ticks=[(eps, format_eps(eps, norm) if eps else "0") for eps in kept],
    )  # fmt: skip


def _eps_points(found: dict[str, Any]) -> list[tuple[float, float]]:
    points = {0.0: found["clean_accuracy"], found["threat_model"]["eps"]: found["robust_accuracy"]}
    for entry in found["sweep"]:
        known = points.get(entry["eps"], 1.0)
        points[entry["eps"]] = min(known, entry["accuracy"])
    return sorted(points.items())


def _spread(ticks: list[float]) -> list[float]:
    """Ticks that are not too near to each other to be read."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or tick - kept[-1] > 0.07 * ticks[-1]:
            kept.append(tick)
    return kept


def _training_chart(run: RunData, number: int) -> Markup | None:
    """Accuracy on 'select' after each epoch, and where stages begin."""
    rows = run.history
    if len(rows) < 2:
        return None
    lines = []
    for column, name, dashed in (("select_clean", "clean", True), ("select_pgd", "PGD", False)):
        points = [(row["epoch"], row[column]) for row in rows if row.get(column) is not None]
        lines.append(Line(f"select, {name}", points, number, dashed))
    marks = [b["epoch"] - 0.5 for a, b in zip(rows, rows[1:], strict=False)
             if a["stage"] != b["stage"]]  # fmt: skip
    every = max(1, len(rows) // 8)
    ticks = [(row["epoch"], f"{row['epoch']:.0f}") for row in rows[::every]]
    return chart(lines, title=f"Training of {run.name}", x_label="epoch", x_ticks=ticks,
                 marks=marks)  # fmt: skip


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _interval(pair: Sequence[float]) -> str:
    return f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f} %"


def _picture(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()

"""The page: one self-contained HTML file with the data of the runs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from tfrobust.figures.figure import Figure, encoded
from tfrobust.figures.run_lines import (
    RunAgainstEpochs,
    RunByEpoch,
    RunLine,
    RunsAgainstEps,
    RunsByEps,
)
from tfrobust.figures.style import THEMES, using
from tfrobust.io import write_text
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


def write_page(runs: Sequence[RunData], path: Path, *, title: str | None = None) -> Path:
    """Writes the report of one run, or of several side by side.

    The file is self-contained: it opens offline, on a phone, in light and dark mode, and works with
    only a keyboard.

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
    """The template's data for one run."""
    found = run.evaluation
    return {
        "name": run.name,
        "id": f"run-{number}",
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


def _eps_chart(runs: Sequence[RunData]) -> dict[str, str] | None:
    """Accuracy against the radius, one line per run, by its strongest attack."""
    norms = {run.evaluation["threat_model"]["norm"] for run in runs}
    curves = [_eps_points(run.evaluation) for run in runs]
    if len(norms) > 1 or all(len(points) < 3 for points in curves):
        return None
    lines = [
        RunLine(run.name, [x for x, _ in points], [y for _, y in points], number)
        for number, (run, points) in enumerate(zip(runs, curves, strict=True))
    ]
    return _embedded(RunsAgainstEps(), RunsByEps(lines, norms.pop()))


def _eps_points(found: dict[str, Any]) -> list[tuple[float, float]]:
    points = {0.0: found["clean_accuracy"], found["threat_model"]["eps"]: found["robust_accuracy"]}
    for entry in found["sweep"]:
        known = points.get(entry["eps"], 1.0)
        points[entry["eps"]] = min(known, entry["accuracy"])
    return sorted(points.items())


def _training_chart(run: RunData, number: int) -> dict[str, str] | None:
    """Accuracy on 'select' after each epoch, and the starts of the stages."""
    rows = run.history
    if len(rows) < 2:
        return None
    lines = []
    for column, name, dashed in (("select_clean", "clean", True), ("select_pgd", "PGD", False)):
        points = [(row["epoch"], row[column]) for row in rows if row.get(column) is not None]
        if points:
            x, accuracy = zip(*points, strict=True)
            lines.append(RunLine(f"select, {name}", x, accuracy, number, dashed))
    stages = [b["epoch"] - 0.5 for a, b in zip(rows, rows[1:], strict=False)
              if a["stage"] != b["stage"]]  # fmt: skip
    return _embedded(RunAgainstEpochs(), RunByEpoch(lines, stages)) if lines else None


def _embedded(figure: Figure[Any], data: Any) -> dict[str, str]:
    """A figure embedded in a page: 'title', and 'light' and 'dark' as SVG."""
    found = {"title": figure.title}
    for name, colours in THEMES.items():
        with using(colours):
            svg = encoded(figure.draw(data), "svg")
        found[name] = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    return found


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _interval(pair: Sequence[float]) -> str:
    return f"{100 * pair[0]:.1f} to {100 * pair[1]:.1f} %"


def _picture(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()

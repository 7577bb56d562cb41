"""Shows what a model looks at, in clean and in adversarial images, and what the maps are worth.

python -m pipelines.explain saved_models/RUN
python -m pipelines.explain saved_models/ROBUST --against saved_models/STANDARD --measure 64
"""

from __future__ import annotations

import argparse
import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cli import add_settings, main_of, new_parser
from tfrobust.errors import UsageError
from tfrobust.explain import EXPLAINERS

if TYPE_CHECKING:
    from tfrobust.config import RunConfig
    from tfrobust.data.types import ImageSet
    from tfrobust.explain.chosen import Chosen
    from tfrobust.run import RunFolder

# Images that are attacked to find a few of each group.
POOL = 500
# Images and classes that the larger figures show.
ROWS, CLASSES = 4, 10


def make_parser() -> argparse.ArgumentParser:
    """The flags of `pipelines.explain`."""
    parser = new_parser("explain", "Draw what a model looks at, clean and under attack.")
    add = parser.add_argument
    add("model", metavar="RUN_OR_MODEL", help="run folder, .keras or .h5 file")
    add("--against", default=None, metavar="RUN_OR_MODEL",
        help="another model of the same classes, drawn and measured beside it")  # fmt: skip
    add("--output", default=None, metavar="FOLDER",
        help="for the figures (default: the run folder, or one named after the model)")  # fmt: skip
    add("--per-group", type=int, default=3,
        help="images of each group: withstood, broken by the attack, wrong anyway")  # fmt: skip
    add("--methods", default="smoothgrad,gradcam", metavar="NAMES",
        help=f"methods to compare, of {', '.join(EXPLAINERS)}")  # fmt: skip
    add("--target-layer", default=None, metavar="NAME",
        help="layer of class-activation maps (default: the last map above 1x1)")  # fmt: skip
    add("--measure", type=int, default=0, metavar="IMAGES",
        help="measure the methods on so many images: faithful, stable, sane?")  # fmt: skip
    add("--class-images", type=int, default=CLASSES, metavar="CLASSES",
        help="climb to the image that each of so many classes asks for; 0 for none")  # fmt: skip
    add_settings(parser, ["", "threat", "data"], {})
    return parser


def work(args: argparse.Namespace) -> None:
    """Explains a run folder's or a bare model."""
    for name, least in (("per_group", 1), ("measure", 0), ("class_images", 0)):
        if getattr(args, name) < least:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: expected at least {least}, found {getattr(args, name)}.")
    methods = _methods(args.methods)
    from pipelines.loading import open_with_images, require_keras
    from tfrobust.evaluation.models import load_any

    opened, test = open_with_images(args)
    models = {opened.name: require_keras(opened, "explain")}
    if args.against:
        other = Path(args.against)
        models[_other_name(other, opened.name)] = load_any(other)
    _check_models(models, args.target_layer)
    explain_run(models[opened.name], test, opened.config, opened.run, args.per_group)
    work = _Explaining(models, test, opened.config, opened.run, methods, args.target_layer)
    work.draw()
    if args.class_images:
        work.draw_classes(args.class_images)
    if args.measure:
        work.measure(args.measure)


def _methods(text: str) -> dict[str, str]:
    """Names in `EXPLAINERS` -> how figures call them.

    Raises:
      UsageError: one is unknown.
    """
    words = {"saliency": "gradient", "smoothgrad": "SmoothGrad", "gradcam": "Grad-CAM",
             "integrated-gradients": "integr. gradients", "gradcam++": "Grad-CAM++",
             "scorecam": "Score-CAM", "layercam": "Layer-CAM"}  # fmt: skip
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names or [""]:
        if name not in EXPLAINERS:
            EXPLAINERS[name]
    return {name: words.get(name, name) for name in names}


def _other_name(path: Path, first: str) -> str:
    return path.name if path.name != first else f"{path.parent.name}/{path.name}"


def _check_models(models: dict[str, Any], target_layer: str | None) -> None:
    from tfrobust.explain.target_layer import target_layer as find
    from tfrobust.runtime import keras

    shapes = {}
    for name, model in models.items():
        if not isinstance(model, keras.Model):
            raise UsageError(f"--against: {name} is no model of tf_keras with its layers.")
        shapes[name] = (model.input_shape[1:], model.output_shape[-1])
        find(model, target_layer)
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name}: {shape[0]} and {shape[1]}" for name, shape in shapes.items())
        raise UsageError(
            f"--against: expected models of the same images and classes, found {found}."
        )


def explain_run(
    model: Any, test: ImageSet, config: RunConfig, run: RunFolder, per_group: int = 3
) -> Path:
    """Attacks a few hundred test images, picks some of each kind, and draws their maps."""
    from pipelines.loading import sample
    from tfrobust.attacks.gradient import PGD
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.explain.figures import Examples, pick, saliency_figure
    from tfrobust.threat_model import ThreatModel

    pool = sample(test, POOL, config.seed)
    evaluator = Evaluator(model, pool, seed=config.seed)
    attack, threat_model = PGD(steps=20), ThreatModel.from_config(config.threat)
    attacked = evaluator.run("pgd", attack, threat_model).outcome.predictions
    index = pick(pool.labels, evaluator.clean.predictions, attacked, per_group, config.seed)
    x = pool.pixels(index)
    examples = Examples(x, pool.labels[index], evaluator.craft(attack, threat_model, index))
    path = run.figures / "saliency.png"
    saliency_figure(model, examples, test.label_names, path, seed=config.seed)
    print(f"Figure: {path}", flush=True)
    return path


def _tell(model: str, method: str) -> None:
    print(f"measuring {method} of {model}", flush=True)


@dataclass
class _Explaining:
    """The larger figures and the table, of one model or of two."""

    models: dict[str, Any]
    test: ImageSet
    config: RunConfig
    run: RunFolder
    methods: dict[str, str]
    target_layer: str | None

    def draw(self) -> None:
        """Overlay, top-5, methods side by side, feature maps and channels."""
        from tfrobust.explain.figures_features import (
            channel_figure,
            feature_map_figure,
        )
        from tfrobust.explain.figures_maps import models_figure, overlay_figure
        from tfrobust.explain.figures_scores import top5_figure

        chosen = self._images(ROWS, mixed=True)
        x, y, adversarial = chosen.x, chosen.labels, chosen.adversarial
        names, first = self.test.label_names, next(iter(self.models))
        model, x_adv = self.models[first], adversarial[first]
        overlay_figure(model, x, x_adv, y, names, self._path("overlay"))
        p_clean, p_adv = (self._probabilities(model, one) for one in (x, x_adv))
        top5_figure(x, x_adv, y, p_clean, p_adv, names, self._path("top5"))
        models_figure(
            self.models, x, adversarial, y, names, self._path("maps"), methods=self.methods,
            explainers=self._explainers(),
        )  # fmt: skip
        maps = self._feature_maps(x[:1], {k: v[:1] for k, v in adversarial.items()})
        if len({tuple(one.layer for one in of["clean"]) for of in maps.values()}) > 1:
            print("Feature maps: the two networks differ in their layers; the first is drawn.")
            maps = {first: maps[first]}
        feature_map_figure(maps, self._path("feature_maps"))
        channel_figure(maps[first]["clean"], self._path("channels"))

    def draw_classes(self, count: int) -> None:
        """The image that each of the first classes asks for."""
        from tfrobust.explain.figures_features import class_image_figure
        from tfrobust.explain.maximise import maximise

        names = self.test.label_names
        classes, seed = list(range(min(count, len(names)))), self.config.seed
        asked = {name: maximise(model, classes, seed=seed) for name, model in self.models.items()}
        class_image_figure(asked, classes, names, self._path("classes"))

    def measure(self, count: int) -> None:
        """Measures the methods, prints the table and leaves it as CSV with its curves."""
        from tfrobust.explain.figures_scores import faithfulness_figure
        from tfrobust.explain.worth import as_csv, as_text, measure
        from tfrobust.run import write_text

        chosen = self._images(count)
        table = {
            name: measure(
                model, chosen.x, chosen.adversarial[name], list(self.methods),
                seed=self.config.seed, explainers=self._explainers(),
                shown=functools.partial(_tell, name),
            )
            for name, model in self.models.items()
        }  # fmt: skip
        right = f"{chosen.right} of them right by every model"
        print(f"\n{len(chosen.x)} images ({right}), adversarial ones by PGD-20 against each model")
        print(as_text(table))
        path = self.run.path / "explanations.csv"
        write_text(path, as_csv(table))
        curves = {n: {w.method: w.curves for w in rows} for n, rows in table.items()}
        faithfulness_figure(curves, self._path("faithfulness"))
        print(f"Table: {path}", flush=True)

    def _images(self, count: int, *, mixed: bool = False) -> Chosen:
        from pipelines.loading import sample
        from tfrobust.explain.chosen import choose
        from tfrobust.threat_model import ThreatModel

        pool = sample(self.test, max(POOL, 2 * count), self.config.seed + 1)
        threat_model = ThreatModel.from_config(self.config.threat)
        return choose(self.models, pool, threat_model, count, seed=self.config.seed, mixed=mixed)

    def _explainers(self) -> dict[str, Any]:
        """The methods, those that read a layer with the one that was asked for."""
        found = {}
        for name in self.methods:
            takes = "target_layer" in inspect.signature(EXPLAINERS[name]).parameters
            options = {"target_layer": self.target_layer} if takes else {}
            found[name] = functools.partial(EXPLAINERS[name], **options)
        return found

    def _feature_maps(self, x: np.ndarray, adversarial: dict[str, np.ndarray]) -> dict[str, Any]:
        from tfrobust.explain.feature_maps import feature_maps

        return {
            name: {"clean": feature_maps(model, x),
                   "adversarial": feature_maps(model, adversarial[name])}
            for name, model in self.models.items()
        }  # fmt: skip

    def _probabilities(self, model: Any, x: np.ndarray) -> np.ndarray:
        from tfrobust.runtime import tf

        found: np.ndarray = tf.nn.softmax(tf.cast(model(x, training=False), tf.float32)).numpy()
        return found

    def _path(self, name: str) -> Path:
        path = self.run.figures / f"{name}.png"
        print(f"Figure: {path}", flush=True)
        return path


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())

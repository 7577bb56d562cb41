"""Shows what a model looks at, in clean and in adversarial images, and what the maps are worth.

python -m pipelines.explain saved_models/RUN
python -m pipelines.explain saved_models/ROBUST --against saved_models/STANDARD --measure 64
python -m pipelines.explain saved_models/RUN --layers block_3_expand --classes goldfish,17
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.cli import add_settings, main_of, new_parser
from pipelines.loading import add_intake
from tfrobust.errors import UsageError
from tfrobust.explain import EXPLAINERS
from tfrobust.explain.asked import classes_asked, layers_asked, methods_asked, titles
from tfrobust.plugins import configured

if TYPE_CHECKING:
    from tfrobust.config import RunConfig
    from tfrobust.data.types import ImageSet
    from tfrobust.explain.chosen import Chosen
    from tfrobust.explain.explainers import Explainer
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
        help="for the figures (default: the run folder, or MODEL-results)")  # fmt: skip
    add("--per-group", type=int, default=3,
        help="images of each group: withstood, broken by the attack, wrong anyway")  # fmt: skip
    add("--methods", default="smoothgrad,gradcam", metavar="NAMES",
        help=f"methods to compare, each with settings if need be (smoothgrad:samples=50), of "
             f"{', '.join(EXPLAINERS)}")  # fmt: skip
    add("--target-layer", default=None, metavar="NAME",
        help="layer of class-activation maps (default: the last map above 1x1)")  # fmt: skip
    add("--measure", type=int, default=0, metavar="IMAGES",
        help="measure the methods on so many images: faithful, stable, sane?")  # fmt: skip
    add("--class-images", type=int, default=CLASSES, metavar="CLASSES",
        help="climb to the image that each of the first so many classes asks for; 0 for none"
    )  # fmt: skip
    add("--classes", default=None, metavar="NAMES",
        help="classes to climb for, by name or number, in place of the first ones")  # fmt: skip
    add("--layers", default=None, metavar="NAMES",
        help="convolutions whose channels are drawn (default: 8 from the image up)")  # fmt: skip
    add_intake(parser)
    add_settings(parser, ["", "threat", "data"], {})
    return parser


def work(args: argparse.Namespace) -> None:
    """Explains a run folder's or a bare model."""
    for name, least in (("per_group", 1), ("measure", 0), ("class_images", 0)):
        if getattr(args, name) < least:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag}: expected at least {least}, found {getattr(args, name)}.")
    methods = methods_asked(args.methods)
    from pipelines.loading import open_with_images, require_layers
    from tfrobust.models.classifier import as_classifier
    from tfrobust.models.opening import load_any

    opened, test = open_with_images(args)
    models = {opened.name: require_layers(opened, test, "explain")}
    if args.against:
        other = Path(args.against)
        against = as_classifier(load_any(other), test.pixels(slice(0, 64)))
        opened_other = dataclasses.replace(opened, model=against, source=other)
        models[_other_name(other, opened.name)] = require_layers(opened_other, test, "explain")
    _check_models(models)
    methods = _with_layer(methods, args.target_layer)
    layers_read = {_layer(one) for one in methods.values() if one.reads_layers}
    for layer in layers_read | ({args.target_layer} if args.target_layer else set()):
        _check_target_layer(models, layer)
    model, names = models[opened.name], test.label_names
    layers = None if args.layers is None else layers_asked(args.layers, model)
    classes = list(range(min(args.class_images, len(names))))
    classes = classes if args.classes is None else classes_asked(args.classes, names)
    explain_run(model, test, opened.config, opened.run, args.per_group)
    work = _Explaining(models, test, opened.config, opened.run, methods)
    work.draw()
    work.draw_inside(layers)
    if classes:
        work.draw_classes(classes)
    if args.measure:
        work.measure(args.measure)


def _with_layer(methods: dict[str, Explainer], layer: str | None) -> dict[str, Explainer]:
    """The methods, those that read a layer with the one that --target-layer names.

    Raises:
      UsageError: a method names another one.
    """
    if layer is None:
        return methods
    for name, one in methods.items():
        if one.reads_layers and _layer(one) not in (None, layer):
            raise UsageError(
                f"--methods {name} and --target-layer {layer} differ: expected one of them."
            )
    return {
        name: configured(one, {"target_layer": layer}, name) if one.reads_layers else one
        for name, one in methods.items()
    }


def _layer(explainer: Explainer) -> str | None:
    """The layer that an explainer is told to read."""
    return getattr(explainer, "target_layer", None)


def _other_name(path: Path, first: str) -> str:
    return path.name if path.name != first else f"{path.parent.name}/{path.name}"


def _check_models(models: dict[str, Any]) -> None:
    from tfrobust.runtime import keras

    shapes = {}
    for name, model in models.items():
        if not isinstance(model, keras.Model):
            raise UsageError(f"--against: {name} is no model of tf_keras with its layers.")
        shapes[name] = (model.input_shape[1:], model.output_shape[-1])
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name}: {shape[0]} and {shape[1]}" for name, shape in shapes.items())
        raise UsageError(
            f"--against: expected models of the same images and classes, found {found}."
        )


def _check_target_layer(models: dict[str, Any], name: str | None) -> None:
    from tfrobust.explain.target_layer import target_layer as find

    for model in models.values():
        find(model, name)


def explain_run(
    model: Any, test: ImageSet, config: RunConfig, run: RunFolder, per_group: int = 3
) -> Path:
    """Attacks a few hundred test images, picks some of each kind, and draws their maps."""
    from pipelines.loading import sample
    from tfrobust.attacks.gradient import PGD
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.explain.figures import Examples, pick, saliency_figure
    from tfrobust.explain.made import record
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
    record(run.figures, "saliency", config.threat.norm, config.threat.eps)
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
    methods: dict[str, Explainer]

    def draw(self) -> None:
        """Overlay, top-5, methods side by side."""
        from tfrobust.explain.figures_maps import models_figure, overlay_figure
        from tfrobust.explain.figures_scores import top5_figure

        chosen, names = self._shown, self.test.label_names
        x, y, adversarial = chosen.x, chosen.labels, chosen.adversarial
        model, x_adv = self.models[self._first], adversarial[self._first]
        self._tell(overlay_figure(model, x, x_adv, y, names, self._path("overlay")))
        p_clean, p_adv = (self._probabilities(model, one) for one in (x, x_adv))
        self._tell(top5_figure(x, x_adv, y, p_clean, p_adv, names, self._path("top5")))
        self._tell(models_figure(
            self.models, x, adversarial, y, names, self._path("maps"), methods=titles(self.methods),
            explainers=self.methods,
        ))  # fmt: skip

    def draw_inside(self, layers: list[str] | None) -> None:
        """Feature maps, and the channels of some layers, where the networks have any."""
        from tfrobust.explain.feature_maps import channel_layers
        from tfrobust.explain.figures_features import channel_figure, feature_map_figure

        maps = self._feature_maps()
        if not maps[self._first]["clean"]:
            print("Feature maps: the network has no convolution or dense layer; none are drawn.")
            return
        self._tell(feature_map_figure(maps, self._path("feature_maps")))
        if not channel_layers(self.models[self._first]):
            print("Channels: no convolution has a map larger than 1x1; none are drawn.")
            return
        clean = maps[self._first]["clean"]
        self._tell(channel_figure(clean, self._path("channels"), layers=layers))

    def draw_classes(self, classes: list[int]) -> None:
        """The image that each of the classes asks for."""
        from tfrobust.explain.figures_features import class_image_figure
        from tfrobust.explain.maximise import maximise

        names, seed = self.test.label_names, self.config.seed
        asked = {name: maximise(model, classes, seed=seed) for name, model in self.models.items()}
        self._tell(class_image_figure(asked, classes, names, self._path("classes")))

    def measure(self, count: int) -> None:
        """Measures the methods, prints the table and leaves it as CSV with its curves."""
        from tfrobust.explain.figures_scores import faithfulness_figure
        from tfrobust.explain.worth import as_csv, as_text, measure
        from tfrobust.run import write_text

        chosen = self._images(count)
        table = {
            name: measure(
                model, chosen.x, chosen.adversarial[name], list(self.methods),
                attacked=chosen.attacked[name], seed=self.config.seed,
                explainers=self.methods, shown=functools.partial(_tell, name),
            )
            for name, model in self.models.items()
        }  # fmt: skip
        right = f"{chosen.right} of them right by every model"
        print(f"\n{len(chosen.x)} images ({right}), adversarial ones by PGD-20 against each model")
        print(as_text(table))
        path = self.run.path / "explanations.csv"
        write_text(path, as_csv(table))
        self._record("explanations")
        curves = {n: {w.method: w.curves for w in rows} for n, rows in table.items()}
        self._tell(faithfulness_figure(curves, self._path("faithfulness")))
        print(f"Table: {path}", flush=True)

    @property
    def _first(self) -> str:
        return next(iter(self.models))

    @functools.cached_property
    def _shown(self) -> Chosen:
        """The images of the figures."""
        return self._images(ROWS, mixed=True)

    def _images(self, count: int, *, mixed: bool = False) -> Chosen:
        from pipelines.loading import sample
        from tfrobust.explain.chosen import choose
        from tfrobust.threat_model import ThreatModel

        pool = sample(self.test, max(POOL, 2 * count), self.config.seed + 1)
        threat_model = ThreatModel.from_config(self.config.threat)
        return choose(self.models, pool, threat_model, count, seed=self.config.seed, mixed=mixed)

    def _feature_maps(self) -> dict[str, Any]:
        """Of the first image: model -> image's name -> maps; of one model where layers differ."""
        from tfrobust.explain.feature_maps import feature_maps

        clean, adversarial = self._shown.x[:1], self._shown.adversarial
        maps = {
            name: {"clean": feature_maps(model, clean),
                   "adversarial": feature_maps(model, adversarial[name][:1])}
            for name, model in self.models.items()
        }  # fmt: skip
        if len({tuple(one.layer for one in of["clean"]) for of in maps.values()}) == 1:
            return maps
        print("Feature maps: the two networks differ in their layers; the first is drawn.")
        return {self._first: maps[self._first]}

    def _probabilities(self, model: Any, x: np.ndarray) -> np.ndarray:
        from tfrobust.runtime import tf

        found: np.ndarray = tf.nn.softmax(tf.cast(model(x, training=False), tf.float32)).numpy()
        return found

    def _path(self, name: str) -> Path:
        return self.run.figures / f"{name}.png"

    def _tell(self, path: Path) -> None:
        """Says that a figure is drawn, and notes what with."""
        self._record(path.stem)
        print(f"Figure: {path}", flush=True)

    def _record(self, name: str) -> None:
        from tfrobust.explain.made import record

        record(self.run.figures, name, self.config.threat.norm, self.config.threat.eps)


main = main_of(work, make_parser())

if __name__ == "__main__":
    raise SystemExit(main())

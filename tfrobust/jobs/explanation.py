"""The job that shows what a model looks at, clean and under attack, and scores the maps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tfrobust.errors import UsageError
from tfrobust.explain.selectors import select_classes, select_layers, select_methods, titles
from tfrobust.jobs.images import sample
from tfrobust.jobs.opening import Subject, as_subject, require_layers
from tfrobust.plugins import configured
from tfrobust.progress import Tell, silent

if TYPE_CHECKING:
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.explain.examples import ExampleImages
    from tfrobust.explain.explainers import Explainer
    from tfrobust.explain.feature_maps import FeatureMap
    from tfrobust.explain.scorecard import Scorecard
    from tfrobust.models.kinds import KerasGraph
    from tfrobust.run import RunFolder


# Of methods, classes or layers: one by one, or in one text with commas.
Names = str | Sequence[str | int]
# Images that are attacked to find a few of each group.
POOL = 500
# Images and classes that the larger figures show.
ROWS, CLASSES = 4, 10


@dataclass(frozen=True)
class ExplainResult:
    """What was drawn and measured.

    Attributes:
      run: the folder with the figures.
      figures: the files, in the order in which they were drawn.
      measured: model -> the scorecard of each method; empty where nothing was measured.
    """

    run: RunFolder
    figures: tuple[Path, ...]
    measured: Mapping[str, Sequence[Scorecard]] = field(default_factory=dict)


def check_counts(per_group: int, measure: int, class_images: int) -> None:
    """Refuses numbers of images that are none.

    Raises:
      UsageError: one is too small.
    """
    counts = (
        ("per-group", per_group, 1),
        ("measure", measure, 0),
        ("class-images", class_images, 0),
    )
    for flag, count, least in counts:
        if count < least:
            raise UsageError(f"--{flag}: expected at least {least}, found {count}.")


def explain(
    subject: Subject | Path | str,
    *,
    against: Path | str | None = None,
    methods: Names = ("smoothgrad", "gradcam"),
    per_group: int = 3,
    target_layer: str | None = None,
    measure: int = 0,
    class_images: int = CLASSES,
    classes: Names | None = None,
    layers: Names | None = None,
    tell: Tell = silent,
) -> ExplainResult:
    """Draws what a model looks at, and optionally scores the methods.

    Args:
      subject: from `open_subject`, or a run folder.
      against: another model of the same classes, to be compared with it.
      methods: names of `EXPLAINERS`; these and the further names may also be one text, with
        commas.
      per_group: images of each group: withstood, broken by the attack, wrong anyway.
      target_layer: of class-activation maps; None is the last map above 1x1.
      measure: number of images to score the methods on; 0 skips it.
      class_images: number of classes, from the first, to visualise by activation maximisation.
      classes: classes to visualise instead, by name or number.
      layers: convolutions whose channels are drawn; None is 8 from the image up.
      tell: receives a line for each figure, and the table.

    Raises:
      UsageError: a name is unknown, or a model cannot be taken apart into layers.
    """
    check_counts(per_group, measure, class_images)
    chosen = select_methods(_text(methods))
    subject = as_subject(subject, tell)
    models = _models(subject, Path(against) if against else None)
    chosen = _with_layer(chosen, target_layer)
    layers_read = {_layer(one) for one in chosen.values() if one.reads_layers}
    for layer in layers_read | ({target_layer} if target_layer else set()):
        _check_target_layer(models, layer)
    model, names = models[subject.name], subject.test.label_names
    channels = None if layers is None else select_layers(_text(layers), model)
    first = list(range(min(class_images, len(names))))
    climbed = first if classes is None else select_classes(_text(classes), names)
    # An evaluator takes a graph as well, and the maps need its layers.
    layered = dataclasses.replace(subject, model=cast(Any, model))
    examples = explain_examples(layered, per_group, tell)
    work = _Explaining(models, subject, chosen, tell)
    work.draw()
    work.draw_inside(channels)
    if climbed:
        work.draw_classes(climbed)
    table = work.measure(measure) if measure else {}
    return ExplainResult(subject.run, (examples, *work.figures), table)


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
    """The layer that an explainer is set to read."""
    return getattr(explainer, "target_layer", None)


def _text(names: Names) -> str:
    return names if isinstance(names, str) else ",".join(map(str, names))


def _models(subject: Subject, against: Path | None) -> dict[str, KerasGraph]:
    """The model, and the one to compare it with, as graphs of layers.

    Raises:
      UsageError: one is none, or they are not of the same images and classes.
    """
    from tfrobust.models.opening import load_any
    from tfrobust.models.pairs import classifier_for

    test = subject.test
    models = {subject.name: require_layers(subject.model, subject.source, test, "explain")}
    if against:
        other = classifier_for(load_any(against), test)
        name = _other_name(against, subject.name)
        models[name] = require_layers(other, against, test, "explain")
    _check_models(models)
    return models


def _other_name(path: Path, first: str) -> str:
    return path.name if path.name != first else f"{path.parent.name}/{path.name}"


def _check_models(models: dict[str, KerasGraph]) -> None:
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


def _check_target_layer(models: dict[str, KerasGraph], name: str | None) -> None:
    from tfrobust.explain.target_layer import target_layer as find

    for model in models.values():
        find(model, name)


def explain_examples(
    subject: Subject, per_group: int = 3, tell: Tell = silent, evaluator: Evaluator | None = None
) -> Path:
    """Attacks a few hundred test images, picks some of each kind, and draws their maps.

    Args:
      subject: the model, as a graph of layers, and the images.
      per_group: images of each kind.
      tell: receives a line for each figure.
      evaluator: of the same model and images, whose clean pass and traces are used again.
    """
    from tfrobust.attacks.gradient import PGD
    from tfrobust.evaluation.curves import only, sample_index
    from tfrobust.evaluation.evaluator import Evaluator
    from tfrobust.explain.figure_data import Examples, pick, saliency_maps
    from tfrobust.figures import draw_figures
    from tfrobust.figures.provenance import record
    from tfrobust.threat_model import ThreatModel

    model, config, run = subject.model, subject.config, subject.run
    if evaluator is None:
        evaluator = Evaluator(model, sample(subject.test, POOL, config.seed), seed=config.seed)
    pool = evaluator.data
    drawn = sample_index(len(pool), POOL, config.seed)
    attack, threat_model = PGD(steps=20), ThreatModel.from_config(config.threat)
    base = only(evaluator.clean, drawn)
    seen = evaluator.clean.predictions[drawn]
    attacked = evaluator.run("pgd", attack, threat_model, base).outcome.predictions[drawn]
    index = drawn[pick(pool.labels[drawn], seen, attacked, per_group, config.seed)]
    x = pool.pixels(index)
    examples = Examples(x, pool.labels[index], evaluator.craft(attack, threat_model, index))
    maps = saliency_maps(model, examples, pool.label_names, seed=config.seed)
    found = draw_figures(maps, run.figures)
    for path in found:
        record(run.figures, path.stem, config.threat.norm, config.threat.eps)
        tell(f"Figure: {path}")
    return found[0]


@dataclass
class _Explaining:
    """The larger figures and the table, of one model or of two."""

    models: dict[str, KerasGraph]
    subject: Subject
    methods: dict[str, Explainer]
    tell: Tell
    figures: list[Path] = field(default_factory=list)

    def draw(self) -> None:
        """Overlay, top-5, methods side by side."""
        from tfrobust.explain.figure_data import maps_by_model, overlays
        from tfrobust.figures.gallery import ImagePairs

        shown, names = self._shown, self.subject.test.label_names
        x, y, adversarial = shown.x, shown.labels, shown.adversarial
        model, x_adv = self.models[self._first], adversarial[self._first]
        self._draw(overlays(model, x, x_adv, y, names))
        p_clean, p_adv = (self._probabilities(model, one) for one in (x, x_adv))
        self._draw(ImagePairs(x, x_adv, y, p_clean, p_adv, names))
        explainers = {title: self.methods[name] for name, title in titles(self.methods).items()}
        self._draw(maps_by_model(self.models, x, adversarial, y, names, explainers))

    def draw_inside(self, layers: list[str] | None) -> None:
        """Feature maps, and the channels of some layers, where the networks have any."""
        from tfrobust.explain.feature_maps import channel_layers
        from tfrobust.explain.figure_data import channel_rows, layer_means

        maps = self._feature_maps()
        if not maps[self._first]["clean"]:
            self.tell(
                "Feature maps: the network has no convolution or dense layer; none are drawn."
            )
            return
        self._draw(layer_means(maps))
        if not channel_layers(self.models[self._first]):
            self.tell("Channels: no convolution has a map larger than 1x1; none are drawn.")
            return
        self._draw(channel_rows(maps[self._first]["clean"], layers))

    def draw_classes(self, classes: list[int]) -> None:
        """The image that maximises the logit of each of the classes."""
        from tfrobust.explain.maximise import maximise
        from tfrobust.figures.class_images import MaximisedImages

        names, seed = self.subject.test.label_names, self.subject.config.seed
        found = {name: maximise(model, classes, seed=seed) for name, model in self.models.items()}
        self._draw(MaximisedImages(found, classes, names))

    def measure(self, count: int) -> dict[str, list[Scorecard]]:
        """Measures the methods; prints the table, and writes it with its curves as CSV."""
        from tfrobust.explain.scorecard import as_csv, as_text, measure
        from tfrobust.figures.faithfulness import DeletionCurves
        from tfrobust.io import write_text

        chosen = self._images(count)
        table = {
            name: measure(
                model,
                chosen.x,
                chosen.adversarial[name],
                list(self.methods),
                attacked=chosen.attacked[name],
                seed=self.subject.config.seed,
                explainers=self.methods,
                on_method=functools.partial(self._measuring, name),
            )
            for name, model in self.models.items()
        }
        right = f"{chosen.right} of them right by every model"
        images = f"{len(chosen.x)} images ({right}), adversarial ones by PGD-20 against each model"
        self.tell(f"\n{images}\n{as_text(table)}")
        path = self.subject.run.path / "explanations.csv"
        write_text(path, as_csv(table))
        self._record("explanations")
        curves = {n: {w.method: w.curves for w in rows} for n, rows in table.items()}
        self._draw(DeletionCurves(curves))
        self.tell(f"Table: {path}")
        return table

    def _measuring(self, model: str, method: str) -> None:
        self.tell(f"measuring {method} of {model}")

    @property
    def _first(self) -> str:
        return next(iter(self.models))

    @functools.cached_property
    def _shown(self) -> ExampleImages:
        """The images of the figures."""
        return self._images(ROWS, mixed=True)

    def _images(self, count: int, *, mixed: bool = False) -> ExampleImages:
        from tfrobust.explain.examples import choose
        from tfrobust.threat_model import ThreatModel

        pool = sample(self.subject.test, max(POOL, 2 * count), self.subject.config.seed + 1)
        threat_model = ThreatModel.from_config(self.subject.config.threat)
        return choose(
            self.models, pool, threat_model, count, seed=self.subject.config.seed, mixed=mixed
        )

    def _feature_maps(self) -> dict[str, dict[str, list[FeatureMap]]]:
        """Of the first image: model -> image's name -> maps; of one model where layers differ."""
        from tfrobust.explain.feature_maps import feature_maps

        clean, adversarial = self._shown.x[:1], self._shown.adversarial
        maps = {
            name: {
                "clean": feature_maps(model, clean),
                "adversarial": feature_maps(model, adversarial[name][:1]),
            }
            for name, model in self.models.items()
        }
        if len({tuple(one.layer for one in of["clean"]) for of in maps.values()}) == 1:
            return maps
        self.tell("Feature maps: the two networks differ in their layers; the first is drawn.")
        return {self._first: maps[self._first]}

    def _probabilities(self, model: KerasGraph, x: np.ndarray) -> np.ndarray:
        from tfrobust.runtime import tf

        found: np.ndarray = tf.nn.softmax(tf.cast(model(x, training=False), tf.float32)).numpy()
        return found

    def _draw(self, data: Any) -> None:
        """Draws the figures of explanations that need these data, and notes what with."""
        from tfrobust.figures import draw_figures

        for path in draw_figures(data, self.subject.run.figures, group="explanation"):
            self._record(path.stem)
            self.figures.append(path)
            self.tell(f"Figure: {path}")

    def _record(self, name: str) -> None:
        from tfrobust.figures.provenance import record

        record(
            self.subject.run.figures,
            name,
            self.subject.config.threat.norm,
            self.subject.config.threat.eps,
        )

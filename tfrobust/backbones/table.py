"""The table of networks."""

from __future__ import annotations

from tfrobust.backbones.description import Backbone
from tfrobust.errors import UsageError
from tfrobust.plugins import as_dataclass, settings_of
from tfrobust.tables import Table, is_model_file, names_model_file

_APPLICATIONS = (
    "mobilenetv2 resnet50 resnet101 resnet152 resnet50v2 densenet121 densenet169 densenet201 "
    "nasnetmobile nasnetlarge efficientnetb0 efficientnetb1 efficientnetb2 efficientnetb3 "
    "efficientnetb4 efficientnetb5 efficientnetb6 efficientnetb7"
).split()

_OWN = {
    "resnet18": "resnet",
    "resnet34": "resnet",
    "resnext50": "resnet",
    "simplenet": "simplenet",
    "simplenet_plus": "simplenet",
    "vit": "vit",
}


class _Backbones(Table[Backbone]):
    """Networks as `Backbone`s; a user's plain function of features is wrapped as one."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or names_model_file(name)

    def __getitem__(self, name: str) -> Backbone:
        if names_model_file(name):
            if not is_model_file(name):
                raise UsageError(
                    f"--backbone {name}: no such file: expected the path of a Keras model (.keras "
                    f"or .h5), or a backbone by name: {', '.join(self.built_in)}."
                )
            # A complete classifier: `build` reads the file.
            return Backbone(name=name, constructor=name, normalisation="none", blocks=(), stride=1)
        found = super().__getitem__(name)
        if isinstance(found, Backbone):
            return found
        constructor = f"{found.__module__}:{found.__qualname__}"
        # The function's own attributes, else the most cautious guess.
        return Backbone(
            name=found.__name__, constructor=constructor, normalisation="tf", blocks=(),
            stride=getattr(found, "stride", 16), options=tuple(settings_of(as_dataclass(found))),
        )  # fmt: skip


BACKBONES = _Backbones(
    "backbone",
    {
        name: f"tfrobust.backbones.{module}:{name.upper()}"
        for name, module in {**dict.fromkeys(_APPLICATIONS, "applications"), **_OWN}.items()
    },
    "tfrobust.backbones",
)

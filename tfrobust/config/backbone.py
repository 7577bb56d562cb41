"""Settings of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from tfrobust.errors import UsageError
from tfrobust.plugins import Settings, differing, from_text, parse
from tfrobust.settings import Checked, setting
from tfrobust.tables import Table, imported

STEMS = ("standard", "medium", "small")
CONVOLUTIONS = ("keras", "unfold")
# The room of backbones is below this one, so its table is imported by name, like a plug-in.
_BACKBONES = "tfrobust.backbones:BACKBONES"
# Other names of settings of a backbone.
_ALIASES = {"width": "alpha"}


@dataclass(frozen=True)
class BackboneConfig(Checked):
    """Which network, and its initial weights."""

    name: str = setting("mobilenetv2", "network architecture", flag="backbone")
    weights: str = setting(
        "none",
        "imagenet (download), none (from scratch), or a local file: .h5, .keras, or a torch "
        "state dict (.pth)",
    )
    alpha: float = setting(
        1.0,
        "factor on the channels of mobilenetv2, resnet18, resnet34, the simplenets and vit",
        above=0,
    )
    stem: str = setting(
        "standard",
        "first layers: standard, or medium and small, which halve small images once or twice less",
        choices=STEMS,
    )
    convolution: str = setting(
        "keras",
        "convolution of the simplenets: Keras's, or our own by unfolding",
        choices=CONVOLUTIONS,
    )
    position_embedding: bool = setting(True, "let vit learn the position of each patch")
    resize: int | None = setting(None, "resize inside the model to this side, in pixels", low=32)
    bn_momentum: float | None = setting(
        None, "momentum of BatchNorm's running statistics", low=0, high=0.9999
    )
    dropout: float = setting(0.0, "dropout before the logits", low=0, high=0.9)
    # Those that only this network has, if it is a plug-in of the user.
    settings: Settings = field(default_factory=Settings)

    @classmethod
    def folded(cls, values: Mapping[str, Any], where: str = "backbone") -> dict[str, Any]:
        """Values with the settings after the network's name taken apart ('vit:width=0.5').

        Args:
          values: of this group, as YAML or flags give them; 'width' is `alpha`.
          where: for messages.

        Raises:
          UsageError: one is given in two places, with different values.
        """
        name, named = parse(str(values.get("name", "")), what=f"{where}.name")
        rest = {key: value for key, value in values.items() if key not in ("name", "settings")}
        found: dict[str, Any] = {}
        for part in (named, dict(values.get("settings", {})), rest):
            part = {_ALIASES.get(key, key): value for key, value in part.items()}
            for key in differing(part, found):
                raise UsageError(
                    f"{where}: {key} is both {found[key]!r} and {part[key]!r}: expected it once."
                )
            found |= part
        fields = cls.__dataclass_fields__
        own = {key: value for key, value in found.items() if key not in fields}
        hints = get_type_hints(cls)
        common = {key: value for key, value in found.items() if key in fields}
        for key in [key for key, value in common.items() if isinstance(value, str)]:
            common[key] = from_text(hints[key], common[key], f"{where}: {key}")
        return {**({"name": name} if name else {}), **common, **({"settings": own} if own else {})}

    def to_plain(self) -> dict[str, Any]:
        """As YAML has it: the network's own settings in one mapping with the others."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own = plain.pop("settings")
        return {**plain, **own}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.settings:
            object.__setattr__(self, "settings", _settings_of_backbone(self.name, self.settings))


def _settings_of_backbone(name: str, settings: Settings) -> Settings:
    """The settings that only this network has, checked; unchecked if it is not installed.

    Raises:
      UsageError: the network has no such setting, or its type is another.
    """
    table: Table[Any] = imported(_BACKBONES, "table")
    try:
        backbone = table[name]
    except UsageError:
        return settings
    known = BackboneConfig.__dataclass_fields__.keys() - {"name", "settings"}
    return Settings(backbone.checked(settings, beside=sorted(known)))

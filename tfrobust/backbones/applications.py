"""The families of `keras.applications`, each described in one line."""

from __future__ import annotations

from tfrobust.backbones.description import Backbone, Tuning

_ROOT = "https://storage.googleapis.com/"
_KERAS = _ROOT + "tensorflow/keras-applications/"
_MOBILENETV2_URL = (
    _KERAS + "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{side}_no_top.h5"
)
_RESNET_URL = _KERAS + "resnet/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
_DENSENET_URL = _KERAS + "densenet/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
_NASNET_URL = _KERAS + "nasnet/NASNet-{size}-no-top.h5"
_EFFICIENTNET_URL = _ROOT + "keras-applications/{name}_notop.h5"


_MOBILENETV2 = (
    (r"Conv_1", "top"),
    (r"(block_\d+)_", r"\1"),
    (r"Conv1|bn_Conv1|expanded_conv_", "stem"),
)
_RESNET = (
    (r"post_bn", "top"),
    (r"(conv\d_block\d+)_", r"\1"),
    (r"conv1_", "stem"),
)
_DENSENET = (
    (r"bn$", "top"),
    (r"(?:conv|pool)(\d)_", r"conv\1"),
    (r"conv1/", "stem"),
)
_NASNET = (
    (r"(?:adjust|normal|reduction|separable)_\w*?_(stem_\d|reduce_\d+|\d+)$", r"cell_\1"),
    (r"stem_", "stem"),
)
_EFFICIENTNET = (
    (r"top_", "top"),
    (r"(block\d\w)_", r"\1"),
    (r"stem_|normalization", "stem"),
)


# A ResNet of this size does not train from scratch at a higher learning rate.
_DEEP = Tuning("adam", 0.001, low_precision=True)


def _resnet(name: str, constructor: str, normalisation: str, md5: str, gmacs: float) -> Backbone:
    url = _RESNET_URL.format(name=name)
    return Backbone(
        name, constructor, normalisation, _RESNET, options=("stem",),
        halvings=("conv1_conv", "pool1_pool"), gmacs=gmacs, tuning=_DEEP, url=url, md5=md5,
    )  # fmt: skip


def _densenet(name: str, constructor: str, md5: str) -> Backbone:
    url = _DENSENET_URL.format(name=name)
    return Backbone(
        name, constructor, "torch", _DENSENET, options=("stem",),
        halvings=("conv1/conv", "pool1"), url=url, md5=md5,
    )  # fmt: skip


def _nasnet(size: str, md5: str) -> Backbone:
    constructor = f"NASNet{size.capitalize()}"
    url = _NASNET_URL.format(size=size)
    return Backbone(
        constructor.lower(), constructor, "tf", _NASNET,
        url=url, md5=md5, file=f"nasnet_{size}_no_top.h5",
    )  # fmt: skip


def _efficientnet(size: str, md5: str) -> Backbone:
    name = f"efficientnet{size}"
    url = _EFFICIENTNET_URL.format(name=name)
    constructor = f"EfficientNet{size.upper()}"
    return Backbone(
        name, constructor, "inside", _EFFICIENTNET, options=("stem",),
        halvings=("stem_conv", "block2a_dwconv"), url=url, md5=md5,
    )  # fmt: skip


MOBILENETV2 = Backbone(
    "mobilenetv2",
    "MobileNetV2",
    "tf",
    _MOBILENETV2,
    options=("alpha", "stem"),
    gmacs=0.3,
    tuning=Tuning("sgd", 0.1, weight_decay=0.005, alpha=0.35),
    halvings=("Conv1", "block_1_depthwise"),
    url=_MOBILENETV2_URL,
    widths=(0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    sides=(96, 128, 160, 192, 224),
)
RESNET50 = _resnet("resnet50", "ResNet50", "caffe", "4d473c1dd8becc155b73f8504c6f6626", 3.8)
RESNET101 = _resnet("resnet101", "ResNet101", "caffe", "88cf7a10940856eca736dc7b7e228a21", 7.6)
RESNET152 = _resnet("resnet152", "ResNet152", "caffe", "ee4c566cf9a93f14d82f913c2dc6dd0c", 11.3)
RESNET50V2 = _resnet("resnet50v2", "ResNet50V2", "tf", "fac2f116257151a9d068a22e544a4917", 3.8)
DENSENET121 = _densenet("densenet121", "DenseNet121", "30ee3e1110167f948a6b9946edeeb738")
DENSENET169 = _densenet("densenet169", "DenseNet169", "b8c4d4c20dd625c148057b9ff1c1176b")
DENSENET201 = _densenet("densenet201", "DenseNet201", "c13680b51ded0fb44dff2d8f86ac8bb1")
NASNETMOBILE = _nasnet("mobile", "1ed92395b5b598bdda52abe5c0dbfd63")
NASNETLARGE = _nasnet("large", "d81d89dc07e6e56530c4e77faddd61b5")
EFFICIENTNETB0 = _efficientnet("b0", "50bc09e76180e00e4465e1a485ddc09d")
EFFICIENTNETB1 = _efficientnet("b1", "74c4e6b3e1f6a1eea24c589628592432")
EFFICIENTNETB2 = _efficientnet("b2", "111f8e2ac8aa800a7a99e3239f7bfb39")
EFFICIENTNETB3 = _efficientnet("b3", "af6d107764bb5b1abb91932881670226")
EFFICIENTNETB4 = _efficientnet("b4", "ebc24e6d6c33eaebbd558eafbeedf1ba")
EFFICIENTNETB5 = _efficientnet("b5", "38879255a25d3c92d5e44e04ae6cec6f")
EFFICIENTNETB6 = _efficientnet("b6", "9ecce42647a20130c1f39a5d4cb75743")
EFFICIENTNETB7 = _efficientnet("b7", "cbcfe4450ddf6f3ad90b1b398090fe4a")

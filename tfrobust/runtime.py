"""The one place that configures TensorFlow.

The built-in networks use Keras 2 (``tf_keras``), as do Neural Structured Learning and
tf-keras-vis; current TensorFlow ships Keras 3, and NSL imports a ``tf.estimator`` that
TensorFlow has removed. Both Keras versions coexist: it does not matter which was imported first,
nor which of them ``tf.keras`` is. Every module of tfrobust imports TensorFlow from here::

    from tfrobust.runtime import keras, tf

This module itself is light: TensorFlow is imported on the first access to ``tf``, ``keras`` or
``nsl``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import logging
import os
import random
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfrobust.errors import TFRobustError

# For editors and type checkers; at run time `__getattr__` below applies.
if TYPE_CHECKING:
    pass

_LAZY = ("tf", "keras", "nsl")
PACKAGES = (
    "tfrobust",
    "tensorflow",
    "tf_keras",
    "neural-structured-learning",
    "tensorflow-datasets",
    "tf-keras-vis",
    "numpy",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "pillow",
)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = {"tf": _import_tf, "keras": _import_keras, "nsl": _import_nsl}[name]()
    globals()[name] = value
    return value


def _import_tf() -> Any:
    """Imports TensorFlow, or raises an error of one sentence.

    If nothing has imported it yet, ``tf.keras`` becomes legacy Keras.

    Raises:
      TFRobustError: TensorFlow is missing, or ``tf_keras`` is missing or has another minor
        version.
    """
    if "tensorflow" not in sys.modules:
        _check_versions()
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # TensorFlow disables oneDNN on processors without AVX-512, where it pays off as well: a
        # training step of resnet50 there is 8 times as fast with it.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    found = importlib.import_module("tensorflow")
    # Adding the same filter again has no effect.
    logging.getLogger("tensorflow").addFilter(_is_worth_telling)
    return found


def _is_worth_telling(record: logging.LogRecord) -> bool:
    """Whether to log a message of TensorFlow: not its retracing warnings for tfrobust's calls.

    Nor where a SavedModel is written before it is moved into place.

    Each model, attack and ball is traced once. TensorFlow counts by the source of a function and
    mistakes that for one function that is retraced again and again.
    """
    told = record.getMessage()
    if "Assets written to" in told:
        return ".partial-" not in told
    if "triggered tf.function retracing" not in told:
        return True
    frame = sys._getframe().f_back
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "tfrobust":
            return False
        frame = frame.f_back
    return True


class _LegacyView(types.ModuleType):
    """TensorFlow as a Keras 2 library expects it: its `keras` is ``tf_keras``."""

    def __init__(self, tensorflow: Any, legacy: Any) -> None:
        super().__init__("tensorflow")
        self.__dict__.update({name: getattr(tensorflow, name) for name in ("__path__", "__spec__")})
        self._tensorflow, self.keras = tensorflow, legacy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensorflow, name)


def import_legacy(name: str) -> Any:
    """Imports a module written for Keras 2 (of NSL or tf-keras-vis).

    It sees ``tf_keras`` as ``tf.keras``, whichever Keras TensorFlow itself uses.
    """
    tensorflow, legacy = _import_tf(), _import_keras()
    # The environment variable may have been set after the import: only the flag that
    # TensorFlow read at import time shows which Keras it uses.
    if getattr(tensorflow, "_tf_uses_legacy_keras", False) or name in sys.modules:
        return importlib.import_module(name)
    seen = {
        "tensorflow": _LegacyView(tensorflow, legacy),
        "tensorflow.keras": legacy,
        "tensorflow.keras.backend": legacy.backend,
    }
    kept = {each: sys.modules[each] for each in seen if each in sys.modules}
    sys.modules.update(seen)
    try:
        return importlib.import_module(name)
    finally:
        for each in seen:
            sys.modules.pop(each, None)
        sys.modules.update(kept)


def _check_versions() -> None:
    found = {name: _version(name) for name in ("tensorflow", "tf_keras")}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        raise TFRobustError(
            f"{' and '.join(missing)} not installed: run 'pip install tfrobust' (or 'make train')."
        )
    minors = {name: str(version).split(".")[:2] for name, version in found.items()}
    if minors["tensorflow"] != minors["tf_keras"]:
        raise TFRobustError(
            f"tf_keras {found['tf_keras']} does not match tensorflow {found['tensorflow']}: "
            f"run 'pip install tf_keras~={'.'.join(minors['tensorflow'])}.0'."
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_keras() -> Any:
    _import_tf()
    return importlib.import_module("tf_keras")


def _import_nsl() -> Any:
    """Imports Neural Structured Learning without ``tf.estimator``.

    NSL uses no attribute of its estimator package, so an empty module is enough and TensorFlow
    stays unpatched.
    """
    stand_in = "neural_structured_learning.estimator"
    sys.modules.setdefault(stand_in, types.ModuleType(stand_in))
    return import_legacy("neural_structured_learning")


def traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a graph that is traced once, for batches of any size.

    A plain `tf.function` would be traced twice for a smaller last batch. The function's source is
    not rewritten: a model in it comes from `models.inference`.

    Args:
      function: of tensors, each [B, ...]; their types, and all dimensions but the first, must
        stay the same as in the first call.
    """
    made: list[Any] = []

    def call(*batch: Any) -> Any:
        if not made:
            tensors = _import_tf()
            specs = [tensors.TensorSpec([None, *part.shape[1:]], part.dtype) for part in batch]
            made.append(tensors.function(function, input_signature=specs, autograph=False))
        return made[0](*batch)

    return call


def import_quietly() -> None:
    """Imports TensorFlow for a command line, without its start-up messages.

    TensorFlow prints them without Python and before its own log level applies, so standard error
    is redirected to a file; it is printed after all if the import fails.
    """
    sys.stderr.flush()
    # Its errors come as exceptions; the rest of its log is about its graph optimiser.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as held:
        try:
            with _standard_error_to(held):
                from tfrobust.runtime import tf

                tf.config.list_physical_devices()
                # It warns of retracing if many attacks are each traced once.
                tf.get_logger().setLevel("ERROR")
        except BaseException:
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise


@contextlib.contextmanager
def _standard_error_to(file: Any) -> Iterator[None]:
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def setup(
    *, seed: int | None = None, precision: str = "float32", deterministic: bool = True
) -> None:
    """Sets seeds, determinism and precision of this process.

    Args:
      seed: seeds Python, NumPy and TensorFlow; None does not touch them.
      precision: 'float32', 'mixed_bfloat16' or 'mixed_float16', the Keras policy; 'auto' is
        'mixed_bfloat16' if the processor or GPU supports it, else 'float32'.
      deterministic: makes TensorFlow's operations reproducible, so that a
        resumed run ends with the weights of an uninterrupted one.

    Raises:
      TFRobustError: `precision` is not one of `PRECISIONS`.
    """
    if precision == "auto":
        precision = "mixed_bfloat16" if _computes_in_bfloat16() else "float32"
    if precision not in PRECISIONS:
        raise TFRobustError(f"Precision {precision!r}: expected one of {', '.join(PRECISIONS)}.")
    from tfrobust.runtime import keras, tf

    if seed is not None:
        import numpy as np

        random.seed(seed)
        np.random.seed(seed)
        tf.random.set_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    # Dropout draws from a generator stored in checkpoints, so that a resumed run repeats it.
    keras.backend.experimental.enable_tf_random_generator()
    keras.mixed_precision.set_global_policy(precision)


def is_deterministic() -> bool:
    """Whether `setup` has made TensorFlow's operations reproducible."""
    # TensorFlow exports only the switch.
    config = importlib.import_module("tensorflow.python.framework.config")
    return bool(config.is_op_determinism_enabled())


def native_precision(config: Any) -> Any:
    """The configuration with the precision 'auto' replaced by this machine's."""
    import dataclasses

    if config.training.precision != "auto":
        return config
    found = "mixed_bfloat16" if _computes_in_bfloat16() else "float32"
    training = dataclasses.replace(config.training, precision=found)
    return dataclasses.replace(config, training=training)


def _computes_in_bfloat16() -> bool:
    """Whether the GPU, or without one the processor, has instructions for bfloat16.

    Without them it is emulated: a training step is then 12 times as slow as in float32.
    """
    from tfrobust.runtime import tf

    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        return bool(details.get("compute_capability", (0, 0)) >= (8, 0))
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = file.read().split()
    except OSError:  # not Linux
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def random_generators(model: Any) -> list[Any]:
    """The generators of a model's dropout and similar layers, in the order of the layers.

    Keras keeps them separate from the model's variables, and does not track them.
    """
    holders = (getattr(layer, "_random_generator", None) for layer in model.layers)
    found = (getattr(holder, "_generator", None) for holder in holders)
    return [generator for generator in found if generator is not None]


def environment() -> dict[str, Any]:
    """Versions, machine and devices: the content of a run's `environment.json`."""
    import platform

    from tfrobust.runtime import tf

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "packages": {name: _version(name) for name in PACKAGES},
    }


def allow_concurrent_calls() -> None:
    """Makes one `tf.function` safe to call from several threads at once.

    Grappler's arithmetic rewriting turns chains of additions, as in residual networks, into a
    temporary variable whose name two concurrent calls share: occasionally one fails with
    AlreadyExistsError. Without that rewriting attacks take the same time (within 2 % on
    MobileNetV2, ResNet50 and a small ResNet).
    """
    options = _import_tf().config.optimizer
    options.set_experimental_options({"arithmetic_optimization": False})

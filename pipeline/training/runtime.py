"""What training runs on: devices, precision, XLA, steps per call. `auto` is a rule, never a timing, so runs repeat."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.util import _pywrap_util_port

from pipeline.errors import UserError
from pipeline.runs import instructions
from pipeline.sections import Train

log = logging.getLogger(__name__)

# One call of the compiled loop sees about this many pixels: small pictures take many steps per call, so that Python's
# share vanishes, and large ones few, so that Ctrl-C and a checkpoint are never far.
_PIXELS_PER_CALL = {"CPU": 2**22, "GPU": 2**28, "TPU": 2**28}
_MOST_STEPS = {"CPU": 32, "GPU": 128, "TPU": 128}
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # what x86 and ARM call the instructions for it


@dataclass(frozen=True)
class Runtime:
    """The choices for one training run."""

    strategy: tf.distribute.Strategy
    device: str  # CPU, GPU or TPU
    precision: str  # a Keras dtype policy
    xla: bool
    cpu_ops: bool  # fused batch norm and pointwise products
    steps_per_call: int

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync

    @property
    def chief(self) -> bool:
        """Say whether this process writes files: one of several workers does."""
        resolver = self.strategy.cluster_resolver
        return resolver is None or not resolver.task_type or _is_chief(resolver)

    def facts(self) -> dict[str, Any]:
        """Return the choices for the run's environment."""
        return {
            "device": self.device,
            "replicas": self.replicas,
            "strategy": type(self.strategy).__name__,
            "precision": self.precision,
            "xla": self.xla,
            "onednn": onednn(),
            "cpu_ops": self.cpu_ops,
            "steps_per_call": self.steps_per_call,
        }

    def describe(self) -> str:
        """Tell the choices in one line."""
        norm = "fused batch norm" if self.cpu_ops else "Keras batch norm"
        parts = [f"{self.replicas} × {self.device}", self.precision, "XLA" if self.xla else "no XLA", norm]
        if self.device == "CPU":
            parts.append("oneDNN" if onednn() else "no oneDNN")
        return ", ".join([*parts, f"{self.steps_per_call} steps per call"])


def choose(train: Train, *, batch_size: int, image_size: tuple[int, int]) -> Runtime:
    """Settle everything that is `auto`, and tell it in one line.

    Make it before any tensor: a strategy over several hosts must come first in its process.
    """
    strategy = choose_strategy(train.strategy)
    device = _device()
    if batch_size % strategy.num_replicas_in_sync:
        raise UserError(
            f"data.batch_size {batch_size} cannot be divided among {strategy.num_replicas_in_sync} devices; "
            f"make it a multiple of {strategy.num_replicas_in_sync}, or set train.strategy=single"
        )
    if device == "CPU" and not onednn():
        log.warning(
            "TensorFlow runs without oneDNN, which makes training several times slower: import pipeline before "
            "tensorflow, or set TF_ENABLE_ONEDNN_OPTS=1"
        )
    precision = _precision(device) if train.precision == "auto" else train.precision
    known = set(instructions())  # none where the system does not say
    if device == "CPU" and precision == "mixed_bfloat16" and known and not _BFLOAT16 & known:
        log.warning(
            "this processor has no bfloat16 instructions: train.precision=mixed_bfloat16 is several times slower than "
            "float32 here"
        )
    xla = device != "CPU" if train.xla == "auto" else train.xla
    runtime = Runtime(
        strategy=strategy,
        device=device,
        precision=precision,
        xla=xla,
        # XLA fuses Keras's own batch norm by itself; without oneDNN the fused op gains nothing.
        cpu_ops=device == "CPU" and not xla,
        steps_per_call=_steps(train, device, batch_size * train.accumulate * image_size[0] * image_size[1]),
    )
    log.info("runtime: %s", runtime.describe())
    return runtime


def onednn() -> bool:
    """Say whether TensorFlow was started with oneDNN; the environment alone does not tell."""
    return bool(_pywrap_util_port.IsMklEnabled())


def _is_chief(resolver: tf.distribute.cluster_resolver.ClusterResolver) -> bool:
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" if has_chief else resolver.task_id == 0


def _steps(train: Train, device: str, pixels: int) -> int:
    if train.steps_per_call != "auto":
        return train.steps_per_call
    return max(1, min(_MOST_STEPS[device], _PIXELS_PER_CALL[device] // pixels))


def _device() -> str:
    for device in ("TPU", "GPU"):
        if tf.config.list_logical_devices(device):
            return device
    return "CPU"


def _precision(device: str) -> str:
    if device == "TPU":
        return "mixed_bfloat16"
    if device == "GPU":
        details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
        # bfloat16 came with Ampere; older cards would emulate it.
        if all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details):
            return "mixed_bfloat16"
    return "float32"


def choose_strategy(name: str) -> tf.distribute.Strategy:
    """Return the strategy of a name; `auto` looks for other workers, a TPU and several GPUs."""
    if name == "auto":
        name = _automatic()
    match name:
        case "multi_worker":
            if not _workers():
                raise UserError("train.strategy multi_worker needs TF_CONFIG, which lists the workers' addresses")
            return tf.distribute.MultiWorkerMirroredStrategy()
        case "tpu":
            return _tpu()
        case "mirrored":
            devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
            return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def _automatic() -> str:
    if len(_workers()) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "single"


def _workers() -> list[str]:
    text = os.environ.get("TF_CONFIG", "")
    try:
        cluster = json.loads(text or "{}").get("cluster", {})
    except ValueError:
        raise UserError("the environment variable TF_CONFIG is not JSON") from None
    return [*cluster.get("chief", []), *cluster.get("worker", [])]


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver.connect()
    except (ValueError, tf.errors.OpError) as error:
        raise UserError(f"train.strategy tpu found no TPU ({error}); set TPU_NAME, or another strategy") from error
    return tf.distribute.TPUStrategy(resolver)


@contextlib.contextmanager
def dtype_policy(precision: str) -> Iterator[None]:
    """Create layers under a dtype policy, and put the one before back."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)

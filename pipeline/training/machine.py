"""What this machine has, and what training would choose on it."""

import pandas as pd
import tensorflow as tf

from pipeline.runs import environment
from pipeline.sections import Train
from pipeline.training.runtime import choose


def describe_machine() -> pd.DataFrame:
    """Return versions, devices, and the choices behind `auto` for a batch of 64 images of 96×96, as name and value."""
    facts = environment()
    packages = facts.pop("packages")
    kept = {key: facts[key] for key in ("python", "platform", "processor", "cores")}
    devices = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    runtime = choose(Train(), batch_size=64, image_size=(96, 96))
    kept["instructions"] = ", ".join(facts["instructions"])
    rows = {**kept, **packages, "devices": ", ".join(devices), "training": runtime.describe()}
    return pd.DataFrame([{"what": what, "value": str(value)} for what, value in rows.items()])

"""From a trained model to .tflite files that are measured, not hoped for.

`from pipeline import export; export(run)` and `import pipeline.export.convert` both work: the package is itself
the function, and importing it imports nothing, so that the latency process stays free of TensorFlow.
"""

import sys
import types
from typing import Any


class _Export(types.ModuleType):
    # Importing any submodule binds the name `pipeline.export` to this package, whatever a function of the same
    # name was bound to before. So the package has to be the callable.
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from pipeline.export.export import export_run

        return export_run(*args, **kwargs)


sys.modules[__name__].__class__ = _Export

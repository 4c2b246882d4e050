"""What can be said of a model without running it: its costs, the memory of its activations, what each layer sees."""

from pipeline.models.inspect.costs import LayerCost, Summary, layer_costs, summarize, summary
from pipeline.models.inspect.memory import Memory, activation_memory
from pipeline.models.inspect.receptive_field import Field, receptive_fields

__all__ = [
    "Field",
    "LayerCost",
    "Memory",
    "Summary",
    "activation_memory",
    "layer_costs",
    "receptive_fields",
    "summarize",
    "summary",
]

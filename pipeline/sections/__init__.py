"""The sections of an experiment: every key, its type, its default, and what is allowed."""

from pipeline.sections.base import OptionsError, Section, component
from pipeline.sections.compression import Channels, Compress, Qat, Sparsity, Tuned
from pipeline.sections.searching import COSTS, Range, Search
from pipeline.sections.training import Data, Export, Pseudo, Train, Transfer

__all__ = [
    "COSTS",
    "Channels",
    "Compress",
    "Data",
    "Export",
    "OptionsError",
    "Pseudo",
    "Qat",
    "Range",
    "Search",
    "Section",
    "Sparsity",
    "Train",
    "Transfer",
    "Tuned",
    "component",
]

"""TFLite metadata: labels, normalisation and names inside the file, where mobile clients look for them.

MediaPipe Tasks and Android Studio read it. The metadata is a flatbuffer in a buffer of the model named
TFLITE_METADATA; the labels are a file in a zip archive behind the model, stored uncompressed, as clients map it.
"""

import io
import zipfile
from dataclasses import dataclass
from typing import Self

from ai_edge_litert import schema_py_generated as schema

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.interpreter import INPUT, OUTPUT
from pipeline.export.metadata_schema import pack, unpack

LABELS = "labels.txt"
_NAME, _IDENTIFIER = b"TFLITE_METADATA", b"M001"
_SEGMENTER, _SEGMENTER_IDENTIFIER = "SEGMENTER_METADATA", b"V001"
_IMAGE_PROPERTIES, _NORMALIZATION = 2, 1  # members of the unions ContentProperties and ProcessUnitOptions
_COLOR_SPACES = {3: 1, 1: 2}  # channels to RGB, GRAYSCALE
_AXIS_LABELS = 2  # AssociatedFileType
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of zip; a clock would make two exports differ


@dataclass(frozen=True)
class Facts:
    """What a file says of itself to any client.

    Args:
        name: of the model.
        labels: of the last axis of its output.
        image_size: (height, width).
        masks: whether the output is a map (1, H, W, K) and not a vector (1, K).
    """

    name: str
    labels: tuple[str, ...]
    image_size: tuple[int, int]
    channels: int
    masks: bool

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Read a file's metadata back.

        Raises UserError where the file has none, its labels are missing, or it asks for a normalisation: the files of
        this package take raw pixels.
        """
        model = flatbuffer.read(content)
        found = [entry for entry in model.metadata or () if entry.name == _NAME]
        if not found:
            raise UserError("the file has no TFLite metadata; export it again")
        values = unpack("ModelMetadata", bytes(model.buffers[found[0].buffer].data))
        [graph] = values["subgraph_metadata"]
        [image], [output] = graph["input_tensor_metadata"], graph["output_tensor_metadata"]
        for unit in image.get("process_units", ()):
            if unit["options"] != {"mean": [0.0], "std": [1.0]}:
                raise UserError(f"the metadata asks for the normalisation {unit['options']}; the file takes raw pixels")
        properties = image["content"]["content_properties"]
        size = properties["default_size"]
        return cls(
            name=values["name"],
            labels=_read_labels(content, output["associated_files"][0]["name"]),
            image_size=(size["height"], size["width"]),
            channels={space: channels for channels, space in _COLOR_SPACES.items()}[properties["color_space"]],
            masks=bool(graph.get("custom_metadata")),
        )


def split_labels(text: str) -> tuple[str, ...]:
    """Return the labels of a labels.txt, one per line; its last line may end or not."""
    return tuple(text.removesuffix("\n").split("\n"))


def describe(content: bytes, facts: Facts) -> bytes:
    """Return the file with metadata; equal arguments give equal bytes, and large buffers stay aligned to 16."""
    model = flatbuffer.read(content)
    packed = pack("ModelMetadata", _metadata(facts), _IDENTIFIER)
    model.buffers.append(schema.BufferT(data=flatbuffer.as_array(packed)))
    entry = schema.MetadataT(name=_NAME, buffer=len(model.buffers) - 1)
    model.metadata = [one for one in model.metadata or () if one.name != _NAME] + [entry]
    file = io.BytesIO(flatbuffer.write(model))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _EPOCH), "\n".join(facts.labels))
    return file.getvalue()


def _metadata(facts: Facts) -> dict:
    height, width = facts.image_size
    picture = {"color_space": _COLOR_SPACES[facts.channels], "default_size": {"width": width, "height": height}}
    image = {
        "name": INPUT,
        "description": f"One picture, {height}x{width}, {'RGB' if facts.channels == 3 else 'grey'}, raw 0 to 255.",
        "content": {"content_properties_type": _IMAGE_PROPERTIES, "content_properties": picture},
        # The rescaling is in the graph. Without these options MediaPipe refuses a float input.
        "process_units": [{"options_type": _NORMALIZATION, "options": {"mean": [0.0], "std": [1.0]}}],
        "stats": {"max": [255.0], "min": [0.0]},
    }
    of_what = "each pixel of the picture" if facts.masks else "the picture"
    output = {
        "name": OUTPUT,
        "description": f"The probability of each label for {of_what}.",
        "stats": {"max": [1.0], "min": [0.0]},
        "associated_files": [{"name": LABELS, "description": "One label per line.", "type": _AXIS_LABELS}],
    }
    graph = {"name": facts.name, "input_tensor_metadata": [image], "output_tensor_metadata": [output]}
    if facts.masks:  # activation 0: the softmax is in the graph
        options = pack("ImageSegmenterOptions", {"min_parser_version": "1.0.0"}, _SEGMENTER_IDENTIFIER)
        graph["custom_metadata"] = [{"name": _SEGMENTER, "data": options}]
    return {
        "name": facts.name,
        "description": "Made by pipeline; certificate.json beside the file says what was tested.",
        "subgraph_metadata": [graph],
        "min_parser_version": "1.5.0" if facts.masks else "1.0.0",
    }


def _read_labels(content: bytes, name: str) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return tuple(archive.read(name).decode().split("\n"))  # there no line's end follows the last
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError):
        raise UserError(f"the labels that the metadata names ({name}) are not in the file; export it again") from None

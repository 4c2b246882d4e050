"""The tables of TFLite's metadata_schema.fbs that an image model needs, to and from nested dicts.

Field order is the schema's own (tensorflow/tflite-support, metadata_schema.fbs, version 1.5.0), as a flatbuffer knows a
field by its position. Of a union only the member that image models use is known.
"""

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

Values = dict[str, Any]

_TABLES = {
    "ModelMetadata": (
        "name:string description:string version:string subgraph_metadata:[SubGraphMetadata] author:string "
        "license:string associated_files:[AssociatedFile] min_parser_version:string"
    ),
    "SubGraphMetadata": (
        "name:string description:string input_tensor_metadata:[TensorMetadata] "
        "output_tensor_metadata:[TensorMetadata] associated_files:[AssociatedFile] input_process_units:[ProcessUnit] "
        "output_process_units:[ProcessUnit] input_tensor_groups:[TensorGroup] output_tensor_groups:[TensorGroup] "
        "custom_metadata:[CustomMetadata]"
    ),
    "TensorMetadata": (
        "name:string description:string dimension_names:[string] content:Content process_units:[ProcessUnit] "
        "stats:Stats associated_files:[AssociatedFile]"
    ),
    "Content": "content_properties_type:ubyte content_properties:ImageProperties",
    "ImageProperties": "color_space:byte default_size:ImageSize",
    "ImageSize": "width:uint height:uint",
    "ProcessUnit": "options_type:ubyte options:NormalizationOptions",
    "NormalizationOptions": "mean:[float] std:[float]",
    "Stats": "max:[float] min:[float]",
    "AssociatedFile": "name:string description:string type:byte",
    "CustomMetadata": "name:string data:[ubyte]",
    "ImageSegmenterOptions": "activation:byte min_parser_version:string",
}
_FIELDS = {name: [field.split(":") for field in fields.split()] for name, fields in _TABLES.items()}
_SCALARS = {
    "byte": number_types.Int8Flags,
    "ubyte": number_types.Uint8Flags,
    "uint": number_types.Uint32Flags,
    "float": number_types.Float32Flags,
}


def pack(kind: str, values: Values, identifier: bytes) -> bytes:
    """Serialise nested dicts as a table of `kind`; fields that are left out take the schema's defaults."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_pack(builder, kind, values), file_identifier=identifier)
    return bytes(builder.Output())


def unpack(kind: str, content: bytes) -> Values:
    """Read a table of `kind` into nested dicts, without the fields that are absent."""
    start = int.from_bytes(content[:4], "little")
    return _unpack(kind, Table(content, start))


def _pack(builder: flatbuffers.Builder, kind: str, values: Values) -> int:
    unknown = set(values) - {name for name, _ in _FIELDS[kind]}
    if unknown:
        raise KeyError(f"{kind} has no {', '.join(unknown)}")
    # Whatever is stored by offset must be complete before its table begins.
    stored = {
        name: _value(builder, of, values[name]) for name, of in _FIELDS[kind] if name in values and of not in _SCALARS
    }
    builder.StartObject(len(_FIELDS[kind]))
    for slot, (name, of) in enumerate(_FIELDS[kind]):
        if name in stored:
            builder.PrependUOffsetTRelativeSlot(slot, stored[name], 0)
        elif name in values:
            builder.PrependSlot(_SCALARS[of], slot, values[name], 0)
    return builder.EndObject()


def _value(builder: flatbuffers.Builder, of: str, value: Any) -> int:
    if of == "string":
        return builder.CreateString(value)
    if of == "[ubyte]":
        builder.Prep(16, len(value))  # the schema's force_align
        return builder.CreateByteVector(value)
    if of == "[float]":
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    if not of.startswith("["):
        return _pack(builder, of, value)
    offsets = [_value(builder, of[1:-1], one) for one in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _unpack(kind: str, table: Table) -> Values:
    values = {}
    for slot, (name, of) in enumerate(_FIELDS[kind]):
        offset = table.Offset(4 + 2 * slot)
        if offset:
            values[name] = _read(table, of, table.Pos + offset)
    return values


def _read(table: Table, of: str, position: int) -> Any:
    if of in _SCALARS:
        return table.Get(_SCALARS[of], position)
    if of == "string":
        return table.String(position).decode()
    if not of.startswith("["):
        return _unpack(of, Table(table.Bytes, table.Indirect(position)))
    start = position + table.Get(number_types.UOffsetTFlags, position)
    count, first = table.Get(number_types.UOffsetTFlags, start), start + 4
    if of == "[ubyte]":
        return bytes(table.Bytes[first : first + count])
    return [_read(table, of[1:-1], first + 4 * i) for i in range(count)]

from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Datum(_message.Message):
    __slots__ = ("channels", "height", "width", "data", "label", "float_data", "encoded", "box_target", "iou", "image_id", "box", "crc")
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    FLOAT_DATA_FIELD_NUMBER: _ClassVar[int]
    ENCODED_FIELD_NUMBER: _ClassVar[int]
    BOX_TARGET_FIELD_NUMBER: _ClassVar[int]
    IOU_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ID_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    CRC_FIELD_NUMBER: _ClassVar[int]
    channels: int
    height: int
    width: int
    data: bytes
    label: int
    float_data: _containers.RepeatedScalarFieldContainer[float]
    encoded: bool
    box_target: _containers.RepeatedScalarFieldContainer[float]
    iou: float
    image_id: str
    box: _containers.RepeatedScalarFieldContainer[float]
    crc: int
    def __init__(self, channels: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., data: _Optional[bytes] = ..., label: _Optional[int] = ..., float_data: _Optional[_Iterable[float]] = ..., encoded: bool = ..., box_target: _Optional[_Iterable[float]] = ..., iou: _Optional[float] = ..., image_id: _Optional[str] = ..., box: _Optional[_Iterable[float]] = ..., crc: _Optional[int] = ...) -> None: ...

class ProposalRecord(_message.Message):
    __slots__ = ("height", "width", "scores", "image_digest", "crc", "scale", "x1s", "y1s", "x2s", "y2s", "sources")
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CRC_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    X1S_FIELD_NUMBER: _ClassVar[int]
    Y1S_FIELD_NUMBER: _ClassVar[int]
    X2S_FIELD_NUMBER: _ClassVar[int]
    Y2S_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    height: int
    width: int
    scores: bytes
    image_digest: bytes
    crc: int
    scale: int
    x1s: bytes
    y1s: bytes
    x2s: bytes
    y2s: bytes
    sources: bytes
    def __init__(self, height: _Optional[int] = ..., width: _Optional[int] = ..., scores: _Optional[bytes] = ..., image_digest: _Optional[bytes] = ..., crc: _Optional[int] = ..., scale: _Optional[int] = ..., x1s: _Optional[bytes] = ..., y1s: _Optional[bytes] = ..., x2s: _Optional[bytes] = ..., y2s: _Optional[bytes] = ..., sources: _Optional[bytes] = ...) -> None: ...

"""Caffe nets: from prototxt and .caffemodel files to PyTorch modules, and back."""

from detpipe.backbone.caffe.load import build_net, load_caffe, save_caffemodel
from detpipe.backbone.caffe.net import Net
from detpipe.backbone.caffe.net_spec import NetSpec

__all__ = ["Net", "NetSpec", "build_net", "load_caffe", "save_caffemodel"]

"""Caffe's nets: prototxt and .caffemodel to PyTorch modules, and back."""

from detpipe.backbone.caffe.load import build_net, load_caffe, save_caffemodel
from detpipe.backbone.caffe.net import Net

__all__ = ["Net", "build_net", "load_caffe", "save_caffemodel"]

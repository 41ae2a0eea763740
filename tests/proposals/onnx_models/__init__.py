"""Tests of detpipe/proposals/onnx_models/."""

"""Box models as ONNX files: how an image becomes their input, and their outputs become boxes."""

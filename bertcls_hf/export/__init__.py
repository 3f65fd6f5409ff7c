"""A trained classifier as an ONNX graph."""

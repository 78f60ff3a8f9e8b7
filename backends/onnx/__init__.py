"""The ONNX backend: lowers a jaxpr, primitive by primitive, to an ONNX model. Imported only when used."""

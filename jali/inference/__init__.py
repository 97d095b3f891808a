"""Running pruned models: kernels for sparse recurrent layers, and export to ONNX."""

"""Running pruned models elsewhere: export to ONNX."""

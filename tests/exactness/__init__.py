"""Models of every kind, rows that are hard for them, and a comparison with ONNX Runtime."""

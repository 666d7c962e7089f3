"""Exchange with other programs: PyTorch, torchvision, Caffe and ONNX. Their files are data, and are never executed."""

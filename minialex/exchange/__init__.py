"""To and from other programs: PyTorch, torchvision, Caffe and ONNX. Foreign files are data here, never programs."""

"""The service: a bundle in, answers out, over gRPC and HTTP, on ONNX Runtime; never torch."""

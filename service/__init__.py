"""The service: a bundle in, answers out, over gRPC and HTTP, on ONNX Runtime; never torch."""

import os

# gRPC's own core writes past every log, in no format of ours, a line for each handshake of a stranger that fails. It
# reads this once, when it is imported, which happens after this.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

"""The descriptor pool that holds our messages, apart from the process's default one.

``tritonclient.grpc`` registers its own ``inference.ModelConfig`` in the default pool, and protobuf
refuses a second message of that name. A ``model.py`` may well import that client, in our process:
so ours live here.
"""

from google.protobuf.descriptor_pool import DescriptorPool

__all__ = ["POOL"]

POOL = DescriptorPool()

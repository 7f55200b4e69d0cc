"""What V2 means, whichever way it is spoken: ``v2_rest`` and ``v2_grpc`` put it into bytes."""

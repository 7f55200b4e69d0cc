"""The shape of the W5 load, common to the server's client and to the in-process baseline."""

import random

CHUNKS = 100
CHUNK_INTERVAL_S = 0.002
_SEED = 20_240_229


def start_offsets(lanes: int) -> list[float]:
    """Give each lane a random start within one stream's length, in seconds.

    All at once would measure a stampede: real callers are not in step.
    """
    random_numbers = random.Random(_SEED)
    return [random_numbers.uniform(0, CHUNKS * CHUNK_INTERVAL_S) for _ in range(lanes)]

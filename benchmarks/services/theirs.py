"""The service of ``make bench-bentoml``, as BentoML serves it."""

import bentoml


@bentoml.service
class Iris:
    """Says to which class each row belongs."""

    @bentoml.api
    def classify(self, input_series: list[list[float]]) -> list[int]:
        """Give the index of the largest value of each row."""
        return [row.index(max(row)) for row in input_series]

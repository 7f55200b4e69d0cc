"""What the operator sets for all models that are served."""

from typing import Final, cast

from msgspec import Struct

from modelport.errors import LoadFailed
from modelport.specs import Execution, ModelConfig

__all__ = ["EngineOptions"]


class EngineOptions(Struct, frozen=True, kw_only=True):
    """What the operator sets for all models.

    Attributes:
        execution: Where models run that do not say it themselves.
        max_queue_size: Requests that may wait for one model that sets no bound of its own.
        cache_bytes: What the response cache may take; 0 for none.
        is_ovms: Whether version 0 is the default one of models whose parameter ``ovms`` does not
            say it; elsewhere there is no version 0.
    """

    execution: Execution = "auto"
    max_queue_size: int = 10_000
    cache_bytes: int = 0
    is_ovms: bool = False

    def execution_of(self, config: ModelConfig) -> Execution:
        """Say where a model runs.

        Raises:
            LoadFailed: It asks for something that is not offered.
        """
        named = config.parameter("execution", self.execution)
        if named not in _OFFERED:
            offered = ", ".join(_OFFERED)
            raise LoadFailed(
                f"parameter execution of model '{config.name}' is '{named}'; offered are: {offered}"
            )
        # Instances in processes are started by the repository; what is left for ``process`` as the
        # server's default is all that is not Python.
        return "auto" if named == "process" else cast(Execution, named)


_OFFERED: Final = ("auto", "inline", "thread", "process")

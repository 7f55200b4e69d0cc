"""Who waits how long, and with how many others: the queue policies of one model, by priority.

Pure: a configuration in, numbers out. Level 1 goes first; what a level does not say, the default
policy says for it.

Source: Triton, ``ModelQueuePolicy`` and ``ModelDynamicBatching`` in ``model_config.proto``.
"""

from collections.abc import Mapping

from msgspec import Struct

from modelport.specs import DynamicBatching, ModelConfig, QueuePolicy

__all__ = ["Limits", "QueuePolicies"]


class Limits(Struct, frozen=True):
    """The policy of one level.

    Attributes:
        timeout_ns: How long a request may wait; 0 for as long as it takes.
        allows_override: Whether a request may ask for less.
        delays: Whether who has waited too long goes behind the others of its level, and is not
            refused.
        most: Requests of this level that may wait; 0 if it shares a bound with others.
    """

    timeout_ns: int = 0
    allows_override: bool = False
    delays: bool = False
    most: int = 0

    @classmethod
    def of(cls, policy: QueuePolicy | None) -> "Limits":
        """Read one policy; without one there are no limits."""
        if policy is None:
            return cls()
        return cls(
            timeout_ns=policy.default_timeout_microseconds * 1000,
            allows_override=policy.allow_timeout_override,
            delays=policy.timeout_action == "DELAY",
            most=policy.max_queue_size,
        )

    def timeout_for(self, asked_us: int) -> int:
        """Say how many nanoseconds a request may wait that asks for ``asked_us``; 0 for ever."""
        if not asked_us or not self.allows_override:
            return self.timeout_ns
        asked_ns = asked_us * 1000
        return min(self.timeout_ns, asked_ns) if self.timeout_ns else asked_ns


class QueuePolicies(Struct, frozen=True):
    """The policies of all levels of a model.

    Attributes:
        levels: How many there are; 0 for a model without priorities.
        default_level: Of a request that asks for none, or for one that does not exist.
        default: The policy of the levels that have none of their own.
        by_level: The others.
    """

    levels: int = 0
    default_level: int = 0
    default: Limits = Limits()
    by_level: Mapping[int, Limits] | None = None

    @classmethod
    def from_config(cls, config: ModelConfig) -> "QueuePolicies":
        """Read them from a complete configuration."""
        dynamic = config.dynamic_batching
        if dynamic is None:
            return cls()
        return cls(
            levels=dynamic.priority_levels,
            default_level=dynamic.default_priority_level,
            default=Limits.of(dynamic.default_queue_policy),
            by_level=_by_level(dynamic),
        )

    @property
    def is_ordered(self) -> bool:
        """Whether somebody may overtake: there are levels, or some have to step back."""
        return self.levels > 0 or self.default.delays

    @property
    def tells_apart(self) -> bool:
        """Whether requests differ in what holds for them; else all wait alike, and for ever."""
        default = self.default
        return self.is_ordered or default.timeout_ns > 0 or default.allows_override

    def level_of(self, priority: int) -> int:
        """Say which level a request belongs to, by the priority that it asks for."""
        return priority if 1 <= priority <= self.levels else self.default_level

    def limits_of(self, level: int) -> Limits:
        """Give the policy of a level."""
        return self.by_level.get(level, self.default) if self.by_level else self.default


def _by_level(dynamic: DynamicBatching) -> dict[int, Limits]:
    return {level: Limits.of(policy) for level, policy in dynamic.priority_queue_policy.items()}

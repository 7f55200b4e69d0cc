"""Which GPUs the workers of a service see, where it says how many it needs."""

__all__ = ["GpuShares"]

ROUNDING = 1e-9


class GpuShares:
    """Gives out the GPUs of this machine, whole ones and parts.

    >>> shares = GpuShares(2)
    >>> shares.take(0.5), shares.take(1), shares.take(0.5), shares.take(0.25)
    ((0,), (1,), (0,), ())

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._left = [1.0] * count

    def __repr__(self) -> str:
        return f"<GpuShares left={self._left}>"

    def take(self, share: float) -> tuple[int, ...]:
        """Give the numbers of so many whole GPUs, or of one that has such a part left.

        Returns:
            Nothing if there is not so much left.
        """
        left = self._left
        if share >= 1:
            chosen = [at for at, each in enumerate(left) if each == 1.0][: int(share)]
            if len(chosen) < share:
                return ()
            for at in chosen:
                left[at] = 0.0
            return tuple(chosen)
        roomy = [at for at, each in enumerate(left) if each + ROUNDING >= share]
        if not roomy:
            return ()
        # Parts go together, so that whole ones are left for those who need them.
        at = min(roomy, key=lambda each: left[each])
        left[at] -= share
        return (at,)

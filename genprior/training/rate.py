"""How fast a run trains, without what it does besides."""

import time


class Rate:
    """Items per second between two calls.

    Arguments:
        items: number of items trained on so far.
    """

    def __init__(self, items: int):
        self.restart(items)

    def restart(self, items: int) -> None:
        """Begin to count here: what came before was not training."""
        self.items, self.moment = items, time.perf_counter()

    def since(self, items: int) -> float:
        """Items per second since the last call, or since `restart`."""
        passed, now = items - self.items, time.perf_counter()
        seconds = now - self.moment
        self.items, self.moment = items, now
        return round(passed / max(seconds, 1e-9), 2)

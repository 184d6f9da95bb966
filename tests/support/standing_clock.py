"""A clock that stands still but for what it is told to let pass."""


class StandingClock:
    """Called, it gives the seconds that `wait` has let pass so far."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds

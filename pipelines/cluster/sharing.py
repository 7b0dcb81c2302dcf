"""Which device makes which pictures: handed out when a device is free, a few at a time.

- Pictures of one model go together, in batches: they share network calls, and a model is loaded as
  seldom as possible. A device stays with its model while there is work for it, then begins one that
  nobody has begun, then helps where most is left.
- Nothing is planned: whoever is free takes the next batch, so that a device that is four times as
  fast makes four times as many. Near the end a batch is at most the device's share of what is left,
  by the pace it has shown, so that all end at about the same time.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

MOST = 16  # pictures of a batch: rows enough for a call, and soon back for more
FIRST = 0.25  # of its share, while nobody knows how fast a device is
MOST_DEATHS = 3  # devices that may end under a picture before it counts as the cause

Model = Hashable


class Bag:
    """The pictures that nobody makes yet, by their numbers."""

    def __init__(
        self, models: Sequence[Model], costs: Sequence[float], most: int = MOST
    ) -> None:
        """`models[number]` is the picture's model, `costs[number]` about what it takes, in any
        unit; the order of the numbers is the order of work."""
        self.models, self.costs, self.most = models, costs, most
        self.deaths: Counter[int] = Counter()
        self._left: dict[Model, deque[int]] = {}
        for number, model in enumerate(models):
            self._left.setdefault(model, deque()).append(number)

    def __len__(self) -> int:
        return sum(map(len, self._left.values()))

    def left(self, model: Model) -> list[int]:
        """The numbers of a model's pictures that are left."""
        return list(self._left.get(model, ()))

    def take(
        self,
        share: float = 1.0,
        had: Sequence[Model] = (),
        taken: Collection[Model] = (),
        lacking: Collection[Model] = (),
    ) -> list[int]:
        """The next pictures of one device, none where it can make none of those that are left.

        `share`: its part of the pace of all devices, above 0 to 1; `had`: the models that it has
        loaded, the last one last; `taken`: those that other devices work on now; `lacking`: those
        that it has not got. A picture under which a device ended is taken alone.
        """
        models = [model for model, left in self._left.items() if left and model not in lacking]
        if not models:
            return []
        model = max(models, key=lambda model: (
            model in had and had.index(model) + 1, model not in taken, self._cost(model)))
        left, numbers = self._left[model], []
        room = self._cost(model) * share
        while left and len(numbers) < self.most and (not numbers or room > 0):
            if self.deaths[left[0]] and numbers:
                break
            number = left.popleft()
            numbers.append(number)
            room -= self.costs[number]
            if self.deaths[number]:
                break
        return numbers

    def put_back(self, numbers: Iterable[int], died: bool) -> list[int]:
        """Give back what was taken and not made, to be taken first; `died`: because the device has
        gone. The numbers that are given up, as too many devices ended under them."""
        given_up = []
        for number in sorted(numbers, reverse=True):
            self.deaths[number] += died
            if self.deaths[number] >= MOST_DEATHS:
                given_up.append(number)
            else:
                self._left[self.models[number]].appendleft(number)
        return given_up

    def remove(self, model: Model) -> list[int]:
        """Take out all pictures of a model that nobody can make."""
        return list(self._left.pop(model, ()))

    def clear(self) -> None:
        self._left.clear()

    def _cost(self, model: Model) -> float:
        return math.fsum(self.costs[number] for number in self._left[model])


def share_of(paces: Mapping[str, float | None], device: str) -> float:
    """The part of what is left that a device may take at once, above 0 to 1: its part of the pace
    of all, and a quarter of the mean where its own pace is not known yet."""
    known = [pace for pace in paces.values() if pace]
    mean = sum(known) / len(known) if known else 1.0
    mine = paces[device] or mean * FIRST
    return mine / sum(pace or mean for pace in paces.values())

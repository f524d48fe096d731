"""Which workers could run what if nothing else ran there, and who competes with whom for them."""

from collections.abc import Mapping

from st_controller.domain.scheduling.hosts import Group
from st_controller.domain.scheduling.shapes import Shapes, numbers


class Reach:
    """What follows from the shapes and the groups alone; remembered until workers come or go."""

    def __init__(self, shapes: Shapes, groups: Mapping[object, Group]) -> None:
        self._shapes, self._groups = shapes, groups
        self._satisfiable: int | None = None
        self._rivals: dict[int, int] = {}
        self._able: dict[int, list[Group]] = {}
        self._by_accelerators: dict[int, list[list[Group]]] = {}
        self._alike: dict[int, int] = {}
        self._slots_for: dict[int, int] = {}

    @property
    def satisfiable(self) -> int:
        """The shapes that would fit if nothing ran."""
        if self._satisfiable is None:
            self._satisfiable = 0
            for number in range(len(self._shapes.known)):
                if self._could_ever(number):
                    self._satisfiable |= 1 << number
        return self._satisfiable

    def able(self, number: int) -> list[Group]:
        """The groups of which a worker could run one node if nothing else ran there."""
        found = self._able.get(number)
        if found is None:
            known = self._shapes.known
            found = [
                group
                for group in self._groups.values()
                if group.size and group.fits(group.full, known) >> number & 1
            ]
            self._able[number] = found
        return found

    def by_accelerators(self, number: int) -> list[list[Group]]:
        """The same, those of equal accelerators together: all nodes of a gang run on such."""
        found = self._by_accelerators.get(number)
        if found is None:
            alike: dict[tuple[str, ...], list[Group]] = {}
            for group in self.able(number):
                alike.setdefault(group.accelerators[number], []).append(group)
            found = self._by_accelerators[number] = list(alike.values())
        return found

    def alike(self, number: int) -> int:
        """The shapes that could run on the same workers as this one, itself included."""
        found = self._alike.get(number)
        if found is None:
            able, found = self.able(number), 0
            for other in range(len(self._shapes.known)):
                found |= (self.able(other) == able) << other
            self._alike[number] = found
        return found

    def rivals(self, number: int) -> int:
        """The shapes that compete with this one for workers, itself included."""
        found = self._rivals.get(number)
        if found is None:
            found = 1 << number
            for group in self._groups.values():
                if group.size and group.able >> number & 1:
                    found |= group.able
            self._rivals[number] = found
        return found

    def slots_for(self, number: int) -> int:
        """Slots of all workers that could run one node of a shape."""
        found = self._slots_for.get(number)
        if found is None:
            found = sum(group.size * sum(group.full) for group in self.able(number))
            self._slots_for[number] = found
        return found

    def idle_for(self, number: int) -> int:
        """Slots that are free and kept for nobody on workers that could run one node of a shape."""
        return sum(group.free for group in self.able(number))

    # What changes it

    def learn(self, number: int) -> None:
        """A new shape changes what is known of the others in nothing but its own bit."""
        if self._satisfiable is not None and self._could_ever(number):
            self._satisfiable |= 1 << number
        for other in numbers(self.rivals(number)):
            if other in self._rivals:
                self._rivals[other] |= 1 << number

    def grow(self) -> None:
        """A group has one worker more, perhaps as many as a gang has nodes."""
        self._satisfiable = None
        self._slots_for.clear()

    def forget(self) -> None:
        """Groups came, went, or became smaller."""
        self._satisfiable = None
        self._rivals.clear()
        self._able.clear()
        self._by_accelerators.clear()
        self._alike.clear()
        self._slots_for.clear()

    def _could_ever(self, number: int) -> bool:
        nodes = self._shapes.known[number].nodes
        return any(
            sum(group.size for group in alike) >= nodes for alike in self.by_accelerators(number)
        )

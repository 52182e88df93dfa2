"""Worlds of a fleet: instances, Kafka's coordinator and topic, slots and children, and faults, in ticks of a second.

Only what decides is the real code. A unit is read by the child that holds its slot; a child that drains takes some
ticks. The faults end, and what must be true then is judged; some things are judged at every tick.
"""

import random
from dataclasses import dataclass, field

from cdc.fleet.instance import File, Instance
from cdc.fleet.register import FIRST, entry
from cdc.fleet.supervision import Act

SESSION = 10
QUIET = 120
"""Ticks without a fault after which everything has settled."""


@dataclass
class Topic:
    """The topic of the fleet: partition 0, and how many there are."""

    id: int
    partitions: int = 1
    log: list[tuple[bytes, bytes | None]] = field(default_factory=list)


@dataclass
class Child:
    """A child of an instance; it drains from a tick on, at the latest when its instance is gone."""

    unit: str
    owner: "Member"
    drains_at: int | None = None


class Member:
    """An instance with what its loop would do."""

    def __init__(self, world: "World", name: str, files: set[str]) -> None:
        self.world, self.name = world, name
        self.instance = Instance(name, SESSION, world.random.random)
        self.files = files
        self.frozen = self.killed = self.cut_off = False
        self.heard = world.now
        self.topic_id: int | None = None
        self.read = 0
        self.owned: set[int] = set()  # as the coordinator knows it
        self.news: list[tuple[str, set[int]]] = []  # rebalance callbacks that were not called yet

    def see(self) -> None:
        self.instance.see({unit: File(1, 3.0) for unit in self.files}, {})

    @property
    def reaches_kafka(self) -> bool:
        return not (self.frozen or self.killed or self.cut_off)

    def turn(self) -> None:
        world, instance = self.world, self.instance
        if self.reaches_kafka:
            self._read()
        revoked = False
        for kind, partitions in self.news:
            if kind == "assign":
                instance.placement.assign(partitions)
            elif kind == "revoke":
                instance.placement.revoke(partitions)
                revoked = True
            else:
                instance.placement.lose(partitions)
        self.news.clear()
        if self.reaches_kafka and (revoked or instance.placement.doubtful):
            instance.placement.topic(same=world.topic is not None and world.topic.id == self.topic_id)
        if self.reaches_kafka:
            self._write()
        for act, unit in list(instance.turn(world.now)):
            self.act(act, unit)
        for child in self.world.children:
            if child.owner is self:
                holds = world.slots.get(child.unit) is child
                instance.saw(child.unit, world.now, works=holds, blocked_by_kafka=holds and self.cut_off)

    def _read(self) -> None:
        topic, register = self.world.topic, self.instance.register
        if topic is None:
            return
        if topic.id != self.topic_id:
            if self.topic_id is not None:
                register.begins()
            self.topic_id, self.read = topic.id, 0
        # Reading takes time: a few records in each tick.
        records = topic.log[self.read : self.read + 3]
        for key, value in records:
            assert register.take(key, value) == ""
        self.read += len(records)
        if self.read == len(topic.log):
            register.ends()

    def _write(self) -> None:
        world, register = self.world, self.instance.register
        if world.topic is None:
            world.make_topic(max(register.partitions.values(), default=0) + 1)
            return
        if world.topic.id != self.topic_id:
            return
        read_to_end = self.read == len(world.topic.log)
        plan = self.instance.plan(world.now)
        world.topic.partitions = max(world.topic.partitions, plan.partitions)
        for unit, partition in plan.entries.items():
            world.check(read_to_end or register.complete, f"{self.name} registers {unit} before it has read to the end")
            world.topic.log.append((unit.encode(), entry(partition)))
        register.wrote(plan.entries, world.now)

    def act(self, act: Act, unit: str) -> None:
        world = self.world
        if act is Act.START:
            world.check(
                not any(child.owner is self and child.unit == unit for child in world.children),
                f"{self.name} starts a second child of {unit}",
            )
            world.children.append(Child(unit, self))
            return
        for child in world.children:
            if child.owner is self and child.unit == unit:
                if act is Act.DRAIN:
                    child.drains_at = child.drains_at or world.now + world.random.randint(1, 4)
                else:
                    child.drains_at = world.now


class World:
    """Everything, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0
        self.violation: str | None = None
        self.topic: Topic | None = None
        self.topics = 0
        self.coordinator = True
        self.members: list[Member] = []
        self.children: list[Child] = []
        self.slots: dict[str, Child] = {}
        self.units = {f"unit-{number:02}" for number in range(self.random.randint(2, 9))}
        self.names = 0
        for _ in range(self.random.randint(1, 3)):
            self.join()

    def check(self, holds: bool, what: str) -> None:
        if not holds and self.violation is None:
            self.violation = f"at {self.now}: {what}"

    def join(self) -> Member:
        member = Member(self, f"instance-{self.names}", {*self.units})
        member.see()
        self.names += 1
        self.members.append(member)
        return member

    def make_topic(self, partitions: int) -> None:
        self.topics += 1
        self.topic = Topic(self.topics, partitions)

    # The coordinator.

    def rebalance(self) -> None:
        """One step of a cooperative, sticky assignment: what moves is revoked first, and assigned when it is free."""
        alive = [member for member in self.members if not member.killed]
        for member in alive:
            if member.reaches_kafka and self.coordinator:
                member.heard = self.now
            elif self.now - member.heard == SESSION and (member.owned or member.instance.placement.assigned):
                # The client notices by itself; the coordinator, where it runs, has given its partitions to others.
                member.news.append(("lost", {*member.instance.placement.assigned}))
        if not self.coordinator:
            return
        for member in self.members:
            if member.killed or self.now - member.heard >= SESSION:
                member.owned = set()
        group = [member for member in alive if self.now - member.heard < SESSION and member.topic_id is not None]
        if not group:
            return
        partitions = set(range(self.topic.partitions)) if self.topic else set()
        for member in group:
            gone = member.owned - partitions
            if gone or (member.owned and self.topic and member.topic_id != self.topic.id):
                member.news.append(("revoke", {*member.owned}))
                member.owned = set()
        owned = {number for member in self.members for number in member.owned}
        free = sorted(partitions - owned)
        least = len(partitions) // len(group)
        for member in group:
            too_many = len(member.owned) - (least + (len(partitions) % len(group) > 0))
            if too_many > 0:
                moved = set(sorted(member.owned)[-too_many:])
                member.owned -= moved
                member.news.append(("revoke", moved))
        for number in free:
            taker = min(group, key=lambda member: (len(member.owned), member.name))
            taker.owned.add(number)
            taker.news.append(("assign", {number}))
        for member in group:
            rejoined = member.instance.placement.lost and not member.news
            if rejoined or (not member.owned and not member.instance.placement.joined and not member.news):
                member.news.append(("assign", {*member.owned}))

    # Children and slots.

    def live(self) -> None:
        for child in list(self.children):
            if child.owner.killed and child.drains_at is None:
                child.drains_at = self.now + 1  # the end of its pipe
            if child.drains_at is not None and self.now >= child.drains_at:
                self.children.remove(child)
                if self.slots.get(child.unit) is child:
                    del self.slots[child.unit]
                if not child.owner.killed:
                    child.owner.instance.ended(child.unit, 0, "", self.now)
        for child in self.children:
            if child.drains_at is None and child.unit not in self.slots:
                self.slots[child.unit] = child

    def tick(self) -> None:
        self.now += 1
        self.rebalance()
        for member in self.members:
            if not member.killed and not member.frozen:
                member.turn()
        self.live()

    def settle(self, ticks: int = QUIET) -> None:
        """Let time pass without a new fault, and judge what must be true after it."""
        for _ in range(ticks):
            self.tick()
        holders = {unit: [c for c in self.children if c.unit == unit] for unit in self.units}
        alive = [member for member in self.members if not member.killed]
        for unit, children in holders.items():
            self.check(len(children) == 1, f"{unit} has {len(children)} children")
            for child in children:
                self.check(self.slots.get(unit) is child, f"nobody reads {unit}")
                self.check(unit in child.owner.instance.placed, f"{unit} runs where it is not placed")
        for child in self.children:
            self.check(child.unit in self.units, f"{child.unit}, which has no file, runs")
        self.check(bool(alive), "an instance is left")

    def partitions(self) -> dict[str, int]:
        """The register, as an instance that has read it knows it."""
        alive = [member for member in self.members if not member.killed]
        return dict(alive[-1].instance.register.partitions)


def run(seed: int, steps: int = 12) -> str | None:
    """Run one world of faults; return what was violated."""
    world = World(seed)
    choose = world.random
    world.settle(40)
    for _ in range(steps):
        FAULTS[choose.choice(sorted(FAULTS))](world)
        if world.violation:
            break
    _heal(world)
    world.settle()
    return world.violation


def _heal(world: World) -> None:
    world.coordinator = True
    for member in world.members:
        member.frozen = member.cut_off = False


def kill(world: World) -> None:
    """Kill an instance, unless it is the last."""
    alive = [member for member in world.members if not member.killed]
    if len(alive) > 1:
        world.random.choice(alive).killed = True
        world.settle(SESSION + 30)


def join(world: World) -> None:
    """Add an instance."""
    world.join()
    world.settle(30)


def freeze(world: World) -> None:
    """Stop an instance for a while; its children go on."""
    alive = [member for member in world.members if not member.killed]
    member = world.random.choice(alive)
    member.frozen = True
    for _ in range(world.random.randint(1, 40)):
        world.tick()
    member.frozen = False
    world.settle()


def coordinator_away(world: World) -> None:
    """Freeze the coordinator: no unit changes its reader."""
    before = dict(world.slots)
    world.coordinator = False
    for _ in range(world.random.randint(5, 60)):
        world.tick()
        world.check(world.slots == before, "a reader changed while the coordinator was away")
    world.coordinator = True
    world.settle()


def topic_deleted(world: World) -> None:
    """Delete the topic: no unit changes its reader before another topic is there, none its partition."""
    before, partitions = dict(world.slots), world.partitions()
    world.topic = None
    world.rebalance()
    for member in world.members:
        if not member.killed and member.reaches_kafka:
            for kind, revoked in member.news:
                assert kind == "revoke"
                member.instance.placement.revoke(revoked)
            member.news.clear()
            member.instance.placement.topic(same=False)
            for act, unit in list(member.instance.turn(world.now)):
                world.check(act is Act.START, f"{unit} ends as the topic is deleted")
                member.act(act, unit)
    world.live()
    world.check(world.slots == before, "a reader changed as the topic was deleted")
    world.settle()
    world.check(world.partitions() == partitions, "a unit moved with the new topic")


def cut_off(world: World) -> None:
    """Cut one instance off from Kafka, with events to send: its units go to others."""
    alive = [member for member in world.members if not member.killed]
    if len(alive) < 2:
        return
    member = world.random.choice(alive)
    member.cut_off = True
    for _ in range(SESSION * 3 + 20):
        world.tick()
    world.check(
        not any(child.owner is member for child in world.slots.values()), f"{member.name} reads without reaching Kafka"
    )
    member.cut_off = False
    world.settle()


def file_added(world: World) -> None:
    """Add a file that sorts first to all folders, one after the other: no other unit changes its partition."""
    before = world.partitions()
    name = f"a-{len(world.units):03}"
    world.units.add(name)
    for member in world.members:
        member.files = {*world.units}
        member.see()
        for _ in range(world.random.randint(0, 5)):
            world.tick()
    world.settle()
    after = world.partitions()
    world.check({unit: after.get(unit) for unit in before} == before, f"{name} moved other units")


def file_removed(world: World) -> None:
    """Remove a file, and forget its unit."""
    if len(world.units) < 2 or world.topic is None:
        return
    name = world.random.choice(sorted(world.units))
    world.units.discard(name)
    for member in world.members:
        member.files = {*world.units}
        member.see()
    world.tick()
    world.topic.log.append((name.encode(), None))
    world.settle()
    world.check(name not in world.partitions(), f"{name} is not forgotten")


FAULTS = {
    each.__name__: each
    for each in (kill, join, freeze, coordinator_away, topic_deleted, cut_off, file_added, file_removed)
}

assert FIRST == 1

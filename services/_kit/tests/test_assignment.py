"""Partitions stay where they are when a member comes or goes, also beside members of the release before."""

from types import SimpleNamespace

from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from sluice_kit.assignment import range_assignor, sticky_assignor


class Cluster(SimpleNamespace):
    """What an assignor asks of the cluster: twelve partitions of one topic."""

    def topics(self):
        return {"t"}

    def partitions_for_topic(self, topic):
        return set(range(12))


def members(count) -> dict:
    return {f"m{n}": sticky_assignor() for n in range(count)}


def rejoin(assignors, leader=None) -> dict[str, set[int]]:
    metadata = {member: assignor.metadata(["t"]) for member, assignor in assignors.items()}
    leader = leader or next(iter(assignors.values()))
    made = leader.assign(Cluster(), metadata)
    for member, assignor in assignors.items():
        if hasattr(assignor, "member_assignment"):
            assignor.on_assignment(made[member])
    return {member: {tp.partition for tp in assignment.partitions()} for member, assignment in made.items()}


def test_a_member_that_joins_takes_only_its_share_and_one_that_leaves_gives_only_its_own():
    group = members(3)
    third = group.pop("m2")
    two = rejoin(group)
    three = rejoin(group | {"m2": third})
    assert {len(partitions) for partitions in two.values()} == {6}
    assert {len(partitions) for partitions in three.values()} == {4}
    assert three["m0"] < two["m0"]
    assert three["m1"] < two["m1"]
    again = rejoin(group)
    assert again["m0"] > three["m0"]
    assert again["m1"] > three["m1"]
    assert again["m0"] | again["m1"] == set(range(12))


def test_what_one_consumer_of_a_process_has_is_not_told_by_another():
    one, other = sticky_assignor(), sticky_assignor()
    one.on_assignment(one.assign(Cluster(), {"m": one.metadata(["t"])})["m"])
    assert one.member_assignment
    assert other.member_assignment is None


def test_members_of_the_release_before_take_part_and_may_lead():
    assert sticky_assignor().name == RoundRobinPartitionAssignor.name
    group = {"new": sticky_assignor(), "old": RoundRobinPartitionAssignor}
    for leader in (*group.values(), *reversed(group.values())):
        made = rejoin(group, leader)
        assert made["new"] | made["old"] == set(range(12))
        assert not made["new"] & made["old"]


def test_an_instance_that_comes_back_under_another_member_id_has_its_range_again():
    instances = {"0": range_assignor("0"), "1": range_assignor("1")}
    before = rejoin({"m-5": instances["0"], "m-6": instances["1"]})
    after = rejoin({"m-9": range_assignor("0"), "m-6": instances["1"]}, leader=instances["1"])
    assert (after["m-9"], after["m-6"]) == (before["m-5"], before["m-6"]) == (set(range(6)), set(range(6, 12)))


def test_members_of_the_release_before_have_ranges_beside_those_that_tell_their_instance():
    group = {"new": range_assignor("0"), "old": RangePartitionAssignor}
    for leader in group.values():
        made = rejoin(group, leader)
        assert made["new"] | made["old"] == set(range(12))
        assert not made["new"] & made["old"]

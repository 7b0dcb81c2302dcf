"""Who makes which pictures on a cluster, reckoned without one."""

from pipelines.cluster.sharing import MOST, MOST_DEATHS, Bag, share_of


def simulated(bag, seconds_per_picture):
    """How many pictures each device makes, when each takes so long for one."""
    free_at = dict.fromkeys(seconds_per_picture, 0.0)
    counts = dict.fromkeys(seconds_per_picture, 0)
    paces = dict.fromkeys(seconds_per_picture)
    while len(bag):
        device = min(free_at, key=free_at.get)
        numbers = bag.take(share_of(paces, device))
        counts[device] += len(numbers)
        free_at[device] += len(numbers) * seconds_per_picture[device]
        paces[device] = 1 / seconds_per_picture[device]
    return counts, free_at


def test_a_device_four_times_as_slow_makes_a_fifth_and_all_end_together():
    counts, ended = simulated(Bag(["a"] * 60, [1] * 60), {"fast": 1, "slow": 4})
    assert sum(counts.values()) == 60
    assert 10 <= counts["slow"] <= 14
    assert abs(ended["fast"] - ended["slow"]) <= 4


def test_batches_are_large_where_there_is_much_to_do():
    bag = Bag(["a"] * 200, [1] * 200)
    sizes = []
    while numbers := bag.take(0.5):
        sizes.append(len(numbers))
    assert sizes[:8] == [MOST] * 8
    assert sizes[-1] == 1 and sum(sizes) == 200


def test_the_order_of_work_is_kept():
    bag = Bag(["a"] * 10, [1] * 10)
    assert bag.take(0.5) + bag.take(1.0) == list(range(10))


def test_each_device_begins_another_model_and_stays_with_it():
    bag = Bag(["a", "b"] * 20, [1] * 40)
    first = bag.take(0.2)
    second = bag.take(0.2, taken={"a"})
    assert {bag.models[number] for number in first} == {"a"}
    assert {bag.models[number] for number in second} == {"b"}
    again = bag.take(0.2, had=["a"], taken={"b"})
    assert {bag.models[number] for number in again} == {"a"}
    while bag.left("a"):
        bag.take(had=["a"])
    helping = bag.take(0.2, had=["a"], taken={"b"})  # nothing of its own is left
    assert {bag.models[number] for number in helping} == {"b"}


def test_what_costs_more_counts_more():
    bag = Bag(["a"] * 8, [50, 1, 1, 1, 1, 1, 1, 1])
    assert bag.take(0.5) == [0]
    assert bag.take(0.5) == [1, 2, 3, 4]


def test_a_device_without_the_model_gets_none_of_it():
    bag = Bag(["a", "b"], [1, 1])
    assert bag.take(lacking={"a"}) == [1]
    assert bag.take(lacking={"a"}) == []
    assert bag.remove("a") == [0] and not len(bag)


def test_what_a_dead_device_had_comes_next_alone_and_is_given_up_in_the_end():
    bag = Bag(["a"] * 6, [1] * 6)
    lost = bag.take(0.5)
    assert lost == [0, 1, 2] and bag.put_back(lost, died=True) == []
    assert bag.take() == [0] and bag.take() == [1]  # one of them may be why
    assert bag.put_back([1], died=False) == []  # it lacks the model: no death
    for _ in range(MOST_DEATHS - 2):
        assert bag.take() == [1] and bag.put_back([1], died=True) == []
    assert bag.take() == [1] and bag.put_back([1], died=True) == [1]
    assert bag.take() == [2] and bag.take() == [3, 4, 5]


def test_a_new_device_is_tried_with_little_of_what_is_left():
    assert share_of({"a": None, "b": None}, "a") == 0.125
    assert share_of({"a": 3.0, "b": 1.0}, "a") == 0.75
    assert share_of({"a": 4.0, "b": None}, "b") == 0.125

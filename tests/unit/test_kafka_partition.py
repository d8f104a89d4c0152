"""What a member of a group commits: the finished beginning of a partition, and never more."""

from __future__ import annotations

import gc
from typing import Any

from aiokafka.structs import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from lapel.delivery import Delivery
from lapel_contrib.kafka import partition as module
from lapel_contrib.kafka.consumer import Handle
from lapel_contrib.kafka.offsets import note_of, read_note
from lapel_contrib.kafka.partition import Partition

TP = TopicPartition("t", 0)


def record(offset: int, key: bytes | None = None) -> ConsumerRecord:
    return ConsumerRecord("t", 0, offset, 0, 0, key, b"", None, -1, 0, ())


def hold(partition: Partition, records: list[ConsumerRecord]) -> None:
    holder: Any = None
    for one in records:
        partition.held[one.offset] = (holder, Delivery(one, "t", b""))


@given(st.data())
def test_whatever_the_order_only_the_finished_beginning_is_committed(data: st.DataObject) -> None:
    """Offsets have gaps, as after compaction; messages are taken, finished and handed back in any order."""
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=40))
    offsets = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    done_before = data.draw(st.sets(st.sampled_from(offsets)))
    partition = Partition(TP, 0, done_before)
    fetched, finished = 0, set(done_before)
    taken: list[int] = []
    while data.draw(st.booleans()) or fetched == 0:
        match data.draw(st.sampled_from(("fetch", "take", "finish", "give back"))):
            case "fetch":
                size = data.draw(st.integers(1, 10))
                partition.buffer(record(offset) for offset in offsets[fetched : fetched + size])
                fetched = min(len(offsets), fetched + size)
            case "take":
                found = partition.take(data.draw(st.integers(1, 8)))
                hold(partition, found)
                numbers = [one.offset for one in found]
                assert numbers == sorted(numbers)
                assert not finished.intersection(numbers), "a finished message was handed out again"
                assert not set(taken).intersection(numbers), "a message is in two hands"
                taken += numbers
            case "finish" if taken:
                offset = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
                assert partition.finish(offset)
                assert not partition.finish(offset)
                finished.add(offset)
            case "give back" if taken:
                offset = taken.pop(data.draw(st.integers(0, len(taken) - 1)))
                assert partition.give_back(record(offset))
                assert not partition.give_back(record(offset))
        below = [offset for offset in offsets if offset < partition.mark]
        assert finished.issuperset(below), "an unfinished message was committed"
        assert partition.finished().issubset(finished)
        # Nothing that was finished is forgotten: it is below the mark or noted beside it.
        assert finished <= {*below, *partition.finished()}
    # A successor that begins where this one stopped handles exactly what is left.
    note = note_of(partition.mark, partition.finished())
    successor = Partition(TP, partition.mark, read_note(partition.mark, note))
    successor.buffer(record(offset) for offset in offsets if offset >= partition.mark)
    rest = [one.offset for one in successor.take(len(offsets))]
    assert rest == [offset for offset in offsets if offset not in finished]


def test_what_is_noted_as_finished_and_was_compacted_away_is_forgotten() -> None:
    partition = Partition(TP, 10, {12})
    partition.buffer(record(offset) for offset in (10, 11, 13, 14, 15, 16, 17))
    hold(partition, partition.take(9))
    for offset in (10, 11, 13, 15, 17):
        partition.finish(offset)
    assert partition.mark == 14
    assert partition.finished() == {15, 17}
    assert read_note(14, note_of(14, partition.finished())) == {15, 17}


def test_what_is_finished_after_a_noted_one_is_forgotten_is_still_to_be_committed() -> None:
    partition = Partition(TP, 10, {12})
    partition.buffer(record(offset) for offset in (10, 13))
    assert not partition.uncommitted
    hold(partition, partition.take(9))
    partition.finish(13)
    assert partition.uncommitted


def test_a_lost_partition_keeps_nothing_and_is_not_kept() -> None:
    """Deliveries refer to their partition, and it to them while they are in hand."""

    def lose() -> None:
        partition = Partition(TopicPartition("lost", 0), 0)
        partition.buffer(record(offset) for offset in range(20))
        holder: Any = None
        taken = partition.take(10)
        for one in taken:
            partition.held[one.offset] = (holder, Delivery(Handle(partition, one), "lost", b""))
        partition.give_back(taken[0])
        partition.lose()
        assert (partition.buffered, partition.waiting) == (0, 0)
        assert (partition.lost, partition.revoking) == (True, True)

    lose()
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Partition) and one.tp.topic == "lost"]


def test_a_partition_that_begins_again_knows_nothing_of_the_former_log() -> None:
    former = Partition(TP, 100, {105})
    former.buffer(record(offset) for offset in (101, 102))
    again = former.begin_again(0)
    assert former.lost
    assert again.uncommitted
    again.buffer(record(offset) for offset in range(3))
    assert [one.offset for one in again.take(10)] == [0, 1, 2]
    assert again.finished() == set()


def test_the_gap_behind_an_unfinished_message_is_bounded() -> None:
    partition = Partition(TP, 0)
    partition.buffer(record(offset) for offset in range(module.LONGEST_GAP + 10))
    found = partition.take(module.LONGEST_GAP + 10)
    hold(partition, found)
    assert len(found) == module.LONGEST_GAP
    for one in found[1:]:
        partition.finish(one.offset)
    assert partition.mark == 0
    assert partition.take(10) == []
    partition.finish(0)
    assert partition.mark == module.LONGEST_GAP
    assert len(partition.take(20)) == 10


def test_keys_that_others_have_in_hand_are_passed_over_in_order() -> None:
    partition = Partition(TP, 0)
    partition.buffer(record(number, key) for number, key in enumerate([b"a", b"b", b"a", None, b"b"]))
    assert [one.offset for one in partition.take(10, {b"a"})] == [1, 3, 4]
    assert partition.waiting == 2
    assert [one.offset for one in partition.take(10)] == [0, 2]


def test_what_was_fetched_twice_is_taken_once() -> None:
    partition = Partition(TP, 5)
    partition.buffer([record(4), record(5), record(6)])
    partition.buffer([record(5), record(6), record(7)])
    assert [one.offset for one in partition.take(10)] == [5, 6, 7]
    assert partition.next_offset == 8


@given(st.integers(0, 2**40), st.sets(st.integers(1, 5000), max_size=300))
def test_a_note_says_what_is_finished(mark: int, beyond: set[int]) -> None:
    finished = {mark + one for one in beyond}
    assert read_note(mark, note_of(mark, finished)) == finished


def test_a_note_fits_into_what_brokers_take() -> None:
    finished = set(range(1, 20_000, 2))
    note = note_of(0, finished)
    assert len(note) < 4096
    assert read_note(0, note) < finished
    assert read_note(0, note)


def test_notes_of_other_programs_mean_nothing() -> None:
    for note in ("", "lapel1 x", "lapel1 5-", "lapel1 1-2 3;4", "sarama", "lapel2 1"):
        assert read_note(0, note) == set()
    assert len(read_note(0, "lapel1 1-999999999 5-999999999")) <= 200_001

"""Acknowledging many messages with few frames names exactly those that are done."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lapel_contrib.rabbitmq.ledger import Ledger


@given(st.integers(0, 60), st.randoms(use_true_random=False))
def test_whatever_the_order_the_broker_is_told_of_what_is_done_and_of_nothing_else(size: int, chance: Random) -> None:
    ledger, broker = Ledger(), set(range(1, size + 1))
    for tag in sorted(broker):
        ledger.add(tag, "a")
    held = set(broker)
    while held:
        done = set(chance.sample(sorted(held), chance.randint(1, len(held))))
        last, count, rest = ledger.settle(done)
        acknowledged = {tag for tag in broker if tag <= last}
        assert len(acknowledged) == count
        acknowledged |= set(rest)
        assert acknowledged == done
        broker -= acknowledged
        held -= done
        assert len(ledger) == len(broker)


def test_what_was_consumed_under_an_older_name_does_not_count_as_current() -> None:
    ledger = Ledger()
    ledger.begin("a")
    for tag in (1, 2):
        ledger.add(tag, "a")
    assert ledger.current == 2
    ledger.begin("b")
    ledger.add(3, "b")
    # One that was under way when the name changed.
    ledger.add(4, "a")
    assert (ledger.current, len(ledger)) == (1, 4)
    ledger.remove(1)
    assert ledger.current == 1
    assert ledger.settle({3}) == (0, 0, [3])
    assert (ledger.current, 3 in ledger, 4 in ledger) == (0, False, True)
    ledger.clear()
    assert len(ledger) == 0

"""Rows of publish/subscribe."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
PS-00 | the component opens with the settings of its file
PS-01 | ping answers, or says that there is none
PS-02 | a subscription is made; its handler fails now and then
PS-03 | a bulk subscription is made; its handler fails single entries
PS-04 | messages are published one by one
PS-05 | messages are published for the bulk subscription
PS-06 | messages are published in bulk
PS-07 | every published message arrives
PS-08 | every message arrives through the bulk subscription
PS-09 | two subscriptions on two topics each get exactly their own
PS-10 | both subscriptions receive while both are there
PS-11 | one subscription ends, the other goes on
PS-12 | both have ended and nothing is called any more
PS-13 | the component closes with subscriptions open
stricter-034 | five hundred messages of one key arrive in order, a failing one holds its key
stricter-035 | a handler that fails twice and then succeeds is called three times and never again
stricter-036 | a message whose consumer is cancelled in mid-handler goes to another of the same id
stricter-037 | after a subscription ended its handler is silent and a successor gets the backlog
stricter-038 | consumers of one id share, different ids each get all, topics do not leak
stricter-039 | two subscriptions to one topic in one component: the second outlives the first
stricter-040 | a new subscription disturbs none of the busy ones
stricter-041 | a handler may publish to its own topic
stricter-042 | a slow handler bounds memory, nothing is lost, a waiting publish can be cancelled
stricter-043 | concurrency one never overlaps, two runs two at once
stricter-044 | payloads of every kind, metadata and content type arrive, too large is refused
stricter-045 | bulk publish: one impossible entry, an empty list, duplicate entry ids
stricter-046 | metadata of the entry wins over that of the request, and neither is changed
stricter-047 | bulk subscribe: a lone message is not held back, no batch is over its size
stricter-048 | bulk subscribe: only failed entries come again, a wrong answer fails the batch
stricter-049 | a message past its time to live is not delivered, a bad time is refused
stricter-050 | a wildcard subscription gets concrete topics and no strangers
stricter-051 | after its attempts a message is at the dead-letter topic with its bytes and attributes
stricter-052 | close while a handler runs, twice, and calls after it
stricter-053 | an unconfirmed or cancelled publish never looks like success
stricter-054 | a broker restarts while messages flow
stricter-055 | a message published right after subscribe returned arrives
stricter-056 | pause stops calls, resume brings the backlog, each may come twice
stricter-057 | a handler slower than the lease gets no second delivery at the same time
stricter-058 | a subscription survives odd exceptions and odd answers of its handler
stricter-059 | errors of publish say whether trying again can help
stricter-060 | envelopes equal the golden files
"""

WAIVED: dict[str, str] = {}

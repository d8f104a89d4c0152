"""Rows of configuration stores."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
CF-00 | the component opens with the settings of its file
CF-01 | items are written behind the store's back
CF-02 | named items are read with value, version and metadata
CF-03 | without names all items are read
CF-04 | unknown names are left out
CF-05 | three subscriptions: some keys, more keys, all keys
CF-05b | request metadata of a subscription reaches the driver
CF-06 | each subscription gets the changes of its own keys
CF-07 | a deletion is an event that says so
CF-08 | the first subscription ends and is silent, the others go on
CF-09 | the second subscription ends and is silent
CF-10 | all subscriptions have ended and are silent
stricter-084 | a run that executed nothing is a failure
stricter-085 | a change right after subscribe returned is delivered
stricter-086 | an empty value and a deletion differ
stricter-087 | no initial state is sent unless it is asked for
stricter-088 | unsubscribe: unknown id, twice, from the handler, with an event under way
stricter-089 | of two subscriptions on the same keys one may fail, hang or end without the other
stricter-090 | of a hundred rapid changes the last is delivered and the order never turns
stricter-091 | changes during an outage are delivered after it
stricter-092 | bars, line breaks, unicode and large values come back exactly
stricter-093 | a cancelled subscriber and a close with live subscriptions stop everything
stricter-094 | duplicate and very many keys give one item each
"""

WAIVED: dict[str, str] = {}

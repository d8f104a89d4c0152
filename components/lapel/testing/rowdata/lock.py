"""Rows of locks."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
LK-00 | the component opens with the settings of its file
LK-01 | a free lock is taken
LK-02 | a second resource is independent of the first
LK-03 | a held lock is refused, also to its owner
LK-04 | unlocking what is not held says so
LK-05 | unlocking another owner's lock says so
LK-06 | the owner unlocks
LK-07 | an expired lock can be taken
stricter-095 | of fifty tasks exactly one gets the lock
stricter-096 | a counter guarded by the lock is exact, never two are inside
stricter-097 | an expired owner cannot release its successor's lock
stricter-098 | a lock is held until its expiry
stricter-099 | expiry of zero and below is refused, a very long one works
stricter-100 | empty names are refused; unusual and similar ones do not interfere
stricter-101 | a cancelled attempt leaves the store usable and the lock free or expiring
stricter-102 | a restart of the store never gives the lock to two
stricter-103 | close while holding: the lock stays until its expiry
stricter-104 | renewal by a stranger is refused, the fencing token grows
"""

WAIVED: dict[str, str] = {}

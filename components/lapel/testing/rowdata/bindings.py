"""Rows of bindings."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
BD-00 | the component opens in each of its directions
BD-01 | ping answers, or says that there is none
BD-02 | every operation named in the catalogue is offered
BD-03 | reading starts
BD-04 | create works
BD-05 | get returns what was created
BD-06 | list works
BD-07 | the handler is called
BD-08 | delete removes, a later get finds nothing
BD-09 | each direction closes
stricter-061 | the life of an object from create to delete; a missing one is a typed error
stricter-062 | unknown and empty operations and missing metadata are errors that name what is right
stricter-063 | every byte, empty bodies and text that looks encoded are stored unchanged
stricter-064 | paths out of the root are refused and nothing outside is touched
stricter-065 | fifty creates at once on many objects and on one leave whole objects
stricter-066 | an event has its content and metadata; a failed one comes again as declared
stricter-067 | reading ends in bounded time with a handler under way and never calls again
stricter-068 | cron: ticks, slow handlers, bad schedules and changes of the clock
stricter-069 | HTTP: failures carry status and body, limits are errors, repeated headers
stricter-070 | SQL: parameters are never interpolated, results are typed
stricter-071 | a queue drops a message past its time to live
stricter-072 | metadata and data of the caller are unchanged
stricter-073 | works again after its server was away
"""

WAIVED: dict[str, str] = {
    "stricter-070": "no SQL binding is offered yet",
    "stricter-071": "no queue binding is offered yet",
}

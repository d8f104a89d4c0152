"""Rows that apply to every kind."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
stricter-123 | a flag is declared if and only if its operation works, before and after open
stricter-124 | calls before open, a second open and an open after close are typed errors
stricter-125 | a failed open is a typed error in bounded time and leaves nothing behind
stricter-126 | unknown, misspelt and malformed fields are errors that name them; case does not matter
stricter-127 | close is idempotent, from several tasks, with work under way and right after open
stricter-128 | every call after close raises the one typed error
stricter-129 | tasks, threads and open files are the same before and after a life
stricter-130 | operations cancelled at random points end as cancelled and the component still works
stricter-131 | a deadline shorter than the driver's wins against a server that never answers
stricter-132 | the server is killed during a write
stricter-133 | the network refuses, resets, swallows, delays and trickles
stricter-134 | two hundred operations at once are all answered correctly
stricter-135 | another event loop is a clear error, instances share no state
stricter-136 | what is stored and what is secret is in no log record, repr or error
stricter-137 | requests and responses share no memory with the driver
stricter-138 | unknown names, duplicate names and missing dependencies are typed errors
stricter-139 | an exception in the body of a component is kept and the component is closed
stricter-140 | wrong drivers are caught by the rows they break
stricter-141 | a write whose reply is lost is of unknown outcome, and was sent once
stricter-142 | a request that never arrived is not taken for done
stricter-143 | operations cancelled at every await, and while a reply is under way, are followed by correct replies
"""

WAIVED: dict[str, str] = {
    "stricter-138": "no property of one driver: tests/unit/test_registry.py shows it",
}

"""Rows of state stores."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
ST-00 | the component opens with the settings of its file
ST-01 | ping answers, or says that there is none
ST-02 | values of every type are stored
ST-03 | what was stored comes back: bytes as they were, everything else as JSON
ST-04 | a deleted key is gone, deleting a key that never was is no error
ST-05 | bytes that are not UTF-8 come back unchanged
ST-06 | the five queries of the reference find the documents they should
ST-07 | query is refused where it is not declared
ST-08 | bulk set stores every value
ST-09 | bulk get answers every key with its value
ST-10 | a missing key in a bulk get is an answer without a value, not an error
ST-11 | bulk delete removes every key
ST-20 | a transaction sets and deletes what it names
ST-21 | deleting a missing key inside a transaction is no error
ST-22 | the operations of a transaction take effect in their order
ST-23 | JSON given as bytes survives a transaction, with and without content type
ST-25 | transaction is refused where it is not declared
ST-26 | a driver without transactions does not implement them either
ST-30 | get and bulk get return an etag that is not empty
ST-31 | set with a wrong etag is a mismatch
ST-32 | set with the current etag writes and changes the etag
ST-33 | in a bulk set only the item with the wrong etag fails
ST-34 | the failed item of a bulk set is unchanged, its neighbour is written
ST-35 | bulk set with current etags writes all
ST-36 | delete with a wrong etag is refused
ST-37 | delete with the current etag removes the key
ST-38 | in a bulk delete only the item with the wrong etag fails
ST-39 | the failed item of a bulk delete is intact, its neighbour is gone
ST-40 | bulk delete with current etags removes all
ST-41 | bulk get of removed keys names them, without value and etag
ST-42 | etags and first-write are refused where etags are not declared
ST-45 | first-write creates once and refuses the second time
ST-46 | an empty etag is no etag
ST-47 | first-write with an etag writes once with it
ST-50 | a lifetime that is not a number is an error
ST-51 | a key with a lifetime is there at once
ST-52 | a key is gone when its lifetime has passed
ST-53 | a lifetime is refused where it is not declared
ST-54 | a key without a lifetime has no time of expiry
ST-55 | the time of expiry comes back with get
ST-56 | a lifetime is removed by -1 and by a write that names none
ST-57 | bulk get returns values exactly, with their times of expiry
ST-60 | prefix delete works where it is declared
ST-61 | keys with bars are stored and read
ST-62 | prefix delete removes the keys directly below and counts them
ST-63 | bars are added to a prefix that has none
ST-64 | an empty prefix is refused
ST-65 | a prefix of just two bars is refused
ST-66 | prefix delete is refused where it is not declared
ST-70 | key listing works where it is declared
ST-71 | an empty pattern is refused
ST-72 | all keys are listed, without a token
ST-73 | the two wildcards match what LIKE says
ST-74 | pages with tokens add up to the whole
ST-75 | without a page size more than a thousand keys come in one page
ST-76 | a backslash makes a wildcard literal, a dot is always literal
ST-77 | paging goes on while keys come and go
ST-78 | paging from the start after changes gives all keys
ST-79 | expired keys are not listed
ST-80 | key listing is refused where it is not declared
stricter-001 | of fifty writers with one etag exactly one wins, and no increment of a shared counter is lost
stricter-002 | of fifty creators of one key exactly one wins, the others get a typed mismatch
stricter-003 | of a set and a delete with one etag exactly one wins
stricter-004 | every write changes the etag, also of the same value
stricter-005 | an etag from before a delete does not match the key created anew
stricter-006 | an etag for a missing key is a mismatch and creates nothing
stricter-007 | a malformed etag is the same typed error in every operation
stricter-008 | last-write does not switch off an etag; first-write delete without one is a plain delete
stricter-009 | a plain set after a first-write succeeds
stricter-010 | first-write on an expired key succeeds at once
stricter-011 | a transaction refused at any place leaves everything as it was and raises the typed error
stricter-012 | the same key twice in a transaction: each operation sees what the earlier ones left
stricter-013 | an empty transaction does nothing, one at the limit works, one over it is refused and not applied
stricter-014 | readers never see half a transaction, overlapping ones are serialised
stricter-015 | lifetimes in bulk sets and transactions, extended, removed and zero
stricter-016 | malformed lifetimes are refused and leave the key alone
stricter-017 | an expired key is invisible to every operation without waiting for a cleaner
stricter-018 | every byte, empty values and awkward text come back exactly or are refused
stricter-019 | numbers, null, depth and roots of JSON survive, NaN is refused
stricter-020 | large values come back exactly, one byte over the limit is refused
stricter-021 | unusual keys work or are refused, and stay distinct by code point
stricter-022 | an empty key or one with NUL is the same error in every operation
stricter-023 | text that looks like a query is data
stricter-024 | bulk get answers each request in order, duplicates included, for none to thousands of keys
stricter-025 | bulk calls report every bad item once and apply the good ones
stricter-026 | requests are the same before and after
stricter-027 | unknown words for concurrency and consistency are refused everywhere
stricter-028 | a last page that is exactly full has no token
stricter-029 | keys present throughout a listing appear exactly once whatever else changes
stricter-030 | key listing: case, line breaks, trailing backslash, page size zero, foreign token
stricter-031 | query: several sort keys, paging to the end, empty filter, errors, quotes
stricter-032 | two instances open one empty backend at once
stricter-033 | the content type comes back where it is declared
"""

WAIVED: dict[str, str] = {}

"""The rows of the conformance suite, one module a kind.

`ROWS` has one line a row: its id, a bar, what it shows. `WAIVED` maps a row that no test carries to the reason.
Ids with two letters are the scenarios of the reference suite, `stricter-NNN` are ours.
"""

__all__: list[str] = []

"""Rows of secret stores."""

__all__ = ["ROWS", "WAIVED"]

ROWS = """
SC-01 | the component opens; ping answers, or says that there is none
SC-02 | a secret is read
SC-03 | all secrets are read
stricter-074 | a missing secret and an empty name are typed errors
stricter-075 | an empty value is a value
stricter-076 | several fields, nested data and scalars have their documented text
stricter-077 | line breaks, unicode, large values and odd names come back exactly
stricter-078 | an old version is read by its id, an unknown one is not found
stricter-079 | a bulk read is complete over many pages
stricter-080 | a change of the store is seen, or not, as documented
stricter-081 | no value appears in repr, logs or errors; what the caller edits stays his
stricter-082 | hidden names are hidden in get and bulk get alike
stricter-083 | a malformed source is an error at open
"""

WAIVED: dict[str, str] = {}

"""What the REST interface takes and gives, one file per resource; the OpenAPI document is made from these.

Input is strict: an unknown field, a number where text belongs, U+0000 or half of a surrogate pair is refused. Ids are strings,
because JavaScript's numbers end at 2^53. Times are RFC 3339 in UTC with microseconds.
"""

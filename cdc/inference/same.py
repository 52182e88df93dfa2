"""Compare a decoded Avro value with the JSON value that it was encoded from."""

import datetime
import uuid
from decimal import Decimal

from cdc.inference import texts


def same(json_value: object, decoded: object) -> bool:
    """Return whether a decoded value is the same JSON value: exactly, but for null where an object lacks a key.

    Numbers are compared by value, timestamps as instants. `json_value` has exact numbers.
    """
    if decoded is None or isinstance(decoded, (bool, str)):
        return json_value is decoded or (isinstance(decoded, str) and json_value == decoded)
    if isinstance(decoded, (int, float, Decimal)):
        number = Decimal(repr(decoded)) if isinstance(decoded, float) else Decimal(decoded)
        return isinstance(json_value, (int, Decimal)) and not isinstance(json_value, bool) and number == json_value
    if isinstance(decoded, list):
        return isinstance(json_value, list) and len(json_value) == len(decoded) and all(map(same, json_value, decoded))
    if isinstance(decoded, dict):
        return (
            isinstance(json_value, dict)
            and json_value.keys() <= decoded.keys()
            and all(same(json_value.get(key), item) for key, item in decoded.items())
        )
    if isinstance(decoded, datetime.datetime):
        return isinstance(json_value, str) and texts.instant(json_value) == decoded
    return isinstance(decoded, (datetime.date, uuid.UUID)) and str(decoded) == json_value

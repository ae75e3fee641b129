"""When something was signed: clocks of two machines differ by a little, and by more where one of them is wrong."""

from __future__ import annotations

import time
from typing import Any

from itsdangerous import BadData, SignatureExpired, TimestampSigner, URLSafeTimedSerializer

CLOCK_LEEWAY = 5
"""Seconds by which the clock that signed may be ahead of ours."""


class WrongTime(BadData):
    """The signature is good, and from too long ago or from the future. The message says which, by our clock."""

    def __init__(self, age: int) -> None:
        super().__init__(f"signed {age} s ago" if age >= 0 else f"signed {-age} s in the future")
        self.age = age
        """Seconds since it was signed; negative where our clock is behind."""


def load_signed(serializer: URLSafeTimedSerializer, value: str, max_age: int) -> Any:
    """What was signed no longer than ``max_age`` seconds ago. Raises :exc:`WrongTime` and itsdangerous' ``BadData``."""
    payload, signed = serializer.loads(value, return_timestamp=True)
    age = int(time.time()) - int(signed.timestamp())
    if not -CLOCK_LEEWAY <= age <= max_age:
        raise WrongTime(age)
    return payload


class LenientSigner(TimestampSigner):
    """itsdangerous' signer, to which what another machine has signed need not be from the past."""

    def unsign(self, signed_value: str | bytes, max_age: int | None = None, return_timestamp: bool = False) -> Any:
        """The value behind a signature. Raises itsdangerous' ``BadSignature``."""
        value, signed = super().unsign(signed_value, return_timestamp=True)
        age = int(time.time()) - int(signed.timestamp())
        if max_age is not None and not -CLOCK_LEEWAY <= age <= max_age:
            raise SignatureExpired(str(WrongTime(age)), payload=value, date_signed=signed)
        return (value, signed) if return_timestamp else value

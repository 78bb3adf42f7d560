"""Helpers of the tests of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from restore_agent.core.errors import UsageError

KEY = "e2c5a0f4-69a1-4d6e-9c6d-8d1f5f5a7b11"


@contextmanager
def without_privileges() -> Iterator[None]:
    """Act as a user to whom file permissions apply: as root, as user 65534 meanwhile."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def refusal(call: Callable[[], object]) -> str:
    """The message of the UsageError that `call` must raise; its exit code is 2."""
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.exit_code == 2
    return caught.value.message

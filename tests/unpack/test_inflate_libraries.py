"""The library that inflates: isal if it is installed, else zlib, with the same results."""

from __future__ import annotations

import os
import sys

import pytest
from archives import in_chunks, zipped

from restore_agent.core.errors import DamagedArchive
from restore_agent.unpack.reading.inflate import Inflater, MemberCheck, backend


def test_zlib_is_used_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert backend().name.startswith("zlib ")


def test_isal_is_used_when_it_is_installed() -> None:
    pytest.importorskip("isal")
    assert backend().name.startswith("isal ")
    assert backend(fast=False).name.startswith("zlib ")


@pytest.mark.parametrize("fast", [False, True])
def test_errors_in_the_middle_are_damage_with_either_library(fast: bool) -> None:
    library = backend(fast=fast)
    whole = zipped(os.urandom(3000) + bytes(3 << 20), 1 << 20)
    for at in range(12, len(whole), max(len(whole) // 60, 1)):
        changed = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        inflater, check = Inflater(in_chunks(changed, 1000), library), MemberCheck(library)
        with pytest.raises(DamagedArchive):
            for plain, trailer in inflater.plain():
                check.update(plain, trailer)
            assert inflater.trailing_garbage  # a changed first byte of a later member makes it garbage
            raise DamagedArchive("ignored")

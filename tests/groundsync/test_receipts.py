"""Receipts: signed by a key that stays, checkable without a cryptography library."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gossan.errors import DamagedDataError
from groundsync.receipts import Receipts
from onboard.keep.receipt import Receipt, holds, receipt_of

SHA = "ab" * 32


def test_receipt_holds_and_the_key_outlives_a_restart(tmp_path: Path) -> None:
    first = Receipts(tmp_path / "keys", now_utc_s=lambda: 1_700_000_000.123456)
    receipt = first.sign("object", "f1", SHA, 5)
    again = Receipts(tmp_path / "keys")
    assert again.public_key == first.public_key
    travelled = receipt_of(receipt.to_json())
    assert travelled == receipt
    assert holds(travelled, bytes.fromhex(first.public_key), "object", "f1", SHA)
    assert (tmp_path / "keys/receipt.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "change",
    [
        {"what": "flight"},
        {"flight_id": "f2"},
        {"sha256": "cd" * 32},
        {"size_bytes": 6},
        {"t_utc_s": 0.0},
        {"signature": "00" * 64},
        {"signature": "no hex"},
        {"signature": ""},
    ],
    ids=str,
)
def test_any_change_is_noticed(tmp_path: Path, change: dict[str, Any]) -> None:
    receipts = Receipts(tmp_path)
    key = bytes.fromhex(receipts.public_key)
    changed: Receipt = dataclasses.replace(receipts.sign("object", "f1", SHA, 5), **change)
    assert not holds(changed, key, "object", "f1", SHA)
    told = (changed.what, changed.flight_id, changed.sha256)
    assert not holds(changed, key, *told)


@pytest.mark.parametrize("document", [None, {}, [], {"format": "other"}, "x"], ids=str)
def test_what_is_no_receipt(document: Any) -> None:
    with pytest.raises(ValueError, match="receipt"):
        receipt_of(document)


def test_spoilt_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "receipt.key").write_text("garbage")
    with pytest.raises(DamagedDataError, match=r"receipt\.key"):
        Receipts(tmp_path)

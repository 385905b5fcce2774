"""Temperature and calibration error against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from models.trust import (
    calibration_error,
    energy,
    energy_gate,
    fit_temperature,
    log_loss,
    softmax,
)


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_generated_labels_is_found(true_temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (20000, 4)).astype(np.float32)
    p = softmax(logits.copy(), true_temperature)
    labels = (p.cumsum(axis=1) < rng.random((20000, 1))).sum(axis=1).clip(0, 3)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(true_temperature, rel=0.05)
    assert log_loss(logits, labels, found) <= log_loss(logits, labels, 1.0)


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    correct = np.array([True, True, True, False, True, False])
    expected = (4 * abs(0.75 - 0.95) + 2 * abs(0.5 - 0.55)) / 6
    assert calibration_error(confidence, correct) == pytest.approx(expected)


def test_energy_is_high_where_no_class_is_supported():
    logits = np.array([[8.0, 0, 0], [0, 0, 0], [-5.0, -5, -5]], np.float32)
    e = energy(logits)
    assert e[0] < e[1] < e[2]
    assert e[1] == pytest.approx(-np.log(3), abs=1e-5)
    assert energy_gate(np.arange(101, dtype=np.float32), 0.9) == pytest.approx(90)

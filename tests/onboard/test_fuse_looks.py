"""Fusion of looks: never surer than shared biases allow, and as sure as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onboard.fuse_looks import align_biases, fuse_looks, relative_covariance


def total(cov: np.ndarray, s: np.ndarray) -> np.ndarray:
    return cov + s @ s.T


def test_independent_looks_shrink_with_their_number() -> None:
    n = 9
    _, cov, s = fuse_looks(
        np.zeros((n, 2)), np.tile(np.eye(2) * 4.0, (n, 1, 1)), np.zeros((n, 2, 0))
    )
    assert np.allclose(cov, np.eye(2) * 4.0 / 9, rtol=1e-6)
    assert s.shape == (2, 0)


def test_ten_looks_on_one_line_stop_at_the_bias_and_opposite_lines_do_not() -> None:
    """Boresight pushes every look of one line the same way: 2 m stay 2 m; reversed, they cancel."""
    n = 10
    random = np.tile(np.eye(2), (n, 1, 1))
    same = np.tile([[2.0], [0.0]], (n, 1, 1))
    _, cov, s = fuse_looks(np.zeros((n, 2)), random, same)
    assert total(cov, s)[0, 0] == pytest.approx(4.0 + 0.1, rel=1e-6)
    opposite = same * np.where(np.arange(n) % 2, -1.0, 1.0)[:, None, None]
    _, cov, s = fuse_looks(np.zeros((n, 2)), random, opposite)
    assert total(cov, s)[0, 0] == pytest.approx(0.1, rel=1e-6)
    assert s[0, 0] == pytest.approx(0.0, abs=1e-9)


def test_two_looks_of_two_flights_share_only_what_they_share() -> None:
    names, s = align_biases(
        [("rig/a/boresight", "flight/1/east"), ("rig/a/boresight", "flight/2/east")],
        [np.array([[1.0, 2.0], [0, 0]]), np.array([[1.0, 2.0], [0, 0]])],
    )
    assert names == ("flight/1/east", "flight/2/east", "rig/a/boresight")
    _, cov, fused = fuse_looks(np.zeros((2, 2)), np.tile(np.eye(2) * 1e-6, (2, 1, 1)), s)
    # the rig's 1 m stays, the two flights' 2 m become 2/sqrt(2)
    assert total(cov, fused)[0, 0] == pytest.approx(1.0 + 2.0, rel=1e-4)


def test_shared_states_cancel_between_two_looks() -> None:
    s = np.array([[3.0, 0.0], [0.0, 3.0]])
    cov = relative_covariance(np.eye(2), s, np.eye(2), s)
    assert np.allclose(cov, 2 * np.eye(2))


def test_the_sharp_direction_of_each_look_counts() -> None:
    cov = np.array([np.diag([100.0, 0.01]), np.diag([0.01, 100.0])])
    xy, fused, _ = fuse_looks(np.array([[50.0, 1.0], [2.0, 50.0]]), cov, np.zeros((2, 2, 0)))
    assert np.allclose(xy, [2.0, 1.0], atol=0.02)
    assert np.allclose(np.diag(fused), 0.01, rtol=1e-3)


@st.composite
def looks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, k = draw(st.integers(1, 8)), draw(st.integers(0, 5))
    a = rng.normal(size=(n, 2, 2)) * 10 ** rng.uniform(-1, 1, (n, 1, 1))
    random = a @ np.swapaxes(a, 1, 2) + 0.01 * np.eye(2)
    return rng.normal(size=(n, 2)) * 10, random, rng.normal(size=(n, 2, k)) * rng.uniform(0, 3)


@settings(max_examples=150, deadline=None)
@given(looks())
def test_never_larger_than_the_best_look_and_never_smaller_than_theory(
    given_looks: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    xy, random, s = given_looks
    _, cov, fused = fuse_looks(xy, random, s)
    ours = total(cov, fused)
    for r, one in zip(random, s, strict=True):
        # smaller in every direction than each single look
        assert np.linalg.eigvalsh(total(r, one) - ours)[0] > -1e-6 * np.trace(ours)
    # theory: the inverse of the information of all looks with their full joint covariance
    n = len(xy)
    flat = s.reshape(2 * n, -1)
    v = flat @ flat.T
    for i in range(n):
        v[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] += random[i]
    h = np.tile(np.eye(2), (n, 1))
    assert np.allclose(ours, np.linalg.inv(h.T @ np.linalg.solve(v, h)), rtol=1e-4, atol=1e-6)
    # and it is not surer than if the biases were known
    known = np.linalg.inv(np.linalg.inv(random).sum(axis=0))
    assert np.linalg.eigvalsh(ours - known)[0] > -1e-6 * np.trace(ours)


def test_the_stated_covariance_is_the_real_one() -> None:
    rng = np.random.default_rng(11)
    random = np.array([np.diag([1.0, 2.0]), np.diag([0.5, 0.3]), np.diag([3.0, 1.0])])
    s = rng.normal(size=(3, 2, 2))
    trials = 20000
    b = rng.normal(size=(trials, 2))
    e = rng.normal(size=(trials, 3, 2)) * np.sqrt(np.diagonal(random, axis1=1, axis2=2))
    xy = e + np.einsum("nij,tj->tni", s, b)
    _, cov, fused = fuse_looks(xy[0], random, s)
    found = np.array([fuse_looks(one, random, s)[0] for one in xy[:4000]])
    assert np.allclose(np.cov(found.T), total(cov, fused), rtol=0.12, atol=0.03)


def test_no_looks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no looks"):
        fuse_looks(np.zeros((0, 2)), np.zeros((0, 2, 2)), np.zeros((0, 2, 0)))

"""learn/definite.py: systems whose matrix is symmetric and positive definite."""

from __future__ import annotations

import numpy as np
import pytest

from streampiped.aligned import aligned_empty
from streampiped.learn.definite import solved


def definite(width: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(3 * width, width))
    return np.asarray(rows.T @ rows / len(rows) + 1e-3 * np.eye(width))


@pytest.mark.parametrize("width", [1, 2, 17, 152])
@pytest.mark.parametrize("sides", [None, 1, 4])
def test_the_answer_is_that_of_a_solver_that_knows_nothing_of_the_matrix(width: int, sides: int | None) -> None:
    """Whatever the number of right sides, to 1e-9 of the largest; and nothing that was given is changed."""
    matrix = definite(width)
    right = np.random.default_rng(1).normal(size=width if sides is None else (width, sides))
    given = matrix.copy(), right.copy()
    answer = solved(matrix, right)
    wanted = np.linalg.solve(matrix, right)
    assert answer.shape == right.shape
    assert np.abs(answer - wanted).max() <= 1e-9 * np.abs(wanted).max()
    assert (matrix.tobytes(), right.tobytes()) == (given[0].tobytes(), given[1].tobytes())


def test_a_matrix_that_is_not_quite_definite_is_solved_all_the_same() -> None:
    """Rounding may leave a least eigenvalue below 0: no Cholesky factor, but an answer."""
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    np.testing.assert_allclose(solved(matrix, np.array([3.0, 3.0])), [1.0, 1.0])


def test_a_system_without_equations_has_an_empty_answer() -> None:
    """As numpy has it: a model without features."""
    assert solved(np.zeros((0, 0)), np.zeros(0)).shape == (0,)
    assert solved(np.zeros((0, 0)), np.zeros((0, 3))).shape == (0, 3)


def test_a_matrix_without_an_inverse_is_refused() -> None:
    """As numpy has it."""
    with pytest.raises(np.linalg.LinAlgError):
        solved(np.ones((2, 2)), np.array([1.0, 2.0]))


@pytest.mark.parametrize("width", [17, 152])
def test_the_bits_do_not_hang_on_where_arrays_lie(width: int) -> None:
    """The same numbers at any address, in either order, have the same answer to the last bit."""
    matrix, right = definite(width), np.random.default_rng(2).normal(size=width)
    wanted = solved(matrix, right).tobytes()
    for shift in range(1, 8):
        room = aligned_empty(matrix.size + 8, np.float64)[shift : shift + matrix.size].reshape(width, width)
        other = aligned_empty(width + 8, np.float64)[shift : shift + width]
        room[...], other[...] = matrix, right
        assert solved(room, other).tobytes() == wanted
        assert solved(np.asfortranarray(room), other).tobytes() == wanted

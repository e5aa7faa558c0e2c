"""Softmax at the edges: large values, masked elements and rows."""

from math import inf

import numpy as np

import dlcore as dl

MASKED = [[1.0, -inf, 1.0], [-inf, -inf, -inf]]


def test_large_values_do_not_overflow(device):
    y = dl.softmax(dl.tensor([1e30, 1e30, -1e30], device=device))
    np.testing.assert_array_equal(y.numpy(), [0.5, 0.5, 0])


def test_masked_elements_and_rows_get_probability_0(device):
    y = dl.softmax(dl.tensor(MASKED, device=device))
    np.testing.assert_array_equal(y.numpy(), [[0.5, 0, 0.5], [0, 0, 0]])


def test_masked_elements_and_rows_get_log_probability_minus_infinity(device):
    y = dl.log_softmax(dl.tensor(MASKED, device=device))
    np.testing.assert_allclose(y.numpy(), [[-np.log(2), -inf, -np.log(2)], [-inf] * 3], rtol=1e-6)


def test_gradient_of_masked_rows_is_0(device):
    x = dl.tensor(MASKED, requires_grad=True, device=device)
    (dl.softmax(x) * dl.tensor([1.0, 2.0, 3.0], device=device)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[-0.5, 0, 0.5], [0, 0, 0]], rtol=1e-6)

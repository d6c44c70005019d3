import numpy as np
import pytest

from thalnet_mtl.report.figures.readings import clipped, reading_images, slot_means


def test_an_image_runs_from_the_5th_to_the_95th_percentile():
    weight = np.arange(-20.0, 1.0).reshape(3, 7)  # |R| is 0 … 20: percentiles at 1 and 19
    image = clipped(weight)
    expected = [1, 1, 17 / 18, 16 / 18, 15 / 18, 14 / 18, 13 / 18]
    np.testing.assert_allclose(image[0], expected)
    assert image[2, -1] == image[2, -2] == 0 and image[2, -3] == pytest.approx(1 / 18)


def test_an_image_of_few_large_weights_shows_them():
    weight = np.zeros((10, 10))
    weight[3, 4] = -2.0
    assert clipped(weight).sum() == clipped(weight)[3, 4] == 1


def test_block_means_are_over_a_reader_and_a_slot():
    weights = {
        "input": np.array([[1.0, -3.0, 0.0, 0.0]]),
        "output": np.array([[2.0, 2.0, -5.0, 7.0]]),
    }
    slots = {"input": 2, "output": 2}
    np.testing.assert_array_equal(slot_means(weights, slots), [[2, 0], [2, 6]])
    slots = {"input": 1, "output": 3}
    np.testing.assert_array_equal(slot_means(weights, slots), [[1, 1], [2, 14 / 3]])


def test_images_have_room_for_the_long_names_of_copies():
    slots = {f"task{k}_task{k - 1}_task{k - 2}_low": 2 for k in range(20)}
    weights = {name: np.ones((3, 40)) for name in list(slots)[:8]}
    assert reading_images(weights, slots).startswith("data:image/png")  # a warning is an error

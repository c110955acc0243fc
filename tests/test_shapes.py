"""The set of shapes: the same pictures each time, with the shares and the noise it states."""

import numpy as np

from tests.shapes import CLASSES, LABEL_NOISE, SHARES, SIDE, main, make_shapes


def test_pictures_are_the_same_each_time_and_others_by_another_seed():
    pictures, labels = make_shapes(40, seed=3)
    again, labels_again = make_shapes(40, seed=3)
    others, _ = make_shapes(40, seed=4)

    assert pictures.shape == (40, SIDE, SIDE, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(pictures, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(pictures, others)


def test_labels_have_the_shares_and_the_noise():
    _, labels = make_shapes(2000, seed=0)

    # six in a hundred labels go to the other six classes alike
    num_others = len(CLASSES) - 1
    for label, share in enumerate(SHARES):
        expected = share * (1 - LABEL_NOISE) + (1 - share) * LABEL_NOISE / num_others
        standard_error = (expected * (1 - expected) / 2000) ** 0.5
        assert abs((labels == label).mean() - expected) < 4 * standard_error


def test_the_file_has_the_parts_asked_for(tmp_path, monkeypatch):
    path = tmp_path / "shapes.npz"
    monkeypatch.setattr("sys.argv", ["shapes.py", str(path), "--train", "6", "--test", "4"])

    main()

    with np.load(path) as arrays:
        sizes = {name: len(arrays[name]) for name in arrays.files}
        pictures, _ = make_shapes(10, seed=0)
        assert np.array_equal(arrays["x_test"], pictures[6:])
    assert sizes == {"x_train": 6, "y_train": 6, "x_test": 4, "y_test": 4}

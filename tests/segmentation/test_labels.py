from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from visionattn.segmentation.labels import check_labels, label_table, read_mask, resolve_label_map, to_labels


def naive_label(number: int, num_classes: int, reduce_zero_label: bool, label_map: dict[int, int]) -> int:
    """-1 where refused."""
    if number == 255:
        return label_map.get(255, 255) if not reduce_zero_label else 255
    if reduce_zero_label:
        if number == 0:
            return 255
        number -= 1
        if number >= 255:
            return -1
    label = label_map.get(number, number)
    return label if label < num_classes or label == 255 else -1


@pytest.mark.parametrize(
    ("num_classes", "reduce_zero_label", "label_map"),
    [
        (11, False, {11: 255}),
        (150, True, {}),
        (2, False, {0: 255, 1: 0, 2: 1, 3: 255}),
        (2, True, {0: 255, 1: 0, 2: 1, 3: 255}),
        (1, False, {}),
        (255, False, {}),
        (255, True, {}),
        (2, False, {255: 1}),
    ],
)
def test_table_is_the_rule_for_every_16_bit_number(num_classes, reduce_zero_label, label_map):
    table = label_table(num_classes, reduce_zero_label, tuple(label_map.items()))
    naive = [naive_label(number, num_classes, reduce_zero_label, label_map) for number in range(1 << 16)]
    np.testing.assert_array_equal(table, naive)


@pytest.mark.parametrize(("reduce_zero_label", "label_map"), [(False, {7: 255}), (True, {0: 255, 1: 0, 2: 1})])
def test_valid_masks_load_as_in_mmseg(tmp_path, reduce_zero_label, label_map):
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 3, 255], np.uint8), (19, 33))
    path = str(tmp_path / "mask.png")
    cv2.imwrite(path, mask)
    results = {
        "seg_map_path": path,
        "reduce_zero_label": reduce_zero_label,
        "label_map": label_map,
        "seg_fields": [],
    }
    mmseg = LoadAnnotations()(results)["gt_seg_map"]
    ours = to_labels(read_mask(path), label_table(4, reduce_zero_label, tuple(label_map.items())), path)
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, mmseg)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (11, np.uint8),
        (254, np.uint8),
        (300, np.uint16),
        (-1, np.int32),
        (-65535, np.int32),
        (65536 + 3, np.int32),
    ],
)
def test_number_outside_the_classes_is_refused_with_file_pixel_and_value(value, dtype):
    mask = np.zeros((5, 7), dtype)
    mask[3, 2] = mask[4, 0] = value
    with pytest.raises(ValueError, match=rf"^mask m\.png: row 3, column 2 holds {value}; allowed are") as error:
        to_labels(mask, label_table(11), "m.png")
    assert "0..10 or ignored 255" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_classes", [1, 19, 253, 254, 255])
@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_every_8_bit_number_is_loaded_or_refused_as_the_table_says(num_classes, reduce_zero_label):
    table = label_table(num_classes, reduce_zero_label, ((7, 255),))
    numbers = np.arange(256, dtype=np.uint8)
    known = numbers[table[:256] >= 0]
    labels = to_labels(known[None], table, "m.png")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[0], table[known])
    for number in numbers[table[:256] < 0]:
        mask = np.repeat(known[None], 2, axis=0)
        mask[1, 3 % len(known)] = number
        with pytest.raises(ValueError, match=rf"row 1, column {3 % len(known)} holds {number}; allowed"):
            to_labels(mask, table, "m.png")


def test_label_map_by_name_number_and_ignore():
    classes = ("ground", "person", "ignore me")
    assert resolve_label_map({0: "ignore", 255: "person", 7: 2, 300: 255}, classes) == {0: 255, 255: 1, 7: 2, 300: 255}
    assert resolve_label_map({"0": "ground"}, classes) == {0: 0}  # as a config that was written out has it
    assert resolve_label_map(None, classes) == {}
    assert resolve_label_map({3: "ignore"}, ("road", "ignore")) == {3: 1}  # a class of that name


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        ({255: "persn"}, "label_map sends 255 to 'persn', which is no class; did you mean 'person'"),
        ({255: "x"}, "label_map sends 255 to 'x', which is no class; the classes are ground, person"),
        ({255: "ignored"}, "to 'ignored', which is no class; did you mean 'ignore'"),
        ({4: 2}, r"label_map sends 4 to 2; it may send to a class's name, 0\.\.1, or \"ignore\" \(255\)"),
        ({4: -1}, "label_map sends 4 to -1"),
        ({4: True}, "label_map sends 4 to True"),
        ({4: None}, "label_map sends 4 to None"),
        ({-1: 0}, r"label_map has the key -1; a key is a number in the masks, 0 to 65535"),
        ({70000: 0}, "label_map has the key 70000"),
        ({"person": 0}, "label_map has the key 'person'"),
    ],
)
def test_label_map_that_means_nothing_is_refused(label_map, message):
    with pytest.raises(ValueError, match=message) as error:
        resolve_label_map(label_map, ("ground", "person"))
    assert "\n" not in str(error.value)


def test_message_lists_ignored_numbers_of_the_file():
    with pytest.raises(ValueError, match=r"allowed are 0\.\.10 or ignored 11, 255:"):
        to_labels(np.full((2, 2), 12), label_table(11, False, ((11, 255),)), "m.png")
    with pytest.raises(ValueError, match=r"allowed are 1\.\.150 or ignored 0, 255:"):
        to_labels(np.full((2, 2), 151), label_table(150, True), "m.png")


@pytest.mark.parametrize("num_classes", [0, 256])
def test_class_counts_that_8_bits_cannot_tell_apart_are_refused(num_classes):
    with pytest.raises(ValueError, match=f"^{num_classes} classes; masks can tell 1 to 255 apart"):
        label_table(num_classes)


def test_label_map_to_no_label_is_refused():
    with pytest.raises(ValueError, match=r"label_map sends 4 to 3; it may send to 0\.\.2 or 255"):
        label_table(3, False, ((4, 3),))


def test_masks_are_read_as_numbers_whatever_the_file_is(tmp_path):
    numbers = np.random.default_rng(2).integers(0, 2, (9, 13)).astype(np.uint8)
    palette = Image.fromarray(numbers, mode="P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "palette.png")
    Image.fromarray(numbers.astype(bool)).save(tmp_path / "one_bit.png")
    cv2.imwrite(str(tmp_path / "eight.png"), numbers)
    cv2.imwrite(str(tmp_path / "sixteen.png"), numbers.astype(np.uint16) * 300)
    for name, factor in (("palette", 1), ("one_bit", 1), ("eight", 1), ("sixteen", 300)):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), numbers.astype(np.int64) * factor)


@pytest.mark.parametrize("mode", ["L", "1", "P", "I;16"])
def test_mask_is_what_pillow_reads_whatever_was_done_to_the_file(tmp_path, mode):
    """OpenCV decodes some of the files: it must give the same numbers, and refuse no less."""
    rng = np.random.default_rng(4)
    numbers = rng.integers(0, 2, (40, 30)).astype(np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(numbers.astype(bool) if mode == "1" else numbers)
    if mode == "P":
        image.putpalette([9, 8, 7, 200, 100, 50])
    image.save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    np.testing.assert_array_equal(read_mask(tmp_path / "whole.png"), numbers)
    outcomes = set()
    for _ in range(120):
        damaged = bytearray(whole)
        damaged[rng.integers(8, len(whole))] ^= rng.integers(1, 256)
        path = tmp_path / "damaged.png"
        path.write_bytes(bytes(damaged) if rng.random() < 0.7 else whole[: rng.integers(1, len(whole))])
        try:
            with Image.open(path) as file:
                expected = np.asarray(file)
        except (OSError, SyntaxError, ValueError):
            expected = None
        try:
            found = read_mask(path)
        except ValueError:
            found = None
        outcomes.add(found is None)
        if expected is None:
            assert found is None
        elif found is not None:
            np.testing.assert_array_equal(found, expected)
    assert outcomes == {False, True}


def test_what_is_no_mask_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "colour.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"colour\.png has mode RGB; a mask is one channel"):
        read_mask(tmp_path / "colour.png")
    cv2.imwrite(str(tmp_path / "whole.png"), np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:900])
    with pytest.raises(ValueError, match=r"cut\.png cannot be decoded"):
        read_mask(tmp_path / "cut.png")
    with pytest.raises(FileNotFoundError, match=r"no mask .*gone\.png"):
        read_mask(tmp_path / "gone.png")


def pairs_of(folder):
    return [(str(folder / "images" / f"{stem}.jpg"), str(folder / "masks" / f"{stem}.png")) for stem in "abcd"]


def test_check_reads_every_mask(folder):
    check = check_labels(pairs_of(folder), label_table(3))
    assert (check.checked, check.total) == (4, 4)
    assert str(check) == "checked the labels and sizes of 4 of 4 masks"


def test_check_names_the_first_bad_file(folder):
    for stem in "cd":
        mask = read_mask(folder / "masks" / f"{stem}.png").copy()
        mask[7, 5] = 3
        cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask)
    with pytest.raises(ValueError, match=r"c\.png: row 7, column 5 holds 3; allowed are 0\.\.2 or ignored 255"):
        check_labels(pairs_of(folder), label_table(3))


def test_check_names_a_mask_of_another_size(folder):
    cv2.imwrite(str(folder / "masks" / "b.png"), np.zeros((31, 20), np.uint8))
    with pytest.raises(ValueError, match=r"b\.jpg is 20 x 31 \(height x width\) but its mask .*b\.png is 31 x 20"):
        check_labels(pairs_of(folder), label_table(3))


def test_check_counts_the_turn_that_exif_asks_for(folder):
    image = Image.open(folder / "images" / "b.jpg")
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(folder / "images" / "b.jpg", exif=exif)
    with pytest.raises(ValueError, match=r"b\.jpg is 31 x 20"):
        check_labels(pairs_of(folder), label_table(3))
    cv2.imwrite(str(folder / "masks" / "b.png"), np.zeros((31, 20), np.uint8))
    check_labels(pairs_of(folder), label_table(3))


def test_check_of_more_masks_than_the_limit_takes_evenly_spaced_ones(folder):
    cv2.imwrite(str(folder / "masks" / "b.png"), np.full((20, 31), 9, np.uint8))
    check = check_labels(pairs_of(folder), label_table(3), limit=3)  # a, c and d: 1.5 rounds to the even 2
    assert str(check) == "checked the labels and sizes of 3 of 4 masks, evenly spaced"
    cv2.imwrite(str(folder / "masks" / "d.png"), np.full((20, 31), 9, np.uint8))
    with pytest.raises(ValueError, match=r"d\.png: row 0, column 0 holds 9"):
        check_labels(pairs_of(folder), label_table(3), limit=2)

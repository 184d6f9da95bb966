import colorsys

import numpy as np
import pytest
from PIL import Image

from dogs_accel.datasets.cartoon import COATS, MAX_BREEDS, draw_animal, make_breeds
from dogs_accel.datasets.layouts.class_folders import class_names


@pytest.mark.parametrize("num_breeds", [1, 2, 12, 37, MAX_BREEDS])
def test_breeds_are_distinct_by_name_and_by_looks(num_breeds: int) -> None:
    breeds = make_breeds(num_breeds)
    assert len({breed.name for breed in breeds}) == num_breeds
    assert len({(breed.coat, breed.pattern, breed.ears) for breed in breeds}) == num_breeds


def test_twelve_breeds_are_six_pairs_of_one_coat_colour() -> None:
    breeds = make_breeds(12)
    assert [breed.coat for breed in breeds[::2]] == [breed.coat for breed in breeds[1::2]] == list(COATS.values())[:6]
    assert all(one.pattern != other.pattern for one, other in zip(breeds[::2], breeds[1::2], strict=True))


def test_names_exercise_dashes_and_underscores() -> None:
    names = [breed.name for breed in make_breeds(12)]
    assert class_names([f"n90000002-{names[1]}"]) == ["Amber-and-white snorfle"]
    assert any(name.startswith("Saddle-backed_") for name in names)


@pytest.mark.parametrize("num_breeds", [0, MAX_BREEDS + 1])
def test_number_of_breeds_is_limited(num_breeds: int) -> None:
    with pytest.raises(ValueError, match=rf"num_breeds: got {num_breeds}, expected an integer in 1\.\.120"):
        make_breeds(num_breeds)


def test_a_picture_follows_from_its_seed() -> None:
    breed = make_breeds(12)[3]
    (first, box), (again, box_again), (other, _) = (
        draw_animal(breed, (80, 60), np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first.size == (80, 60)
    assert (first.tobytes(), box) == (again.tobytes(), box_again)
    assert first.tobytes() != other.tobytes()


def test_box_holds_the_animal_and_lies_in_the_picture() -> None:
    # Plain amber on backgrounds of low saturation: the saturated yellow pixels are the animal's.
    breed = make_breeds(12)[0]
    inside_share = []
    for seed in range(12):
        image, (xmin, ymin, xmax, ymax) = draw_animal(breed, (120, 90), np.random.default_rng(seed))
        assert 0 <= xmin < xmax <= 120
        assert 0 <= ymin < ymax <= 90
        hsv = np.asarray(image.convert("HSV")).astype(int)
        amber = (abs(hsv[:, :, 0] - 26) < 10) & (hsv[:, :, 1] > 170)
        inside_share.append(amber[ymin:ymax, xmin:xmax].sum() / max(1, amber.sum()))
        columns = np.flatnonzero(amber.sum(0) > 3)
        assert xmin - 2 <= columns.min()
        assert columns.max() <= xmax + 2
    assert np.mean(inside_share) > 0.98


def test_coat_colour_shows_in_the_middle_of_the_box() -> None:
    hues = []
    for breed in make_breeds(12)[0], make_breeds(12)[2], make_breeds(12)[10]:
        pixels = []
        for seed in range(20):
            image, (xmin, ymin, xmax, ymax) = draw_animal(breed, (96, 72), np.random.default_rng(seed))
            middle = image.crop((xmin, ymin, xmax, ymax)).resize((3, 3), Image.Resampling.BOX)
            pixels.append(middle.getpixel((1, 1)))
        red, green, blue = np.median(np.array(pixels), 0) / 255
        hues.append(colorsys.rgb_to_hsv(red, green, blue)[0] * 360)
    amber, slate, rosy = hues
    assert 25 < amber < 50
    assert 195 < slate < 245
    assert rosy > 340 or rosy < 20

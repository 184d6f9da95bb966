"""The explorer of mistakes in a real browser."""

import shutil
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest

from dogs_accel.report.explorer.page import write_explorer
from dogs_accel.results.folder import read_runs_folder
from dogs_accel.runtime.files import read_json
from tests.support.finished_folders import PLAIN, write_folder

pytestmark = pytest.mark.slow
FULL, STAGED, VIT = "ResNet-50, full", "ResNet-50, staged", "ViT-B/16, full"


def write_page(folder):
    return write_explorer([read_runs_folder(folder)], folder / "explorer.html", "title", "report.html")[0]


@pytest.fixture(scope="module")
def explorer(full_folder, dogs_root, tmp_path_factory):
    """Of 40 test images, 20 of which have a picture."""
    folder = Path(shutil.copytree(full_folder, tmp_path_factory.mktemp("explorer") / "run"))
    metadata = pd.read_csv(folder / "metadata_with_quality.csv", keep_default_na=False)
    photos = sorted(map(str, dogs_root.rglob("*.jpg")))[:20]
    metadata.loc[metadata.index[metadata["official_split"] == "official_test"][:20], "image_path"] = photos
    metadata.to_csv(folder / "metadata_with_quality.csv", index=False)
    return write_page(folder)


@pytest.fixture(scope="module")
def tests(explorer):
    """What each run answers, by its label: (true, predicted, confidence)."""
    answers = [run.predictions("test") for run in read_runs_folder(explorer.parent).runs]
    labels = [FULL, STAGED, VIT, "ViT-B/16, staged"]
    return {name: (each.labels, each.predicted, each.confidence) for name, each in zip(labels, answers, strict=True)}


def choose(page, name, option):
    page.get_by_label(name, exact=True).select_option(label=option)


def followed(page, name, value):
    """A link or the way back has been followed, which a browser does a moment after it was asked to."""
    label = page.get_by_label(name, exact=True)
    label.page.wait_for_function("([each, value]) => each.value === value", arg=[label.element_handle(), value])
    return page


def shown(page):
    return int(page.locator("#count").inner_text().split(" of ")[0])


def test_choices_change_what_is_seen(explorer, tests, open_page):
    page = open_page(explorer)
    true, first, confidence = tests[FULL]
    other, vit = tests[STAGED][1], tests[VIT][1]
    names = read_runs_folder(explorer.parent).class_names
    assert shown(page) == (true != first).sum() == page.locator("#shots > li").count()
    said = page.locator("#shots .num").all_inner_texts()
    assert said == [f"{100 * each:.1f} %" for each in sorted(confidence[true != first], reverse=True)]
    choose(page, "Run", VIT)
    assert shown(page) == (true != vit).sum()
    choose(page, "Run", FULL)
    choose(page, "Compared with", STAGED)
    choose(page, "Show", "wrong, and right in the other run")
    assert shown(page) == ((true != first) & (true == other)).sum() < (true != first).sum()
    choose(page, "Run", VIT)
    assert shown(page) == ((true != vit) & (true == other)).sum()
    choose(page, "Show", "the same mistake in both runs")
    assert shown(page) == ((true != vit) & (vit == other)).sum()
    choose(page, "Show", "answered differently by the runs")
    assert shown(page) == (vit != other).sum()
    counts = page.locator("#tables table").first.locator("td").all_inner_texts()
    cross = [[((true == vit) == a) & ((true == other) == b) for b in (True, False)] for a in (True, False)]
    numbers = np.array([[cell.sum() for cell in row] for row in cross])
    expected = np.block([[numbers, numbers.sum(1, keepdims=True)], [numbers.sum(0), numbers.sum()]])
    assert counts == [str(each) for each in expected.ravel()]
    page.locator("#tables table").first.locator("td a").nth(1).click()
    assert shown(followed(page, "Show", "right-wrong")) == numbers[0, 1]
    choose(page, "Compared with", "no other run")
    choose(page, "True breed", names[4])
    choose(page, "Answer", names[0])
    choose(page, "Show", "right and wrong")
    assert shown(page) == ((true == 4) & (vit == 0)).sum() > 0
    page.get_by_label("and the other way round").check()
    assert shown(page) == (((true == 4) & (vit == 0)) | ((true == 0) & (vit == 4))).sum()
    choose(page, "Run", FULL)
    choose(page, "True breed", names[1])
    choose(page, "Answer", "any breed")
    assert shown(page) == ((true == 1) | (first == 1)).sum() > (true == 1).sum()
    page.get_by_role("link", name="Start anew").click()
    assert shown(followed(page, "Show", "wrong")) == (true != first).sum()
    choose(page, "Show", "right and wrong")
    slider = page.get_by_label("Confidence of the run, at least")
    slider.evaluate("each => { each.value = 95; each.dispatchEvent(new Event('change', { bubbles: true })); }")
    assert shown(page) == (confidence >= 0.95).sum() < 40
    choose(page, "Only images that are", "of the darkest tenth")
    metadata = pd.read_csv(explorer.parent / "metadata_with_quality.csv", keep_default_na=False).set_index("image_id")
    brightness = metadata["brightness_mean"].loc[read_runs_folder(explorer.parent).runs[0].predictions("test").ids]
    darkest = brightness.to_numpy() <= np.sort(brightness.to_numpy())[3]
    assert shown(page) == ((confidence >= 0.95) & darkest).sum()
    assert page.problems == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "data"}
    assert [url for url in page.requests if url.startswith("file")] == [explorer.as_uri()]


def test_a_question_is_a_link(explorer, tests, open_page):
    page = open_page(explorer)
    choose(page, "Run", VIT)
    choose(page, "True breed", "<script>alert(1)</script>")
    choose(page, "Order", "greyest first")
    fragment = page.evaluate("location.hash")
    assert parse_qs(fragment[1:]) == {
        "run": [VIT], "true": ["<script>alert(1)</script>"], "order": ["saturation-up"],
    }  # fmt: skip
    again = open_page(explorer, fragment)
    assert again.locator("#count").inner_text() == page.locator("#count").inner_text()
    assert again.get_by_label("Run", exact=True).evaluate("each => each.selectedOptions[0].text") == VIT
    page.go_back()
    followed(page, "Order", "confident")
    lost = open_page(explorer, "#run=ResNet-152&show=wrong&answer=NA")
    assert "run “ResNet-152”" in lost.locator("#unknown").inner_text()
    true, first, _ = tests[FULL]
    assert shown(lost) == ((true != first) & (first == 1)).sum()


def test_it_is_used_by_keyboard_and_says_what_it_shows(explorer, tests, open_page):
    page = open_page(explorer, "#run=ResNet-50%2C+full&show=all&order=class", viewport={"width": 1280, "height": 900})
    assert (
        page.locator("#found").get_by_role("status").inner_text().startswith("40 of 40 test images; ResNet-50, full: ")
    )
    assert "20 pictures are missing" in page.locator("#found").get_by_role("status").inner_text()
    assert page.locator(".gone").count() == 20
    broken = "all => all.filter(each => each.complete && !each.naturalWidth).length"
    assert page.eval_on_selector_all("#shots img", broken) == 0
    true, first, confidence = tests[FULL]
    alt = page.locator("#shots img").first.get_attribute("alt")
    assert alt.startswith("Chihuahua: ResNet-50, full says ")
    button = page.locator("#shots button").first
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading", level=2).inner_text() == "Chihuahua, n000_test0"
    assert dialog.locator(".runs .card").count() == 4
    assert dialog.get_by_role("button", name="Previous").is_disabled()
    # Two keys that the browser has before it says that the address changed.
    key = "new KeyboardEvent('keydown', { key: 'ArrowRight' })"
    dialog.evaluate(f"each => [{key}, {key}].map(each.dispatchEvent, each)")
    assert dialog.get_by_role("heading", level=2).inner_text() == "Chihuahua, n000_test2"
    page.keyboard.press("ArrowLeft")
    assert dialog.get_by_role("heading", level=2).inner_text() == "Chihuahua, n000_test1"
    assert "image=n000_test1" in page.evaluate("location.hash")
    own = dialog.locator(".runs .card").first
    at = np.flatnonzero(true == 0)[1]
    assert own.locator("p").first.inner_text().startswith("Right." if first[at] == 0 else "Wrong.")
    assert own.locator("li .num").first.inner_text() == f"{100 * confidence[at]:.1f} %"
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.dataset.image === '1'")
    assert not dialog.is_visible()
    assert "image=" not in page.evaluate("location.hash")
    assert (
        page.locator("#look-said").inner_text().startswith("No feature maps of ResNet-50, full, ResNet-50, staged, V")
    )
    assert not page.locator("#look").is_visible()
    nameless = (
        "all => all.filter(each => !each.labels?.length && !each.textContent.trim() && !each.querySelector('img')?.alt)"
    )
    assert page.eval_on_selector_all("a, button, input, select", f"{nameless.strip()}.length") == 0
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    assert page.problems == []


def test_feature_maps_are_those_of_run_stage_and_image_that_are_chosen(tiny_results, open_page, violations):
    path = tiny_results / "cnn" / "resnet18_full" / "feature_maps.json"
    content = read_json(path)
    name, image = content["stages"][-1]["name"], content["images"][2]["id"]
    page = open_page(tiny_results / "explorer.html", "#show=all")
    options = page.get_by_label("Stage").locator("option").all_inner_texts()
    assert [text.partition(":")[0] for text in options] == [stage["name"] for stage in content["stages"]]
    choose(page, "Stage", options[-1])
    choose(page, "Image", f"{content['images'][2]['true_class']}, {image}")
    assert page.locator("#look-said").inner_text().startswith(f"{name} of ResNet-18, full on {image}.")
    assert "Dark is the mean of a channel over a sample" in page.locator("#look-said").inner_text()
    expected = [each["channel"] for each in content["stages"][-1]["active"][2]]
    alts = page.locator("#look-maps ul").first.locator(".over img").evaluate_all("all => all.map(each => each.alt)")
    assert alts == [f"Channel {channel} of {name} on {image}" for channel in expected]
    assert parse_qs(page.evaluate("location.hash.slice(1)")) == {
        "run": ["ResNet-18, full"], "show": ["all"], "look": ["ResNet-18, full"], "stage": [name], "of": [image],
    }  # fmt: skip
    # The third row of the picture of the stage, over the third crop.
    places = "all => all.map(each => [each.style.left, each.style.top])"
    crop, over = page.locator("#look-maps .crop").nth(1).locator("img").evaluate_all(places)
    assert (crop, over) == (["-200%", "0%"], ["-100%", "-200%"])
    slider = page.get_by_label("How much of the map is seen")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".over").first.evaluate("each => getComputedStyle(each).opacity") == "0"
    assert violations(page) == []
    again = open_page(tiny_results / "explorer.html", page.evaluate("location.hash"))
    assert again.get_by_label("Stage").input_value() == name
    seen = open_page(tiny_results / "explorer.html", f"#show=all&image={image}")
    assert seen.locator("#detail").is_visible()
    assert violations(seen) == []
    seen.get_by_role("link", name="Its feature maps in ResNet-18, full").click()
    seen.wait_for_function("document.activeElement.id === 'inside-title'")
    assert not seen.locator("#detail").is_visible()
    assert seen.get_by_label("Image", exact=True).evaluate("each => each.selectedOptions[0].text").endswith(image)
    assert page.problems + again.problems + seen.problems == []


def test_long_names_and_many_images_stay_in_the_page(tmp_path, open_page):
    names = ["a_very_long_name_of_a_class_without_a_single_space_in_it", "<b>", *(f"class {each}" for each in range(8))]
    folder = write_folder(tmp_path / "plain", names, ("resnet50_full",), facts=PLAIN)
    page = open_page(write_page(folder), "#show=all&image=n000_test0", viewport={"width": 390, "height": 844})
    dialog = page.locator("#detail")
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert dialog.evaluate("each => each.scrollWidth - each.clientWidth") <= 0
    page.keyboard.press("Escape")
    assert page.locator("#shots > li").count() == 48
    page.get_by_role("button", name="Show the other 32", exact=True).press("Enter")
    assert page.locator("#shots > li").count() == 80
    assert page.evaluate("document.activeElement === document.querySelectorAll('#shots button')[48]")
    assert page.get_by_label("Compared with").is_disabled()


def test_without_a_mistake_there_is_nothing_and_it_says_so(tmp_path, open_page):
    folder = write_folder(tmp_path / "right", ["fox", "owl"], ("resnet18_full",), facts=PLAIN, share_right=1.1)
    page = open_page(write_page(folder))
    assert page.locator("#count").inner_text() == "0 of 16 test images; ResNet-18, full: 0 wrong, 0 right."
    assert page.locator("#shots > li").count() == 0
    choose(page, "Show", "right")
    assert shown(page) == 16
    assert page.problems == []

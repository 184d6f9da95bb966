"""The report in a real browser."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dogs_accel.evaluation.mistakes import most_confused
from dogs_accel.report.formats import ABSENT
from dogs_accel.report.page import write_comparison_report, write_report
from dogs_accel.results.folder import read_runs_folder
from tests.support.finished_folders import PLAIN, write_folder

pytestmark = pytest.mark.slow
BREEDS = [f"breed {number}" for number in range(6)]


@pytest.fixture(scope="module")
def report(large_folder, tmp_path_factory):
    folder = Path(shutil.copytree(large_folder, tmp_path_factory.mktemp("report") / "run"))
    return write_report(read_runs_folder(folder))


def column(page, table, index):
    return page.eval_on_selector_all(f"{table} tbody tr", f"rows => rows.map(row => row.cells[{index}].dataset.v)")


@pytest.mark.fault("Scores and figures", "a report opened without a network", "whole: it asks no server for anything")
def test_it_opens_without_errors_and_without_a_network(report, open_page):
    page = open_page(report)
    page.wait_for_timeout(200)
    assert page.problems == []
    assert {url.split(":")[0] for url in page.requests} <= {"file", "data"}
    assert [url for url in page.requests if url.startswith("file")] == [report.as_uri()]
    assert page.title() == "ResNet-50 against ViT-B/16 on Stanford Dogs"
    broken = "images => images.filter(image => image.complete && !image.naturalWidth && image.src).length"
    assert page.eval_on_selector_all("img", broken) == 0


def test_tables_sort_by_click_and_by_keyboard(report, open_page):
    page = open_page(report)
    accuracy = page.locator("#models th", has_text="Accuracy")
    accuracy.get_by_role("button").click()
    values = [float(value) for value in column(page, "#models", 1)]
    assert accuracy.get_attribute("aria-sort") == "descending"
    assert values == sorted(values, reverse=True)
    accuracy.get_by_role("button").press("Enter")
    assert accuracy.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in column(page, "#models", 1)] == sorted(values)
    page.locator("#models th", has_text="Run").get_by_role("button").press("Space")
    assert column(page, "#models", 0) == sorted(column(page, "#models", 0))
    assert page.locator("#models th[aria-sort]").count() == 1


def test_the_best_is_marked_beside_the_number_by_which_its_column_sorts(report, open_page):
    page = open_page(report)
    header = page.locator("#models th", has_text="Parameters")
    header.get_by_role("button").press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    marked = "rows => rows.map(row => [row.cells[5].dataset.v, !!row.cells[5].querySelector('.star')])"
    rows = page.eval_on_selector_all("#models tbody tr", marked)
    small, large = "23753912", "85890936"
    assert rows == [[small, True], [small, True], [large, False], [large, False]]
    assert page.locator("#models .star").first.get_attribute("aria-label").startswith("best: lowest")
    box = page.locator("#models .star").first.bounding_box()
    assert (box["width"], box["height"]) == (11, 11)


def test_the_matrix_is_that_of_the_run_that_is_chosen(report, open_page):
    runs = read_runs_folder(report.parent).runs
    page = open_page(report, viewport={"width": 390, "height": 844})
    read = """table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent))"""
    seen = set()
    for index, run in enumerate(runs):
        page.locator("#explorer select").select_option(index=index)
        header, *rows = page.locator(".matrix table").evaluate(read)
        labels = most_confused(run.confusion, 40)
        names = [run.class_names[label] for label in labels]
        assert header == ["true breed ↓ answer →", *names, "80 others"]
        assert [row[0] for row in rows] == names
        shown = run.confusion[np.ix_(labels, labels)]
        assert [[int(text) for text in row[1:-1]] for row in rows] == shown.tolist()
        others = run.confusion[labels].sum(axis=1) - shown.sum(axis=1)
        assert [int(row[-1] or 0) for row in rows] == others.tolist()
        mistakes = len(run.predictions("test").labels) - run.confusion.trace()
        note = page.locator("#matrix-note").inner_text()
        assert "The 40 of 120 breeds with the most mistakes between them; 80 are left out." in note
        assert f"{shown.sum() - shown.trace()} of the {mistakes} mistakes are in this part." in note
        assert f"{run.family}/{run.name}/confusion_matrix_counts.png" in note
        assert page.locator("#matrix-title").inner_text().startswith(f"Confusion matrix: {run.model}, ")
        seen.add(note)
    assert len(seen) > 1
    assert page.problems == []
    # The class that is looked at stands out in it, and it alone.
    page.locator("#explorer .names button", has_text=names[3]).first.click()
    assert set(page.locator(".matrix .chosen").all_inner_texts()) <= {names[3]}
    assert page.locator(".matrix .chosen").count() == 2


def test_the_explorer_finds_a_class_and_what_it_is_mistaken_for(report, open_page):
    page = open_page(report)
    explorer = page.locator("#explorer")
    explorer.locator("input").fill("breed 07")
    assert explorer.locator(".names li:visible").count() == 10
    explorer.locator("input").fill("breed 077")
    explorer.locator(".names li:visible button").click()
    assert explorer.locator("h4").inner_text() == "breed 077"
    # The logits are made so that a mistaken breed is taken for the next one.
    found = explorer.locator(".found").inner_text()
    assert "breed 077 is mistaken for" in found
    explorer.locator("input").fill("nothing like this")
    assert explorer.locator("output").inner_text() == "no breed of that name"


def percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else ABSENT


def test_the_explorer_has_the_counts_of_the_run_that_is_chosen(report, open_page):
    runs = read_runs_folder(report.parent).runs
    right = np.array([run.confusion.diagonal() for run in runs])
    label = int(np.ptp(right, axis=0).argmax())
    assert len(set(right[:, label])) > 1
    page = open_page(report)
    explorer = page.locator("#explorer")
    explorer.locator(f"button[data-label='{label}']").click()
    name = explorer.locator("h4").inner_text()
    assert name == runs[0].class_names[label]
    for index, run in enumerate(runs):
        explorer.locator("select").select_option(index=index)
        assert explorer.locator("h4").inner_text() == name
        own, called = run.confusion[label], run.confusion[:, label]
        assert explorer.locator(".found > p").first.inner_text() == (
            f"{own[label]} of its {own.sum()} test images are recognised ({percent(own[label], own.sum())}); "
            f"{own[label]} of {called.sum()} images called {name} are ({percent(own[label], called.sum())})."
        )
        # Classes that it is mistaken for, then those that are mistaken for it.
        others = [np.flatnonzero(counts) for counts in (own, called)]
        expected = [run.class_names[other] for found in others for other in found if other != label]
        assert sorted(explorer.locator(".hits button").all_inner_texts()) == sorted(expected)


def test_the_explorer_follows_a_mistake_to_the_other_class(report, open_page):
    page = open_page(report)
    first = page.locator("#explorer .hits button").first
    name = first.inner_text()
    first.click()
    assert page.locator("#explorer h4").inner_text() == name
    assert page.locator("#explorer .names button[aria-pressed=true]").count() == 1


def test_claims_filter_by_verdict(report, open_page):
    page = open_page(report)
    page.get_by_role("button", name="not measured").click()
    chips = page.locator("#claims tbody tr:visible .chip").all_inner_texts()
    assert set(chips) == {"not measured"}


@pytest.mark.fault(
    "Folders and names", "class names with HTML or a script", "text in the report, in a real browser too"
)
def test_names_are_text(report, open_page):
    page = open_page(report)
    assert page.title() != "broken"
    page.locator("#explorer input").fill("<script>")
    assert page.locator("#explorer .names li:visible").count() == 1


def test_dark_by_preference_and_by_choice(report, open_page):
    background = "getComputedStyle(document.body).backgroundColor"
    light, dark = (open_page(report, color_scheme=scheme) for scheme in ("light", "dark"))
    assert light.evaluate(background) == "rgb(250, 249, 246)"
    assert dark.evaluate(background) == "rgb(18, 21, 26)"
    dark.get_by_role("button", name="Light", exact=True).click()
    assert dark.evaluate(background) == "rgb(250, 249, 246)"
    light.get_by_role("button", name="Dark", exact=True).click()
    assert light.evaluate(background) == "rgb(18, 21, 26)"


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_never_scrolls_sideways(report, open_page, width):
    page = open_page(report, viewport={"width": width, "height": 844})
    page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_verdict_on_a_published_figure_is_seen_without_scrolling(report, open_page):
    page = open_page(report, viewport={"width": 1280, "height": 900})
    box = page.locator("#claims .scroll")
    assert "full_finetune(8, 0.0001)" in box.inner_text()
    assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 0


def test_long_names_of_runs_stay_in_their_cells_and_axe_finds_nothing(tmp_path, open_page, violations):
    folder = write_folder(tmp_path / "run", BREEDS, ("resnet50_full", "resnet50_staged", "vit_b16_full"))
    for path in folder.glob("*/*/*_run_metadata.json"):
        path.write_text(path.read_text().replace('"ResNet-50"', '"deit3_small_distilled_patch16_224"'))
    page = open_page(write_report(read_runs_folder(folder)), viewport={"width": 390, "height": 844})
    overflows = "all => all.filter(each => each.scrollWidth > each.clientWidth + 1).map(each => each.textContent)"
    assert page.eval_on_selector_all("#models th, #costs th, .class-table th", overflows) == []
    assert violations(page) == []


def test_a_picture_opens_and_closes(report, open_page):
    page = open_page(report)
    page.locator("button.zoom").first.click()
    assert page.locator("#zoomed").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#zoomed").is_visible()


def test_on_paper_everything_is_open_and_light(report, open_page):
    page = open_page(report, color_scheme="dark")
    assert page.pdf(format="A4")[:5] == b"%PDF-"
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".rail").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 with margins of 1 cm, in CSS px
    assert page.evaluate("document.documentElement.scrollWidth") <= 718


def test_several_folders_in_one_page(report, open_page, tmp_path):
    other = write_folder(tmp_path / "another", BREEDS, ("resnet18_full",))
    folders = [read_runs_folder(each) for each in (report.parent, other)]
    both = write_comparison_report(folders, tmp_path / "both.html")
    page = open_page(both, viewport={"width": 390, "height": 844})
    assert page.problems == []
    assert page.locator("#models tbody tr").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_names_sort_as_names_and_find_what_they_are_mistaken_for(tmp_path, open_page):
    """Numbers in names count as numbers; what looks like one, or like nothing, is still a name."""
    names = ["10", "9", "NA", "1e3", ABSENT, "accuracy", "2"]
    folder = write_folder(tmp_path / "plain", names, ("resnet50_full",), facts=PLAIN)
    page = open_page(write_report(read_runs_folder(folder)))
    assert page.problems == []
    shown = "rows => rows.map(row => row.cells[0].textContent)"
    rows = "#classes-1 tbody tr"
    assert page.eval_on_selector_all(rows, shown) == names
    sort = page.locator("#classes-1 th button.sort").first
    sort.click()
    up = page.eval_on_selector_all(rows, shown)
    assert up == [ABSENT, "1e3", "2", "9", "10", "accuracy", "NA"]
    sort.click()
    assert page.eval_on_selector_all(rows, shown) == up[::-1]
    assert sorted(
        page.locator("#explorer .names button").evaluate_all("all => all.map(each => each.firstChild.textContent)")
    ) == (sorted(names))
    assert page.locator("#explorer output").inner_text() == "7 of 7 classes, the most mistaken first"
    assert page.locator("#claims").count() == 0
    assert page.get_by_role("link", name="Published figures").count() == 0

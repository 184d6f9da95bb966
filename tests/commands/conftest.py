"""A real browser, for the tests of pages."""

import shutil

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    pages = []

    def open_page(path, fragment="", **options):
        page = browser.new_page(**options)
        pages.append(page)
        page.problems, page.requests = [], []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.requests.append(request.url))
        page.goto(path.as_uri() + fragment)
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def violations():
    """Name what axe-core finds wrong on a page with all of its details open, in light and, of colours, in dark too."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    few_rows = {"exclude": [["tbody tr:nth-child(n + 5)"]]}  # the others are like them, and take most of the time

    def violations(page):
        page.eval_on_selector_all("details", "all => all.forEach(each => { each.open = true; })")
        # The page follows what changed its size within two frames.
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = []
        for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)
            for rule in axe.run(page, few_rows, options).response["violations"]:
                found += [(scheme, rule["id"], node["html"]) for node in rule["nodes"]]
        page.emulate_media(color_scheme="light")
        return found

    return violations

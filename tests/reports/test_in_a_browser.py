"""The pages in headless Chromium: they load without errors and network, filter, sort, zoom, answer a click, and print."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from report_folders import ODD_NAME

from elastune.experiments.reports.page import Heading, Page, PageSection, PageTable, numbers, rendered

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
)  # fmt: skip
KINDS = ("run", "sweep", "comparison", "choice")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("Chromium or its driver is not installed (Debian: chromium, chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, made):
    """Opens the page of a kind; what the browser logged before is gone."""

    def opened(kind):
        for log in ("browser", "performance"):
            browser.get_log(log)
        browser.get(made.pages[kind].as_uri())
        assert browser.execute_script("return document.body.dataset.ready") == "yes"
        return browser

    return opened


def block_titled(browser, title):
    """The element of a table or figure."""
    [block] = [
        one
        for one in browser.find_elements("css selector", ".block")
        if one.find_element("tag name", "h3").text == title
    ]
    return block


def bring_into_view(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_loads_without_errors_and_without_network(opened, kind):
    browser = opened(kind)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        one["params"]["request"]["url"].split(":")[0]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    }
    assert "file" in asked
    assert asked <= {"file", "data", "blob"}
    assert browser.execute_script("return window.hacked") is None
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.drawn')].map((place) => place.children.length)"
    )
    assert drawn
    assert all(drawn)


def test_names_of_users_are_shown_as_they_are(opened):
    browser = opened("run")
    assert ODD_NAME in block_titled(browser, "Trials, by their last score").text


def test_a_filter_filters_the_rows_and_the_figure_below(opened):
    browser = opened("sweep")
    block, figure = block_titled(browser, "Runs"), block_titled(browser, "Runs, drawn")

    def counted():
        traces = browser.execute_script(
            "return arguments[0].querySelector('.plot').data.map((one) => one.name)", figure
        )
        return block.find_element("css selector", ".count").text, traces

    assert counted() == ("27 rows; the first 10 are shown", ["asha-fixed-naive", "seer", "sha-fixed"])
    block.find_element("css selector", "[aria-label='filter policy']").send_keys("SEER")
    assert counted() == ("9 of 27 rows match", ["seer"])
    assert {row.text.split()[0] for row in block.find_elements("css selector", "tbody tr")} == {"seer"}
    limit = block.find_element("css selector", "[aria-label='filter job.deadline_s']")
    limit.send_keys(">= 300")
    assert counted()[0] == "6 of 27 rows match"
    limit.send_keys("x")
    assert "wrong" in limit.get_attribute("class")
    assert counted()[0] == "9 of 27 rows match"


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(opened):
    browser = opened("sweep")
    block = block_titled(browser, "Runs")
    heads = block.find_elements("css selector", "thead tr:first-child th")
    place = [head.text for head in heads].index("cost_usd")
    button = heads[place].find_element("tag name", "button")
    bring_into_view(browser, button)
    for order, is_down in (("descending", True), ("ascending", False)):
        button.click()
        assert heads[place].get_attribute("aria-sort") == order
        costs = [
            float(row.find_elements("tag name", "td")[place].text)
            for row in block.find_elements("css selector", "tbody tr")
        ]
        assert costs == sorted(costs, reverse=is_down)
        assert len(set(costs)) > 1


def test_a_drag_zooms_the_timeline(opened):
    from selenium.webdriver import ActionChains

    browser = opened("run")
    figure = block_titled(browser, "Machines, trials and decisions").find_element("css selector", ".plot")
    bring_into_view(browser, figure)
    limits = "return arguments[0]._fullLayout.xaxis.range"
    before = browser.execute_script(limits, figure)
    layer = figure.find_element("css selector", ".draglayer .xy .nsewdrag")
    ActionChains(browser).move_to_element_with_offset(layer, -100, 0).click_and_hold().move_by_offset(
        200, 0
    ).release().perform()
    after = browser.execute_script(limits, figure)
    assert after[1] - after[0] < 0.5 * (before[1] - before[0])


def test_a_click_on_a_decision_shows_its_reason(opened):
    from selenium.webdriver import ActionChains

    browser = opened("run")
    block = block_titled(browser, "Machines, trials and decisions")
    bring_into_view(browser, block.find_element("css selector", ".plot"))
    panel = block.find_element("css selector", ".detail")
    assert panel.text.startswith("Click a mark")
    mark = block.find_element("css selector", ".xy2 .scatterlayer .trace:last-child .points path")
    ActionChains(browser).move_to_element(mark).pause(0.2).click().perform()
    assert "end the run, with trial" in panel.text
    assert "because" in panel.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_prints(opened, kind):
    printed = base64.b64decode(opened(kind).print_page())
    assert printed.startswith(b"%PDF-")
    assert len(printed) > 10_000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1280, 800])
def test_no_page_is_wider_than_the_window(browser, opened, kind, width):
    browser.set_window_size(width, 1000)
    try:
        opened(kind)
        wide, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    finally:
        browser.set_window_size(1280, 1000)
    assert abs(window - width) < 20
    assert wide <= window


def test_why_a_policy_has_no_runs_is_on_the_screen_in_a_low_row(opened, tmp_path):
    reason = "no plan trains 1 configuration to 40 iterations within a deadline of 2600 s and a budget of 4.5 USD; " * 3
    headings = [Heading("policy"), *numbers(*(f"a long name of column {place}" for place in range(12)))]
    rows = [["mine", *range(12), None], ["<i>", *[None] * 12, reason]]
    table = PageTable("t", [*headings, Heading("error", "remark")], rows)
    path = tmp_path / "page.html"
    path.write_text(rendered(Page("t", "", {}, [PageSection("s", (), [table])])), encoding="utf-8")
    browser = opened("run")
    browser.get(path.as_uri())
    drawn = browser.find_elements("css selector", "tbody tr")
    assert [row.text for row in drawn][2] == reason.strip()
    assert sum(row.size["height"] for row in drawn[1:]) < 100
    assert drawn[2].find_element("tag name", "div").rect["width"] < 1280
    assert browser.find_element("css selector", ".scroll").size["width"] < 1280
    browser.find_elements("css selector", "thead button")[1].click()
    assert browser.find_elements("css selector", "tbody tr")[2].text == reason.strip()

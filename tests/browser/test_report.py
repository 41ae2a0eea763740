"""The report of a run in the browser: its counts are Python's, and all of it works by keyboard and on a phone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from detpipe.diagnosis.causes import above
from detpipe.metrics.evaluate import evaluate
from detpipe.metrics.matching import match_detections
from detpipe.metrics.operating_point import best_f1
from detpipe.report.run.page import ReportData, render, write_report
from detpipe.structures import Dataset, Detections, GroundTruth, ImageId, ImageRecord
from tests.browser.browser import Browser

CLASSES = ("cat", "dog", "</script><script>document.title='hit'</script>")
IMAGES = 40
NAMES = [f"{i}\"'&<b>.jpg" if i == 3 else f"image {i}.jpg" for i in range(IMAGES)]


def scene(seed: int) -> tuple[GroundTruth, Detections]:
    """Objects, and detections of most of them, of others, and of nothing."""
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 4))
    corners = random.integers(0, 100, (n, 2))
    objects = np.hstack([corners, corners + random.integers(20, 60, (n, 2))]).astype(np.float32)
    labels = random.integers(1, 4, n)
    truth = GroundTruth.from_boxes(objects, labels)
    difficult = random.random(n) < 0.1
    truth = GroundTruth(truth.boxes, truth.labels, difficult, truth.crowd, truth.areas)
    near = objects + random.normal(0, 4, objects.shape)
    twice = near + random.normal(0, 2, objects.shape)
    far = np.array([[100, 90, 150, 118]], np.float32)
    boxes = np.vstack([near, twice, far]).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = random.choice([0.2, 0.31, 0.4, 0.55, 0.8, 0.97], len(boxes)).astype(np.float32)
    found_labels = np.concatenate([labels, random.integers(1, 4, n), [1]])
    order = np.argsort(-scores, kind="stable")
    return truth, Detections(boxes[order], scores[order], found_labels[order].astype(np.int64))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    folder = tmp_path_factory.mktemp("images")
    records, truth, detections, proposals = [], {}, {}, {}
    for i, name in enumerate(NAMES):
        path = folder / name.replace("/", "")
        path.write_bytes(cv2.imencode(".jpg", np.full((120, 160, 3), 60 + i, np.uint8))[1].tobytes())
        records.append(ImageRecord(i, path, (120, 160)))
        truth[i], detections[i] = scene(i)
        proposals[i] = truth[i].boxes
    dataset = Dataset("drawn", CLASSES, (1, 2, 3), tuple(records), truth)
    metrics = evaluate(dataset, detections)
    return ReportData(title="A run", dataset=dataset, detections=detections, proposals=proposals, metrics=metrics)


@pytest.fixture(scope="module")
def page(report: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, report)
    return path


def counts(report: ReportData, threshold: float, label: int | None = None) -> dict[str, int]:
    """What Python counts when it matches only the shown detections."""
    truth: Mapping[ImageId, GroundTruth] = report.dataset.measured_truth or {}
    total = dict.fromkeys(("detections", "correct", "wrong", "objects", "missed"), 0)
    for image, gt in truth.items():
        found = above(report.detections[image], threshold)
        matches = match_detections(gt, found)
        own = np.ones(len(found), np.bool_) if label is None else found.labels == label
        of_class = (~gt.difficult & ~gt.crowd) & (True if label is None else gt.labels == label)
        total["correct"] += int((matches.true_positive & own).sum())
        total["wrong"] += int((matches.false_positive & own).sum())
        total["objects"] += int(of_class.sum())
        total["missed"] += int((of_class & ~matches.found(gt)).sum())
    total["detections"] = total["correct"] + total["wrong"]
    return total


def shown(browser: Browser) -> dict[str, int]:
    """The counts in the sentence above the images."""
    text = browser.text("#explorer .summary").rpartition("title='hit'</script>: ")[2]
    found = re.search(r"(\d+) detections?: (\d+) correct, (\d+) wrong\. (\d+) of (\d+) objects? missed\.", text)
    assert found is not None, text
    names = ("detections", "correct", "wrong", "missed", "objects")
    return dict(zip(names, map(int, found.groups()), strict=True))


def move(browser: Browser, threshold: float, selector: str = "#threshold") -> None:
    """Move a slider, as a pointer does, and wait until the page has followed."""
    script = "const r = document.querySelector(arguments[0]); r.value = arguments[1]; "
    browser.js(script + "r.dispatchEvent(new Event('input', {bubbles: true}))", selector, threshold)
    browser.until(lambda: browser.find("#threshold").get_attribute("aria-valuetext") == f"{threshold:.2f}")


def choose(browser: Browser, name: str, value: str) -> None:
    script = "const s = document.getElementById(arguments[0]); s.value = arguments[1]; "
    browser.js(script + "s.dispatchEvent(new Event('change', {bubbles: true}))", name, value)


def focused_image(browser: Browser) -> str:
    """The name of the image in the grid that has the focus."""
    return browser.focused().find_element("css selector", "b").text


def names(browser: Browser) -> list[str]:
    """The images of the grid, after all of them are shown."""
    while browser.all(".more"):
        browser.click(".more")
    return [
        str(name) for name in browser.js("return [...document.querySelectorAll('.shot b')].map((b) => b.textContent)")
    ]


def test_the_page_begins_at_the_best_f1_with_pythons_counts(browser: Browser, page: Path, report: ReportData) -> None:
    point = best_f1(report.dataset.measured_truth or {}, report.detections)
    assert point is not None
    browser.open(page)
    assert shown(browser) == counts(report, point.score)
    assert f"Precision {100 * point.precision:.1f} %, recall {100 * point.recall:.1f} %." in browser.text(".summary")
    assert not browser.all("#static-images")


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.31, 0.32, 0.55, 0.97, 1.0])
def test_counts_of_every_threshold_and_class_are_pythons(
    browser: Browser, page: Path, report: ReportData, threshold: float
) -> None:
    browser.open(page)
    move(browser, threshold)
    assert shown(browser) == counts(report, threshold)
    for label, row in enumerate(browser.all("#explorer tbody tr"), start=1):
        own = counts(report, threshold, label)
        wanted = [str(own[key]) for key in ("objects", "correct", "missed", "wrong")]
        assert [cell.text for cell in row.find_elements("css selector", "td")][1:5] == wanted
    choose(browser, "class", "2")
    assert browser.text(".summary").startswith("dog: ")
    assert shown(browser) == counts(report, threshold, 2)


def test_the_sums_of_the_images_are_the_counts(browser: Browser, page: Path, report: ReportData) -> None:
    browser.open(page)
    move(browser, 0.4)
    assert sorted(names(browser)) == sorted(NAMES)
    found = missed = wrong = 0
    for text in browser.js("return [...document.querySelectorAll('.tally')].map((t) => t.textContent)"):
        part = re.fullmatch(r"(\d+) of (\d+) found(?:, (\d+) wrong)?", text)
        assert part is not None, text
        found += int(part[1])
        missed += int(part[2]) - int(part[1])
        wrong += int(part[3] or 0)
    wanted = counts(report, 0.4)
    assert (found, missed, wrong) == (wanted["correct"], wanted["missed"], wanted["wrong"])


def test_boxes_follow_the_threshold_and_the_class(browser: Browser, page: Path, report: ReportData) -> None:
    browser.open(page)
    choose(browser, "sort", "file")

    def boxes(kind: str) -> int:
        return len(browser.all(f".shots li:first-child .box.{kind}"))

    found = report.detections[0]
    for threshold in (0.0, 0.4, 1.0):
        move(browser, threshold)
        number = int((found.scores >= np.float32(threshold)).sum())
        browser.until(lambda number=number: boxes("detection") == number, f"{number} boxes")
    move(browser, 0.0)
    label = int(found.labels[0])
    choose(browser, "class", str(label))
    first = browser.text(".shots li:first-child b")
    assert first == NAMES[0]
    browser.until(lambda: boxes("detection") == int((found.labels == label).sum()), "the boxes of the class")


def test_filters_show_only_such_images(browser: Browser, page: Path, report: ReportData) -> None:
    browser.open(page)
    move(browser, 0.4)
    truth = report.dataset.measured_truth or {}
    matches = {i: match_detections(gt, above(report.detections[i], 0.4)) for i, gt in truth.items()}
    with_missed = {NAMES[i] for i, gt in truth.items() if (~matches[i].found(gt) & ~gt.difficult).any()}
    with_wrong = {NAMES[i] for i in truth if matches[i].false_positive.any()}
    choose(browser, "filter", "missed")
    assert set(names(browser)) == with_missed
    choose(browser, "filter", "wrong")
    assert set(names(browser)) == with_wrong
    choose(browser, "filter", "none")
    assert set(names(browser)) == set(NAMES) - with_missed - with_wrong
    causes = browser.all("#filter optgroup")
    assert [group.get_attribute("label") for group in causes] == ["missed because of", "false because of"]
    for option in causes[1].find_elements("css selector", "option"):
        value, kind = option.get_attribute("value"), option.get_attribute("textContent")
        choose(browser, "filter", str(value))
        assert 0 < len(names(browser)) <= len(with_wrong), kind


def test_the_worst_images_come_first(browser: Browser, page: Path) -> None:
    browser.open(page)
    errors = "return [...document.querySelectorAll('.tally')].map((t) => t.textContent)"
    numbers = []
    for text in browser.until(lambda: browser.js(errors), "the images are shown"):
        found, objects, *wrong = map(int, re.findall(r"\d+", text))
        numbers.append(objects - found + sum(wrong))
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1]
    choose(browser, "sort", "file")
    assert names(browser) == NAMES


def test_keys_alone(browser: Browser, page: Path) -> None:
    """Tab to the threshold and the images; enlarge, step, toggle and close with keys; the focus comes back."""
    browser.open(page)
    choose(browser, "sort", "file")
    for _ in range(40):
        browser.press(Keys.TAB)
        if browser.focused().get_attribute("id") == "threshold":
            break
    before = float(browser.text(".threshold output"))
    browser.press(Keys.ARROW_RIGHT)
    browser.until(lambda: float(browser.text(".threshold output")) > before)
    for _ in range(40):
        browser.press(Keys.TAB)
        if "shot" in (browser.focused().get_attribute("class") or ""):
            break
    browser.press(Keys.ENTER)
    assert browser.focused().text == NAMES[0] == browser.text("#viewer-name")
    assert browser.find("#viewer").get_attribute("open") is not None
    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.text("#viewer-name") == NAMES[2]
    browser.press(Keys.ARROW_RIGHT)
    assert browser.text("#viewer-name") == NAMES[3]  # quotes and a tag
    browser.press(Keys.ARROW_LEFT)
    assert browser.text("#viewer .note").startswith(f"3 of {IMAGES}")
    for key, kind in (("o", "object"), ("d", "detection"), ("p", "proposal")):
        count = len(browser.all(f"#viewer .box.{kind}"))
        browser.press(key)
        assert (len(browser.all(f"#viewer .box.{kind}")) == 0) == (count > 0), kind
    browser.press(Keys.ESCAPE)
    assert not browser.all("#viewer")
    assert focused_image(browser) == NAMES[2]


def test_closing_far_from_the_start_shows_the_image_in_the_grid(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click(".shot")
    browser.press(*[Keys.ARROW_RIGHT] * (IMAGES + 3))  # and no further than the last
    last = browser.text("#viewer-name")
    assert browser.text("#viewer .note").startswith(f"{IMAGES} of {IMAGES}")
    assert not browser.find("#viewer .bar-of-buttons button:nth-child(2)").is_enabled()
    browser.press(Keys.ESCAPE)
    assert focused_image(browser) == last


def test_layers_and_the_threshold_in_the_enlarged_image(browser: Browser, page: Path, report: ReportData) -> None:
    browser.open(page)
    choose(browser, "sort", "file")
    browser.click(".shot")
    move(browser, 0.0, "#viewer-threshold")
    assert len(browser.all("#viewer .box.detection")) == len(report.detections[0])
    assert len(browser.all("#viewer .box.object")) == len((report.dataset.measured_truth or {})[0])
    assert len(browser.all("#viewer .lists > div:nth-child(2) li")) == len(report.detections[0])
    browser.click("#viewer-detections")
    assert not browser.all("#viewer .box.detection")
    assert not browser.find("#grid-detections").is_selected()
    browser.click("#viewer-proposals")
    assert len(browser.all("#viewer .box.proposal")) == len(report.proposals[0])


def test_facts_of_a_missed_object_are_opened_by_key(browser: Browser, report: ReportData, tmp_path: Path) -> None:
    facts = {(image, index): (f"<b>{index}", "Change: look") for image in range(IMAGES) for index in range(4)}
    write_report(tmp_path / "facts.html", replace(report, facts=facts))
    browser.open(tmp_path / "facts.html")
    browser.click(".shot")  # the image with most errors
    more = browser.find("#viewer .facts")
    assert [one.text for one in more.find_elements("css selector", "li")] == ["", ""]  # closed
    browser.js("arguments[0].querySelector('summary').focus()", more)
    browser.press(Keys.ENTER)
    shown = [one.text for one in more.find_elements("css selector", "li")]
    assert shown[0].startswith("<b>")
    assert shown[1] == "Change: look"
    assert browser.pale_texts() == []
    name = browser.text("#viewer-name")
    browser.press(Keys.ARROW_RIGHT)
    assert browser.text("#viewer-name") != name
    browser.press(Keys.ARROW_LEFT)  # the focus is not lost with the list of the other image
    assert browser.text("#viewer-name") == name


def test_reload_gives_the_same_page_again(browser: Browser, page: Path) -> None:
    browser.open(page)
    state = """const all = (selector) => [...document.querySelectorAll("#explorer " + selector)];
      return all(".summary, .shot b, .tally, tbody td").map((e) => e.textContent)
        .concat(all("select, input").map((e) => `${e.value} ${e.checked}`))"""
    browser.until(lambda: browser.text("#explorer .summary"), "the page is drawn")
    before = browser.js(state)
    move(browser, 0.97)
    choose(browser, "class", "1")
    browser.click("#grid-objects")
    assert browser.js(state) != before
    browser.reload()
    browser.until(lambda: browser.js(state) == before, "the same page again")


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, page: Path, dark: bool) -> None:
    browser.open(page, width=400, height=800, dark=dark)
    assert not browser.scrolls_sideways()
    browser.click(".shot")
    assert not browser.scrolls_sideways()
    viewer = browser.find("#viewer")
    assert viewer.rect["width"] <= 400
    assert not browser.js("return arguments[0].scrollWidth > arguments[0].clientWidth", viewer)
    small = [one for one in browser.all("#viewer button") if min(one.rect["height"], one.rect["width"]) < 40]
    assert small == []
    browser.all("#viewer .bar-of-buttons button")[1].click()
    browser.all("#viewer .bar-of-buttons button")[2].click()
    assert not browser.all("#viewer")
    background = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 21, 27)") == dark


def test_no_number_breaks_into_lines_on_a_phone(browser: Browser, page: Path) -> None:
    browser.open(page, width=400)
    numbers = browser.all(".cards b, dl.numbers dd, td:not(:first-child)")
    assert len(numbers) > 30
    lines = """const range = document.createRange(); range.selectNodeContents(arguments[0]);
      return new Set([...range.getClientRects()].map((line) => Math.round(line.top))).size"""
    assert {one.text: browser.js(lines, one) for one in numbers if browser.js(lines, one) != 1} == {}


def test_every_picture_and_control_has_a_name(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click(".shot")
    nameless = browser.js(
        """const named = (e) => (e.labels && e.labels.length) || e.textContent.trim() || e.getAttribute("aria-label");
        const all = (selector) => [...document.querySelectorAll(selector)];
        return all("input, select, button, dialog, .plot svg").filter((e) => !named(e)).length
          + all("img").filter((e) => !e.hasAttribute("alt")).length;"""
    )
    assert nameless == 0
    assert browser.find("#viewer img").get_attribute("alt") == f"{browser.text('#viewer-name')} with its boxes"


@pytest.mark.parametrize("width", [1200, 400])
def test_captions_keep_apart_and_in_the_picture(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    move(browser, 0.0)
    browser.js("document.querySelector('.shots').scrollIntoView()")
    browser.until(lambda: browser.all(".shot .caption"))
    places = browser.js(
        """return [...document.querySelectorAll('.shot svg')].map((svg) => ({
          size: svg.viewBox.baseVal, text: [...svg.querySelectorAll('.caption')].map((g) => g.getBBox())}))"""
    )
    assert sum(len(one["text"]) for one in places) > 10
    for one in places:
        boxes = [(t["x"], t["y"], t["x"] + t["width"], t["y"] + t["height"]) for t in one["text"]]
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            assert min(x1, y1) >= -0.5
            assert x2 <= one["size"]["width"] + 0.5
            assert y2 <= one["size"]["height"] + 0.5
            for a1, b1, a2, b2 in boxes[:i]:
                assert min(x2, a2) - max(x1, a1) < 1 or min(y2, b2) - max(y1, b1) < 1


def test_hostile_names_are_shown_and_do_nothing(browser: Browser, page: Path) -> None:
    browser.open(page)
    choose(browser, "class", "3")
    assert browser.text(".summary").startswith(CLASSES[2] + ": ")
    browser.click(".shot")
    assert CLASSES[2] in browser.text("#viewer .lists")
    assert browser.driver.title == "A run"


def test_without_scripts_the_page_shows_pictures(browser: Browser, report: ReportData) -> None:
    text = render(replace(report, max_images=3))
    browser.open(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))
    assert "3 of 40 images" in browser.text("#static-images")
    assert len(browser.all("#static-images img")) == 3
    assert not browser.all("#explorer")


def test_images_without_annotations(browser: Browser, report: ReportData) -> None:
    browser.open(render(replace(report, dataset=replace(report.dataset, ground_truth=None), max_images=1)))
    total = sum(int((found.scores >= 0.5).sum()) for found in report.detections.values())
    assert browser.text(".summary") == f"{total} detections."
    assert not browser.all("#filter")
    browser.click(".shot")
    assert browser.all("#viewer .lists h3")[0].text.startswith("Detections")


def test_images_that_have_no_room_are_said(browser: Browser, report: ReportData) -> None:
    browser.open(render(replace(report, max_images=0, max_bytes=750_000)))
    said = re.search(r"(\d+) of (\d+) images. The page has no room for (\d+) more", browser.text("#explorer"))
    assert said is not None
    assert int(said[2]) + int(said[3]) == IMAGES
    assert shown(browser)["objects"] == counts(report, 0.5)["objects"]

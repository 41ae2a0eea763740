"""The page on which labels are corrected, as a person uses it: each button and key, and the file that it saves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from detpipe.labels.corrections import Action, Correction, read_corrections
from detpipe.labels.page_settings import LabelsPageConfig
from detpipe.labels.suspects import Suggestion, Suspect, SuspectKind
from detpipe.report.labels_page import (
    ImageToLabel,
    LabelledObject,
    LabelsPage,
    PageImage,
    PredictedBox,
    write_labels_page,
)
from detpipe.structures import ImageRecord
from tests.browser.browser import Browser

CLASSES = ("ant", "bee", "cat", "dog", "eel")
WIDTH, HEIGHT = 400, 300
A_BOX = (100.0999984741211, 80.0, 300.0, 220.5)
"""As a float32 of a file becomes a float: unchanged numbers must come back to the last digit."""
B_BOX = (20.0, 30.0, 120.0, 150.0)
WIDER = (20.0, 30.0, 160.25, 150.0)
NEW_BOX = (210.5, 140.0, 390.0, 290.0)
HUGE_ID = 12345678901234567890
EVIL = "</script><img src=x onerror=\"document.title='hit'\"><script>document.title='hit'</script>{{7*7}}"

WRONG_CLASS = Suspect(
    image="a",
    split="train",
    kind=SuspectKind.wrong_class,
    score=0.9,
    object=0,
    box=A_BOX,
    label="cat",
    suggestion=Suggestion(action=Action.change, label="dog"),
    why="The model gives dog 0.91 and cat 0.02.",
)
MISPLACED = replace(
    WRONG_CLASS,
    kind=SuspectKind.misplaced,
    score=0.8,
    object=1,
    box=B_BOX,
    label="ant",
    suggestion=Suggestion(action=Action.change, label="ant", box=WIDER),
)
SPURIOUS = replace(
    WRONG_CLASS, image=HUGE_ID, kind=SuspectKind.spurious, score=0.7, suggestion=Suggestion(action=Action.remove)
)
MISSING = replace(
    WRONG_CLASS,
    image=HUGE_ID,
    kind=SuspectKind.missing,
    score=0.6,
    object=None,
    box=NEW_BOX,
    label="eel",
    suggestion=Suggestion(action=Action.add, label="eel", box=NEW_BOX),
)
ALSO_CLASS = replace(
    MISPLACED, kind=SuspectKind.wrong_class, score=0.5, suggestion=Suggestion(action=Action.change, label="bee")
)
SUSPECTS = (WRONG_CLASS, MISPLACED, SPURIOUS, MISSING, ALSO_CLASS)
OBJECTS = {
    ("train", "a"): (LabelledObject(box=A_BOX, label="cat"), LabelledObject(box=B_BOX, label="ant")),
    ("train", HUGE_ID): (LabelledObject(box=A_BOX, label="cat", id="77"),),
}
TO_LABEL = (
    ImageToLabel(
        image="photo 1",
        boxes=[PredictedBox(box=A_BOX, label="cat", score=0.9), PredictedBox(box=B_BOX, label="ant", score=0.4)],
        why="Two boxes are near the threshold.",
    ),
    ImageToLabel(image="photo 2", boxes=[]),
)


def picture(folder: Path, name: str) -> ImageRecord:
    """An image file of WIDTH x HEIGHT, so that a pixel of it is a pixel of the page's picture."""
    path = folder / f"{name.replace('/', '').encode('ascii', 'ignore').decode()}.jpg"
    if not path.exists():
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    return ImageRecord(name, path, (HEIGHT, WIDTH))


def audit_page(folder: Path, suspects: tuple[Suspect, ...] = SUSPECTS, classes: tuple[str, ...] = CLASSES) -> Path:
    images = {
        (one.split, one.image): PageImage(
            record=picture(folder, str(one.image)), objects=OBJECTS.get((one.split, one.image), OBJECTS["train", "a"])
        )
        for one in suspects
    }
    page = LabelsPage(
        title="Label audit", subtitle="bees", dataset="digest 1", classes=classes, items=suspects, images=images
    )
    write_labels_page(folder / "audit.html", page)
    return folder / "audit.html"


@pytest.fixture
def audit(browser: Browser, tmp_path: Path) -> Browser:
    """The browser with the page of SUSPECTS."""
    browser.open(audit_page(tmp_path))
    return browser


@pytest.fixture
def unlabelled(browser: Browser, tmp_path: Path) -> Browser:
    """The browser with the page of TO_LABEL."""
    images = {(None, one.image): PageImage(record=picture(tmp_path, str(one.image))) for one in TO_LABEL}
    page = LabelsPage(
        title="Label next", subtitle="photos", dataset="digest 1", classes=CLASSES, items=TO_LABEL, images=images
    )
    write_labels_page(tmp_path / "next.html", page)
    browser.open(tmp_path / "next.html")
    return browser


def saved(browser: Browser) -> list[Correction]:
    """Press the button and read the file that it saves, as `detpipe labels apply` does."""
    (browser.downloads / "corrections.json").unlink(missing_ok=True)
    browser.click("#save")
    browser.downloaded("corrections.json")
    found = read_corrections(browser.downloads / "corrections.json")
    assert found.dataset == "digest 1"
    return found.corrections


def changed(**values: object) -> Correction:
    """A change of the first object of image a."""
    return Correction(**{"image": "a", "split": "train", "action": Action.change, "object": 0, **values})


def kind(browser: Browser) -> str:
    return browser.text("#what")


def choose_class(browser: Browser, letters: str) -> None:
    """Type into the list of classes and take the first one."""
    browser.until(lambda: browser.focused().get_attribute("id") == "filter")
    browser.press(letters, Keys.ENTER)
    browser.until(lambda: not browser.js("return document.getElementById('picker').open"))


def pixels_per_pixel(browser: Browser) -> float:
    """Pixels of the screen for one of the image."""
    return float(browser.js("return document.getElementById('view').getBoundingClientRect().width")) / WIDTH


def drag(browser: Browser, selector: str, dx: float, dy: float) -> None:
    """Drag an element with the mouse by pixels of the image."""
    scale = pixels_per_pixel(browser)
    actions = ActionChains(browser.driver).move_to_element(browser.find(selector)).click_and_hold()
    actions.move_by_offset(round(dx * scale / 2), round(dy * scale / 2))
    actions.move_by_offset(round(dx * scale / 2), round(dy * scale / 2)).release().perform()


# ---- one button after the other


def test_it_begins_with_the_most_probable_suspect(audit: Browser) -> None:
    assert kind(audit) == "Wrong class?"
    assert "a.jpg (train)" in audit.text("#where")
    assert audit.text("#why") == WRONG_CLASS.why
    facts = audit.text("#facts")
    assert "cat" in facts
    assert "dog" in facts
    assert "0.90" in facts
    assert audit.js("return document.querySelector('#view img').naturalWidth") == WIDTH
    assert audit.text("#count") == "0 of 5 decided"
    assert saved(audit) == []


def test_the_suggestion_of_each_kind(audit: Browser) -> None:
    for _ in SUSPECTS[:4]:
        audit.click("#do-suggest")
    assert saved(audit) == [
        changed(label="dog"),
        changed(object=1, box=WIDER),
        Correction(image=HUGE_ID, split="train", action=Action.remove, object=0, id="77"),
        Correction(image=HUGE_ID, split="train", action=Action.add, box=NEW_BOX, label="eel"),
    ]
    assert audit.text("#count") == "4 of 5 decided"


def test_correct_and_skip_change_nothing(audit: Browser) -> None:
    audit.click("#do-correct")
    audit.click("#do-skip")
    audit.click("#do-correct")
    assert not audit.find("#do-correct").is_displayed()
    audit.click("#do-remove")  # of a missing label: there is no object
    audit.click("#do-correct")
    assert audit.text("#count") == "5 of 5 decided (1 skipped)"
    assert "Save the corrections" in audit.text("#said")
    assert saved(audit) == []


def test_wrong_class_is_picked_from_a_list(audit: Browser) -> None:
    audit.click("#do-class")
    assert [one.text for one in audit.all("#options li")] == ["dog", "ant", "bee", "cat", "eel"]
    audit.press("E")
    assert [one.text for one in audit.all("#options li")] == ["eel", "bee"]
    audit.all("#options li")[1].click()
    audit.until(lambda: kind(audit) == "Wrong box?")
    assert saved(audit) == [changed(label="bee")]


def test_the_list_can_be_left(audit: Browser) -> None:
    audit.click("#do-class")
    audit.press("xyz", Keys.ENTER)
    assert audit.js("return document.getElementById('picker').open")
    audit.click("#cancel")
    assert kind(audit) == "Wrong class?"
    audit.click("#do-class")
    choose_class(audit, "cat")  # the class that the label has
    assert kind(audit) == "Wrong class?"
    assert saved(audit) == []


def test_not_an_object_and_missing(audit: Browser) -> None:
    audit.click("#do-remove")
    audit.click("#do-skip")
    audit.click("#do-skip")
    audit.click("#do-class")
    choose_class(audit, "bee")
    assert saved(audit) == [
        Correction(image="a", split="train", action=Action.remove, object=0),
        Correction(image=HUGE_ID, split="train", action=Action.add, box=NEW_BOX, label="bee"),
    ]


def test_what_is_decided_on_two_suspects_of_an_object_is_one_correction(audit: Browser) -> None:
    audit.click("#next")
    audit.click("#do-suggest")
    audit.click("#do-skip")
    audit.click("#do-skip")
    assert "another box" in audit.text("#facts")
    audit.click("#do-suggest")
    assert saved(audit) == [changed(object=1, box=WIDER, label="bee")]
    audit.click("#previous")


def test_a_removed_object_has_no_other_open_suspect(audit: Browser) -> None:
    audit.click("#next")
    audit.click("#do-remove")
    assert audit.text("#count") == "2 of 5 decided"
    assert saved(audit) == [Correction(image="a", split="train", action=Action.remove, object=1)]


def test_other_labels_of_the_image_are_shown_as_decided(audit: Browser) -> None:
    """Nobody draws an object again that was added at another suspect, or wonders about a removed one."""
    others = "return [...document.querySelectorAll('#lines rect.other:not(.edge)')].map((one) => one.x.baseVal.value)"
    assert audit.js(others) == [B_BOX[0]]
    audit.click("#next")
    assert audit.js(others) == pytest.approx([A_BOX[0]])
    audit.click("#previous")
    audit.press("d", Keys.ENTER)
    choose_class(audit, "bee")
    audit.click("#next")
    assert len(audit.js(others)) == 2
    audit.click("#previous")
    audit.click("[data-part=remove]")
    audit.click("#do-remove")
    assert kind(audit) == "Wrong box?"
    assert audit.js(others) == []
    assert "other labels" not in audit.text("#legend")
    audit.click("#undo")
    audit.click("#next")
    assert audit.js(others) == pytest.approx([A_BOX[0]])


# ---- boxes


def test_a_corner_is_dragged_with_the_mouse(audit: Browser) -> None:
    audit.click("#do-box")
    drag(audit, ".handle.se", -40, 30)
    audit.click("#do-box")
    [one] = saved(audit)
    assert one.box is not None
    assert one.box[:2] == A_BOX[:2]
    assert one.box[2:] == pytest.approx((260, 250.5), abs=1)
    assert all(value == round(value, 1) for value in one.box[2:])
    assert one.label is None


def test_an_edge_and_the_whole_box_are_dragged(audit: Browser) -> None:
    audit.click("#do-box")
    drag(audit, ".handle.n", 30, -20)
    drag(audit, "#handles .body", 300, 10)  # it ends at the right side of the image
    audit.press(Keys.ENTER)
    [one] = saved(audit)
    assert one.box is not None
    assert one.box == pytest.approx((200.1, 70, 400, 230.5), abs=1)
    assert one.box[2] == WIDTH


def test_a_corner_is_dragged_with_a_finger(browser: Browser, tmp_path: Path) -> None:
    browser.open(audit_page(tmp_path), width=400)
    browser.js("document.getElementById('stage').scrollIntoView()")
    browser.click("#do-box")
    browser.js("document.getElementById('stage').scrollIntoView()")
    scale = pixels_per_pixel(browser)
    finger = ActionBuilder(browser.driver, mouse=PointerInput(interaction.POINTER_TOUCH, "finger"), duration=20)
    finger.pointer_action.move_to(browser.find(".handle.nw")).pointer_down()
    finger.pointer_action.move_by(0, round(10 * scale)).move_by(0, round(20 * scale)).pointer_up()
    finger.perform()
    browser.click("#do-box")
    [one] = saved(browser)
    assert one.box is not None
    assert (one.box[0], *one.box[2:]) == (A_BOX[0], *A_BOX[2:])
    assert one.box[1] == pytest.approx(110, abs=2)


def test_a_box_stays_inside_of_the_image_and_is_not_turned_over(audit: Browser) -> None:
    audit.press("b")
    drag(audit, ".handle.nw", 390, 290)
    audit.press(Keys.ENTER)
    [one] = saved(audit)
    assert one.box == (299.0, 219.5, 300.0, 220.5)


def test_an_unchanged_box_is_not_saved_and_escape_leaves_it(audit: Browser) -> None:
    audit.press("b", Keys.ENTER)
    assert "not changed" in audit.text("#said")
    assert kind(audit) == "Wrong class?"
    audit.press(Keys.ARROW_RIGHT, Keys.ESCAPE)
    assert audit.all(".handle") == []
    audit.press("c")
    assert saved(audit) == []


def test_a_dragged_box_is_kept_by_who_goes_on(audit: Browser) -> None:
    audit.press("b", Keys.ARROW_LEFT)
    audit.click("#next")
    [one] = saved(audit)
    assert one.box == (99.1, *A_BOX[1:])


def test_a_box_and_a_class_are_one_change(audit: Browser) -> None:
    audit.press("b", Keys.ARROW_LEFT, "w")
    choose_class(audit, "eel")
    assert saved(audit) == [changed(label="eel", box=(99.1, *A_BOX[1:]))]


def test_a_missing_object_is_drawn(audit: Browser) -> None:
    audit.click("#do-draw")
    stage = audit.find("#stage")
    ActionChains(audit.driver).move_to_element_with_offset(stage, -100, -80).click_and_hold().move_by_offset(
        60, 50
    ).release().perform()
    choose_class(audit, "bee")
    [one] = saved(audit)
    assert (one.action, one.object, one.label, one.image) == (Action.add, None, "bee", "a")
    assert one.box is not None
    scale = pixels_per_pixel(audit)
    assert (one.box[2] - one.box[0], one.box[3] - one.box[1]) == pytest.approx((60 / scale, 50 / scale), abs=1)
    audit.click("[data-part=remove]")
    assert saved(audit) == []


# ---- keys


def test_keys_alone(audit: Browser) -> None:
    """All decisions without the mouse, also the corners of a box, and the file."""
    shift_down = ActionChains(audit.driver).key_down(Keys.SHIFT).send_keys(Keys.ARROW_DOWN).key_up(Keys.SHIFT)
    audit.press("w")
    choose_class(audit, "be")
    audit.press("b")
    assert audit.focused().get_attribute("aria-label") == "Top left corner, x 20, y 30"
    audit.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.TAB)
    assert audit.focused().get_attribute("aria-label") == "Top right corner, x 120, y 30"
    audit.press(Keys.TAB)
    shift_down.perform()
    assert audit.focused().get_attribute("aria-label") == "Bottom right corner, x 120, y 160"
    audit.press(Keys.TAB, Keys.TAB, Keys.ARROW_UP)
    assert audit.focused().get_attribute("aria-label") == "Whole box, x 22 to 120, y 29 to 159"
    audit.press(Keys.ENTER, "n", "a")
    assert audit.text("#count") == "4 of 5 decided"
    assert kind(audit) == "Wrong class?"
    audit.press("c")
    ActionChains(audit.driver).key_down(Keys.CONTROL).send_keys("s").key_up(Keys.CONTROL).perform()
    audit.downloaded("corrections.json")
    assert read_corrections(audit.downloads / "corrections.json").corrections == [
        changed(label="bee"),
        changed(object=1, box=(22.0, 29.0, 120.0, 159.0)),
        Correction(image=HUGE_ID, split="train", action=Action.remove, object=0, id="77"),
        Correction(image=HUGE_ID, split="train", action=Action.add, box=NEW_BOX, label="eel"),
    ]


def test_keys_to_draw_and_to_step(audit: Browser) -> None:
    audit.press("d", Keys.ENTER)
    choose_class(audit, "dog")
    assert audit.focused().get_attribute("data-way") == "nw"
    audit.press(Keys.ARROW_LEFT, Keys.ENTER)
    [one] = saved(audit)
    assert (one.action, one.label) == (Action.add, "dog")
    audit.js("document.activeElement.blur()")
    audit.press(Keys.ARROW_RIGHT)
    assert audit.text("#where").startswith("2 of 5")
    audit.press("s", Keys.ARROW_LEFT, Keys.ARROW_LEFT, "u")
    assert audit.text("#where").startswith("3 of 5")
    audit.press("z")
    assert audit.find("#zoom").get_attribute("aria-pressed") == "true"
    audit.press("h")
    assert audit.all("#lines rect") == []
    audit.press("?")
    assert audit.find("#keys").get_attribute("open") is not None


def test_letters_can_be_switched_off(audit: Browser) -> None:
    audit.press("?")
    audit.click("#letters")
    audit.press("c", "n")
    assert audit.text("#count") == "0 of 5 decided"
    audit.reload()
    audit.press("c")
    assert audit.text("#count") == "0 of 5 decided"
    audit.press(Keys.ARROW_RIGHT)
    assert audit.text("#where").startswith("2 of 5")


def test_all_controls_are_reached_by_tab_with_a_visible_focus(audit: Browser) -> None:
    seen = set()
    for _ in range(40):
        audit.press(Keys.TAB)
        name = audit.js("return document.activeElement.id")
        if name in seen:
            break
        if name:
            seen.add(name)
            style = audit.js(
                "const s = getComputedStyle(document.activeElement); return [s.outlineStyle, s.outlineWidth]"
            )
            assert style == ["solid", "3px"], name
    wanted = ("by-class", "by-kind", "by-state", "save", "next", "zoom", "do-suggest", "do-correct", "do-class")
    assert {*wanted, "do-box", "do-remove", "do-draw", "do-skip"} <= seen


# ---- undo, filters, and what survives


def test_undo(audit: Browser) -> None:
    audit.click("#do-suggest")
    audit.press("n")
    ActionChains(audit.driver).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    assert kind(audit) == "Wrong box?"
    assert saved(audit) == [changed(label="dog")]
    audit.click("#undo")
    assert kind(audit) == "Wrong class?"
    assert saved(audit) == []
    assert not audit.find("#undo").is_enabled()


def test_undo_takes_back_a_whole_drag(audit: Browser) -> None:
    audit.press("b")
    before = audit.focused().get_attribute("aria-label")
    drag(audit, ".handle.nw", 40, 30)
    assert audit.find(".handle.nw").get_attribute("aria-label") != before
    audit.click("#undo")
    assert audit.find(".handle.nw").get_attribute("aria-label") == before


def test_filters(audit: Browser) -> None:
    kinds, classes, states = (Select(audit.find(name)) for name in ("#by-kind", "#by-class", "#by-state"))
    assert [one.text for one in kinds.options] == [
        "all",
        "missing (1)",
        "wrong class (2)",
        "wrong box (1)",
        "not an object (1)",
    ]
    kinds.select_by_value("wrong_class")
    assert audit.text("#where").startswith("1 of 2")
    audit.click("#next")
    assert "bee" in audit.text("#facts")
    classes.select_by_value("eel")
    assert audit.text("#nothing") == "No item passes these filters."
    assert audit.all("#work") == []
    kinds.select_by_value("")
    assert kind(audit) == "Label missing?"
    audit.js("document.activeElement.blur()")
    audit.press("a")
    classes.select_by_value("")
    states.select_by_value("done")
    assert audit.text("#where").startswith("1 of 1")
    states.select_by_value("open")
    assert audit.text("#where").startswith("1 of 4")
    audit.click("#undo")
    assert kind(audit) == "Label missing?"


def test_the_state_survives_a_reload(audit: Browser) -> None:
    audit.click("#do-suggest")
    audit.press("b", Keys.ARROW_LEFT, Keys.ENTER)
    before = saved(audit)
    assert len(before) == 2
    audit.reload()
    assert audit.text("#count") == "2 of 5 decided"
    assert kind(audit) == "Not an object?"
    assert saved(audit) == before
    audit.click("#undo")
    assert saved(audit) == before[:1]


def test_the_state_belongs_to_the_labels_and_the_file(audit: Browser, tmp_path: Path) -> None:
    audit.click("#do-suggest")
    text = (tmp_path / "audit.html").read_text()
    for before, after in (("digest 1", "digest 2"), ("audit.html", "next.html")):
        (tmp_path / "audit.html").write_text(text.replace(before, after))
        audit.reload()
        assert audit.text("#count") == "0 of 5 decided"
    audit_page(tmp_path, SUSPECTS[::-1])  # the audit again: other order, same suspects
    audit.reload()
    assert audit.text("#count") == "1 of 5 decided"


@pytest.mark.parametrize("stored", ["{", "7", '{"records": {"a": 1}, "past": [3]}', '{"records": 5}'])
def test_a_damaged_state_is_dropped(audit: Browser, stored: str) -> None:
    audit.js("for (const key of Object.keys(localStorage)) localStorage.removeItem(key)")
    audit.js("localStorage.setItem('detpipe labels digest 1 audit.html', arguments[0])", stored)
    audit.reload()
    assert audit.text("#count") == "0 of 5 decided"
    audit.click("#do-suggest")
    assert audit.text("#count") == "1 of 5 decided"


@pytest.fixture
def private(browser: Browser) -> Iterator[Browser]:
    """A browser that refuses localStorage, as some do in a private window."""
    refuse = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } })"
    )
    made = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
    yield browser
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def test_a_browser_that_keeps_nothing(private: Browser, tmp_path: Path) -> None:
    private.open(audit_page(tmp_path))
    assert private.find("#unkept").is_displayed()
    private.click("#do-suggest")
    assert saved(private) == [changed(label="dog")]


# ---- images to label


def test_all_boxes_are_accepted(unlabelled: Browser) -> None:
    assert kind(unlabelled) == "Image to label"
    assert [one.text for one in unlabelled.all("#boxes .pick")] == ["1 cat 0.90", "2 ant 0.40"]
    assert saved(unlabelled) == []
    unlabelled.click("#do-suggest")
    assert unlabelled.text("#do-suggest span") == "Accept: no objects"
    unlabelled.click("#do-suggest")
    assert unlabelled.text("#count") == "2 of 2 decided"
    assert saved(unlabelled) == [
        Correction(image="photo 1", action=Action.add, box=A_BOX, label="cat"),
        Correction(image="photo 1", action=Action.add, box=B_BOX, label="ant"),
    ]
    # The second image has no objects, and is named as one that was looked at.
    assert read_corrections(unlabelled.downloads / "corrections.json").reviewed == ["photo 2"]
    assert unlabelled.text("#save") == "Save 2 corrections, 1 image without objects"
    unlabelled.click("#undo")
    saved(unlabelled)
    assert read_corrections(unlabelled.downloads / "corrections.json").reviewed == []


def test_boxes_are_changed_deleted_and_added_with_the_mouse(unlabelled: Browser) -> None:
    unlabelled.all("#boxes .pick")[1].click()
    unlabelled.click("#do-class")
    choose_class(unlabelled, "dog")
    unlabelled.click("#do-box")
    drag(unlabelled, ".handle.ne", 20, 0)
    unlabelled.click("#do-box")
    unlabelled.all("#boxes [data-part=remove]")[0].click()
    unlabelled.click("#do-draw")
    ActionChains(unlabelled.driver).move_to_element_with_offset(
        unlabelled.find("#stage"), 40, 40
    ).click_and_hold().move_by_offset(60, 50).release().perform()
    choose_class(unlabelled, "eel")
    unlabelled.click("#do-suggest")
    kept, added = saved(unlabelled)
    assert (kept.label, added.label) == ("dog", "eel")
    assert kept.box is not None
    assert (kept.box[0], *kept.box[1:]) == pytest.approx((20, 30, 140, 150), abs=1)
    assert kept.box[1] == B_BOX[1]


def test_boxes_are_changed_deleted_and_added_with_keys(unlabelled: Browser) -> None:
    unlabelled.press(Keys.DELETE, Keys.ARROW_DOWN, "b", Keys.ARROW_DOWN, Keys.ENTER, "w")
    choose_class(unlabelled, "bee")
    unlabelled.press("d", Keys.ENTER)
    choose_class(unlabelled, "eel")
    unlabelled.press(Keys.ARROW_UP, Keys.ENTER, "a")
    assert [(one.label, one.box) for one in saved(unlabelled)] == [
        ("bee", (20.0, 31.0, 120.0, 150.0)),
        ("eel", (150.0, 111.5, 250.0, 187.5)),
    ]


def test_a_click_selects_the_smallest_box(unlabelled: Browser) -> None:
    scale = pixels_per_pixel(unlabelled)
    stage = unlabelled.find("#stage")
    # The point (110, 100) is in both boxes; the second is smaller. A second click takes the other one.
    at = (round((110 - WIDTH / 2) * scale), round((100 - HEIGHT / 2) * scale))
    unlabelled.press(Keys.ARROW_DOWN)
    for wanted in ("2 ant 0.40", "1 cat 0.90", "2 ant 0.40"):
        ActionChains(unlabelled.driver).move_to_element_with_offset(stage, *at).click().perform()
        assert unlabelled.text("#boxes [aria-pressed=true]") == wanted
    assert len(unlabelled.all(".handle")) == 8


# ---- names, sizes, colours, speed


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    image = f"{EVIL}\udcff\u202e"  # also a byte of a file name that is not UTF-8
    evil = replace(
        WRONG_CLASS, image=image, label=EVIL, why=EVIL, suggestion=Suggestion(action=Action.change, label=EVIL)
    )
    browser.open(audit_page(tmp_path, (evil,), (EVIL, "cat", "x' onclick='document.title=1")))
    assert browser.text("#why") == EVIL
    assert EVIL.replace("/", "") in browser.text("#where")
    Select(browser.find("#by-class")).select_by_index(1)
    browser.click("#do-class")
    assert EVIL in [one.text for one in browser.all("#options li")]
    choose_class(browser, "cat")
    [one] = saved(browser)
    assert (one.image, one.label) == (image, "cat")
    assert browser.driver.title == "Label audit"


def test_no_items(browser: Browser, tmp_path: Path) -> None:
    browser.open(audit_page(tmp_path, ()))
    assert browser.text("#nothing") == "There is nothing to correct."
    browser.press("a", "c", Keys.ARROW_RIGHT)
    assert saved(browser) == []


def test_an_unreadable_image(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    browser.open(audit_page(tmp_path, (WRONG_CLASS,)))
    assert browser.text("#view .none") == "The image could not be read."
    browser.click("#do-suggest")
    assert saved(browser) == [changed(label="dog")]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("page", ["audit", "unlabelled"])
def test_it_fits_a_phone_and_text_has_contrast(
    request: pytest.FixtureRequest, tmp_path: Path, page: str, dark: bool
) -> None:
    browser: Browser = request.getfixturevalue(page)
    browser.open(tmp_path / ("audit.html" if page == "audit" else "next.html"), width=400, height=800, dark=dark)
    browser.press("?", "b", Keys.ARROW_LEFT)
    assert not browser.scrolls_sideways()
    assert browser.pale_texts() == []
    browser.press(Keys.ESCAPE, "w")
    assert not browser.scrolls_sideways()
    assert browser.pale_texts() == []
    picker = browser.find("#picker").rect  # no higher than its few classes, and in the middle
    assert picker["height"] < 500
    assert picker["x"] == pytest.approx(400 - picker["x"] - picker["width"], abs=1)
    browser.press(Keys.ESCAPE)
    sizes = browser.js(
        "return [...document.querySelectorAll('#verdicts button')].map((b) => b.getBoundingClientRect().height)"
    )
    assert min(size for size in sizes if size) >= 44


def test_two_thousand_suspects_do_not_slow_it_down(browser: Browser, tmp_path: Path) -> None:
    to_eel = Suggestion(action=Action.change, label="eel")
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    path = tmp_path / "noise.jpg"
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (7, 7), 0))
    suspects = []
    images = {}
    for number in range(500):
        name = f"image {number}"
        objects = [LabelledObject(box=(10 + 9 * k, 20, 60 + 9 * k, 90), label=CLASSES[k % 5]) for k in range(20)]
        images["train", name] = PageImage(record=ImageRecord(name, path, (480, 640)), objects=objects)
        for k in range(4):
            one = objects[k]
            suspects.append(replace(WRONG_CLASS, image=name, object=k, box=one.box, label=one.label, suggestion=to_eel))
    page = LabelsPage(
        title="Label audit", subtitle="", dataset="digest 1", classes=CLASSES, items=suspects, images=images
    )
    write_labels_page(tmp_path / "audit.html", page, LabelsPageConfig(most=2000, side=640))
    browser.open(tmp_path / "audit.html")
    assert browser.text("#count") == "0 of 2000 decided"
    loaded = browser.js("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    steps = browser.js(
        """
        const times = [];
        for (let i = 0; i < 60; i++) {
          const start = performance.now();
          document.getElementById(i % 3 ? "do-suggest" : "next").click();
          document.body.getBoundingClientRect();
          times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b);
        """
    )
    assert loaded < 5000
    assert steps[30] < 200
    assert browser.js("return document.querySelectorAll('#work img').length") == 1
    assert browser.js("return document.querySelectorAll('#work *').length") < 300
    assert len(saved(browser)) == 40

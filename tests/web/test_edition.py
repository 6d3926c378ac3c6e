"""The interlinear edition: words over the words they were drawn from, and walking from one to the next."""

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.tiny_bundle import SENTENCES
from tests.web.browser import SENTENCE, Explorer, opened
from tests.web.replies import ask, evidence_of, links_of

pytestmark = pytest.mark.slow


def test_the_page_names_model_and_languages(explorer: Explorer) -> None:
    assert "tiny" in explorer.text("#model")
    assert explorer.text("#pair") == "English → French"


def test_every_word_stands_over_the_source_words_it_is_linked_to(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    reply = ask(tiny, "explain", text=SENTENCE)
    source = [word["text"] for word in reply["source"]["words"]]
    target = [word["text"] for word in reply["hypothesis"]["target"]["words"]]
    assert explorer.words("source") == source
    assert explorer.words("target") == target
    linked = [[source[s] for t, s in links_of(reply) if t == index] for index in range(len(target))]
    glosses = explorer.page.locator("#edition .target .gloss").all_inner_texts()
    assert glosses == [" ".join(words) or "–" for words in linked]


def test_glosses_of_words_that_touch_do_not_run_together(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    padding = explorer.page.evaluate("parseFloat(getComputedStyle(document.querySelector('.gloss')).paddingInlineEnd)")
    assert padding >= 3


def test_words_without_a_link_are_marked_on_both_sides(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    reply = ask(tiny, "explain", text=SENTENCE)
    links = links_of(reply)
    for side, linked in (("target", {t for t, _ in links}), ("source", {s for _, s in links})):
        unaligned = {
            index for index in range(len(explorer.words(side))) if "unaligned" in explorer.classes(side, index)
        }
        assert unaligned == set(range(len(explorer.words(side)))) - linked


def test_focus_shows_weights_links_and_how_sure_the_word_is(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    reply = ask(tiny, "explain", text=SENTENCE)
    explorer.word("target", 1).focus()
    weights = evidence_of(reply["hypothesis"])[1, :-1]
    above = explorer.page.locator("#edition .source .above").all_inner_texts()
    shown = [round(float(figure.rstrip("%"))) if figure else 0 for figure in above]
    assert shown == [round(100 * weight) if weight >= 0.01 else 0 for weight in weights]
    linked = {s for t, s in links_of(reply) if t == 1}
    assert {s for s in range(len(weights)) if "linked" in explorer.classes("source", s)} == linked
    probability = np.exp(reply["hypothesis"]["wordLogProbabilities"][1])
    percent = "<1" if probability < 0.005 else f"{100 * probability:.0f}"
    assert f"probability {percent} %" in explorer.text("#edition .readout")
    assert f"probability {percent} %" in explorer.text("#announcement")
    sureness = "sure" if probability >= 0.8 else "fair" if probability >= 0.5 else "unsure"
    assert sureness in explorer.classes("target", 1)


def test_hovering_shows_the_same_and_leaving_gives_the_chosen_word_back(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    explorer.word("target", 0).focus()
    chosen = explorer.text("#edition .readout")
    explorer.word("source", 2).hover()
    assert explorer.text("#edition .readout").startswith(explorer.words("source")[2])
    explorer.page.mouse.move(2, 2)
    assert explorer.text("#edition .readout") == chosen


def test_the_whole_page_can_be_used_with_the_keyboard(explorer: Explorer) -> None:
    page = explorer.page
    page.keyboard.press("Tab")
    seen = set()
    while (focused := page.evaluate("document.activeElement.id")) != "text":
        seen.add(focused)
        page.keyboard.press("Tab")
    assert {"language", "theme", "model"} <= seen
    page.keyboard.type(SENTENCE)
    with page.expect_response("**/v1/explain"):
        page.keyboard.press("Control+Enter")
    page.wait_for_selector("#edition .word")
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.side"):
            break
    assert explorer.focused() == ("source", 0)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("ArrowRight")
    assert explorer.focused() == ("source", 1)
    page.keyboard.press("ArrowDown")
    assert explorer.focused()[0] == "target"
    page.keyboard.press("End")
    assert explorer.focused() == ("target", len(explorer.words("target")) - 1)
    page.keyboard.press("Home")
    with page.expect_response("**/v1/alternatives"):
        page.keyboard.press("Enter")
    page.wait_for_selector(".alternatives li")
    assert explorer.focused() == ("target", 0)
    page.locator("#sheet").focus()
    page.keyboard.press("ArrowDown")
    assert "←" in explorer.text("#readout")


def test_notes_stand_at_the_words_they_are_about_in_words(browser: Browser, tiny: str) -> None:
    with opened(browser, tiny) as explorer:
        explorer.translate("The ☃ house is small.")
        assert "Not in the model’s vocabulary: “☃”." in explorer.text(".notes")
        marked = [index for index in range(6) if explorer.word("source", index).locator(".note-mark").count()]
        assert explorer.words("source").index("☃") in marked


def test_several_words_of_a_note_are_quoted_and_kept_apart_one_by_one(explorer: Explorer) -> None:
    quoted = "words => import('/text.js').then(module => module.quoted(words))"
    assert explorer.page.evaluate(quoted, ["one", "two"]) == "“one”, “two”"
    assert explorer.page.evaluate(quoted, ["بيت", "قديم"]) == "“\u2068بيت\u2069”, “\u2068قديم\u2069”"


def test_text_of_several_lines_is_told_that_this_page_is_made_for_one_sentence(explorer: Explorer) -> None:
    note = explorer.page.locator("#lines")
    explorer.page.fill("#text", f"{SENTENCE}\n")
    assert not note.is_visible()
    explorer.page.fill("#text", f"{SENTENCE}\nIt is old.")
    assert note.is_visible()
    assert "interlinear report" in note.inner_text()
    explorer.page.fill("#text", SENTENCE)
    assert not note.is_visible()


def test_only_the_first_words_card_says_that_position_and_word_cannot_be_told_apart_there(
    browser: Browser, embedded: str
) -> None:
    with opened(browser, embedded) as explorer:
        explorer.translate("The house is old.")
        told = []
        for index in range(len(explorer.words("target"))):
            explorer.word("target", index).focus()
            told.append("the same thing here" in explorer.text("#word"))
        assert told == [True] + [False] * (len(told) - 1)


def test_what_speaks_against_a_translation_stands_under_it_in_both_languages(explorer: Explorer, tiny: str) -> None:
    replies = {text: ask(tiny, "explain", text=text) for text in SENTENCES}
    looping = next(text for text, reply in replies.items() if "suspicions" in reply)
    fine = next(text for text, reply in replies.items() if "suspicions" not in reply)
    value = next(each["value"] for each in replies[looping]["suspicions"] if each["reason"].endswith("REPETITION"))
    explorer.translate(looping)
    shown = explorer.text("#edition .doubt").replace("\u00a0", " ")
    assert shown.startswith("To be read with care") and f"{100 * value:.0f} % of it is the same run" in shown
    explorer.page.click("#language")
    assert f"{100 * value:.0f} % 在反复重复" in explorer.text("#edition .doubt").replace("\u00a0", " ")
    explorer.page.click("#language")
    explorer.translate(fine)
    assert explorer.page.locator("#edition .doubt").count() == 0

"""What else the page asks of the service: alternatives, contrasts, given translations, what-ifs."""

import json
import re
from typing import Any

import numpy as np
import pytest

from tests.web.browser import SENTENCE, Explorer
from tests.web.replies import COMPONENTS, ask, matrix, posted

pytestmark = pytest.mark.slow


def test_a_click_lists_alternatives_and_one_can_be_continued_from(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    with explorer.page.expect_response("**/v1/alternatives"):
        explorer.word("target", 1).click()
    explorer.page.wait_for_selector(".alternatives li")
    found = ask(tiny, "alternatives", text=SENTENCE, targetWord=1, limit=6)["alternatives"]
    names = explorer.page.locator(".alternatives .name").all_inner_texts()
    assert names[-len(found) :] == [each.get("text") or "(the translation ends)" for each in found]
    probabilities = [_percent(each["logProbability"]) for each in found]
    assert explorer.page.locator(".alternatives .told").all_inner_texts()[-len(found) :] == probabilities
    others = [each for each in found if each.get("text") not in (None, explorer.words("target")[1])]
    chosen = next(each for each in others if each["hypothesis"]["finishReason"] == "FINISH_REASON_END_OF_SENTENCE")
    with explorer.page.expect_response("**/v1/explain"):
        explorer.page.get_by_label(f"Continue from here with “{chosen['text']}”").first.click()
    explorer.page.wait_for_selector("text=Translation (given)")
    assert explorer.page.input_value("#target") == chosen["hypothesis"]["text"]
    assert explorer.words("target")[1] == chosen["text"]
    with explorer.page.expect_response("**/v1/explain"):
        explorer.page.click("#own-again")


def _percent(log_probability: float) -> str:
    probability = np.exp(log_probability)
    return "<1\u00a0%" if probability < 0.005 else f"{100 * probability:.0f}\u00a0%"


def test_the_word_as_it_stands_leads_the_alternatives_where_it_is_not_among_them(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    own = explorer.words("target")[1]
    found = ask(tiny, "alternatives", text=SENTENCE, targetWord=1, limit=6)["alternatives"]
    for listed in ([each for each in found if each.get("text") != own], [*found[:1], {**found[1], "text": own}]):
        answer = json.dumps({"alternatives": listed})
        explorer.page.route("**/v1/alternatives", lambda route, _, body=answer: route.fulfill(body=body))
        with explorer.page.expect_response("**/v1/alternatives"):
            explorer.word("target", 1).click()
        explorer.page.wait_for_selector(".alternatives li")
        assert explorer.page.locator(".alternatives .name").all_inner_texts().count(own) == 1
        added = "probability of the whole word" in explorer.text(".alternatives")
        assert added == (own not in [each.get("text") for each in listed])
        if added:
            whole = ask(tiny, "explain", text=SENTENCE)["hypothesis"]["wordLogProbabilities"][1]
            assert explorer.page.locator(".alternatives .told").first.inner_text() == _percent(whole)
        explorer.word("target", 0).focus()


def test_a_contrast_tells_why_this_word_and_not_the_other(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    explorer.word("target", 1).click()
    explorer.page.wait_for_selector(".alternatives li")
    with explorer.page.expect_response("**/v1/contrast") as answered:
        explorer.page.get_by_role("button", name=re.compile("^Why")).first.click()
    difference = answered.value.json()["logProbabilityDifference"]
    explorer.page.wait_for_selector("text=times as probable")
    assert f"difference {abs(difference):.2f} nats" in explorer.text("#word")


def test_a_translation_made_elsewhere_is_explained(explorer: Explorer) -> None:
    explorer.translate(SENTENCE, "La maison est petite.")
    assert explorer.words("target") == ["La", "maison", "est", "petite", "."]
    assert "Translation (given)" in explorer.text("#edition")
    explorer.word("target", 1).focus()
    assert "needs the service’s own translation" in explorer.text("#word")
    assert "To test it" not in explorer.text("#word")


def test_a_what_if_shows_both_translations_and_what_changed(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    page = explorer.page
    page.click('[data-preset="context"]')
    page.click('[data-hide="1"]')
    page.select_option("#give-target", "every")
    page.click('[data-hide="1"]')
    page.select_option("#give-target", "none")
    with page.expect_request("**/v1/what-if") as asked, page.expect_response("**/v1/what-if"):
        page.click("#run-what-if")
    names = [f"COMPONENT_{name.upper()}" for name in COMPONENTS[:2]]
    kept = [{"encoder": encoder, "decoder": decoder} for encoder in names for decoder in names]
    assert posted(asked.value)["intervention"] == {"keptTerms": kept}
    page.wait_for_selector("#what-if-result .line")
    reply = ask(tiny, "what-if", text=SENTENCE, intervention={"keptTerms": kept})
    sides = (("before", "baseline", "baselineWordsChanged"), ("after", "changed", "changedWords"))
    for side, hypothesis, field in sides:
        words = [word["text"] for word in reply[hypothesis]["target"]["words"]]
        shown = page.locator(f"#what-if-result .{side} .word")
        assert shown.all_inner_texts() == words
        marks = shown.evaluate_all("words => words.map(word => word.classList.contains('changed'))")
        assert [index for index, marked in enumerate(marks) if marked] == reply.get(field, [])
    assert f"{100 * reply['attentionDistance']:.0f} % on average" in explorer.text("#what-if-result")
    page.click("#show-what-if")
    weights = matrix(reply["changed"]["alignment"]["wordWeights"])
    assert np.abs(np.array(explorer.cell_colors())[:, 0] - np.round(255 * weights.ravel())).max() <= 1


@pytest.mark.parametrize(
    ("edit", "intervention"),
    [
        (lambda page: page.click('[data-hide="1"]'), {"maskedSourceWords": [1]}),
        (lambda page: _replace(page, "garden"), {"replacedSourceWords": [{"sourceWord": 1, "text": "garden"}]}),
        (lambda page: page.select_option("#give-target", "every"), {"givenAttention": [{"flat": True}]}),
        (lambda page: _give(page), {"givenAttention": [{"sourceWord": 1}]}),
        (lambda page: page.uncheck('[data-keep="temporal.temporal"]'), None),
    ],
    ids=["a hidden word", "a replaced word", "a flat row", "a given word", "a dropped term"],
)
def test_every_change_is_asked_for_as_the_contract_says(explorer: Explorer, edit: Any, intervention: Any) -> None:
    explorer.translate(SENTENCE)
    edit(explorer.page)
    with explorer.page.expect_response("**/v1/what-if") as answered:
        explorer.page.click("#run-what-if")
    assert answered.value.status == 200
    asked = posted(answered.value.request)["intervention"]
    assert asked == intervention if intervention else len(asked["keptTerms"]) == 8
    explorer.page.wait_for_selector("#what-if-result .line")
    explorer.page.click("#reset-what-if")
    assert explorer.page.locator("#what-if-result .line").count() == 0


def _replace(page: Any, text: str) -> None:
    page.select_option("#replaced", "1")
    page.fill("#replacement", text)
    page.press("#replacement", "Tab")


def _give(page: Any) -> None:
    page.select_option("#give-target", "every")
    page.select_option("#give-source", "1")


def test_enter_in_a_replacement_translates_with_it(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    explorer.page.select_option("#replaced", "1")
    explorer.page.fill("#replacement", "garden")
    with explorer.page.expect_request("**/v1/what-if") as asked, explorer.page.expect_response("**/v1/what-if"):
        explorer.page.press("#replacement", "Enter")
    assert posted(asked.value)["intervention"] == {"replacedSourceWords": [{"sourceWord": 1, "text": "garden"}]}
    explorer.page.wait_for_selector("#what-if-result .line")
    assert explorer.page.input_value("#replacement") == "garden"


def test_check_it_translates_again_without_that_part(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    explorer.word("target", 0).focus()
    button = explorer.page.locator("[data-check]").first
    group = button.get_attribute("data-check")
    with explorer.page.expect_response("**/v1/what-if") as answered:
        button.click()
    kept = posted(answered.value.request)["intervention"]["keptTerms"]
    assert len(kept) == {"position": 8, "meaning": 6, "context": 4}[str(group)]
    explorer.page.wait_for_selector(".checked")
    pressed = explorer.page.locator('[data-preset][aria-pressed="true"]')
    assert f"Check it: {pressed.inner_text()}" == button.inner_text()
    reply = ask(tiny, "what-if", text=SENTENCE, intervention={"keptTerms": kept})
    stays = 0 not in reply.get("baselineWordsChanged", [])
    assert ("stays." in explorer.text(".checked")) == stays
    changed = reply["changed"]["text"]
    said = "The translation stays the same." if changed == reply["baseline"]["text"] else changed
    assert said in explorer.text(".checked")


def test_no_two_presets_of_the_what_if_have_one_name_or_keep_the_same_terms(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    presets = explorer.page.locator("[data-preset]")
    kept = []
    for index in range(presets.count()):
        presets.nth(index).click()
        assert explorer.page.locator('[data-preset][aria-pressed="true"]').count() == 1
        boxes = explorer.page.locator("[data-keep]")
        kept.append(tuple(boxes.evaluate_all("boxes => boxes.map(box => box.checked)")))
    assert len(set(presets.all_inner_texts())) == len(set(kept)) == len(kept) == 8


def test_without_any_term_there_is_nothing_to_translate_with(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    boxes = explorer.page.locator("[data-keep]")
    for index in range(boxes.count()):
        boxes.nth(index).uncheck()
    assert explorer.page.locator("#run-what-if").is_disabled()
    assert "Tick at least one term" in explorer.text("#what-if")
    boxes.first.check()
    assert explorer.page.locator("#run-what-if").is_enabled()
    assert "Tick at least one term" not in explorer.text("#what-if")


@pytest.mark.parametrize(
    ("selector", "answer"),
    [
        ("[data-check]", ".checked"),
        ('button[data-act="alternatives"]', ".alternatives li"),
        ("[data-why]", "#word h3:has-text('Why')"),
        ("#run-what-if", "#what-if-result .line"),
        ("#reset-what-if", "#what-if-result:empty"),
        ("[data-term]", "[data-term][aria-pressed=true]"),
    ],
)
def test_the_keyboard_stays_where_it_was_when_an_answer_comes(explorer: Explorer, selector: str, answer: str) -> None:
    explorer.translate(SENTENCE)
    explorer.word("target", 1).focus()
    if selector == "[data-why]":
        explorer.page.click('[data-act="alternatives"]')
        explorer.page.wait_for_selector(".alternatives li")
    button = explorer.page.locator(selector).first
    same = button.evaluate("each => [...each.attributes].find(({name}) => /^(id|data-)/.test(name)).value")
    button.press("Enter")
    explorer.page.wait_for_selector(answer, state="attached")
    explorer.page.wait_for_selector("body[aria-busy=false]")
    values = explorer.page.evaluate("[...document.activeElement.attributes].map(({value}) => value)")
    assert same in values

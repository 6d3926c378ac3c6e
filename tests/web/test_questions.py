"""What else the page asks of the service: alternatives, contrasts, given translations, what-ifs."""

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
    assert names == [each.get("text") or "(the translation ends)" for each in found]
    probabilities = [f"{100 * np.exp(each['logProbability']):.0f}\u00a0%" for each in found]
    assert explorer.page.locator(".alternatives .told").all_inner_texts() == probabilities
    others = [each for each in found if each.get("text") not in (None, explorer.words("target")[1])]
    chosen = next(each for each in others if each["hypothesis"]["finishReason"] == "FINISH_REASON_END_OF_SENTENCE")
    with explorer.page.expect_response("**/v1/explain"):
        explorer.page.get_by_label(f"Continue from here with “{chosen['text']}”").first.click()
    explorer.page.wait_for_selector("text=Translation (given)")
    assert explorer.page.input_value("#target") == chosen["hypothesis"]["text"]
    assert explorer.words("target")[1] == chosen["text"]
    with explorer.page.expect_response("**/v1/explain"):
        explorer.page.click("#own-again")


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


def test_a_what_if_shows_both_translations_and_what_changed(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    page = explorer.page
    page.click('[data-preset="presetNoContext"]')
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
    reply = ask(tiny, "what-if", text=SENTENCE, intervention={"keptTerms": kept})
    stays = 0 not in reply.get("baselineWordsChanged", [])
    assert ("stays." in explorer.text(".checked")) == stays
    changed = reply["changed"]["text"]
    said = "The translation stays the same." if changed == reply["baseline"]["text"] else changed
    assert said in explorer.text(".checked")

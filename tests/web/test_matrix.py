"""The matrix, and attention taken apart: what is drawn is what the service says, what is computed equals a twin."""

import json

import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.web.browser import SENTENCE, Explorer, opened
from tests.web.replies import ask, by_words, matrix, rows_of, shares_of, terms_of

pytestmark = pytest.mark.slow


def test_attention_is_drawn_black_for_0_and_white_for_1(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    weights = matrix(ask(tiny, "explain", text=SENTENCE)["hypothesis"]["alignment"]["wordWeights"])
    expected = [[round(255 * weight)] * 3 for weight in weights.ravel()]
    assert np.abs(np.array(explorer.cell_colors()) - expected).max() <= 1
    labels = explorer.page.locator("#sheet .head text").all_text_contents()
    assert labels == [*explorer.words("source"), "∎"]


def test_pieces_come_on_demand(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    explorer.page.select_option("#unit", "pieces")
    weights = matrix(ask(tiny, "explain", text=SENTENCE)["attentionWeights"])
    expected = [[round(255 * weight)] * 3 for weight in weights.ravel()]
    assert np.abs(np.array(explorer.cell_colors()) - expected).max() <= 1


def test_what_is_known_with_the_word_is_a_view_of_its_own_and_what_the_edition_shows(
    browser: Browser, embedded: str
) -> None:
    with opened(browser, embedded) as explorer:
        explorer.translate(SENTENCE)
        explorer.page.select_option("#show", "posterior")
        alignment = ask(embedded, "explain", text=SENTENCE)["hypothesis"]["alignment"]
        weights = matrix(alignment["posteriorWordWeights"])
        drawn = np.array(explorer.cell_colors())[:, 0]
        assert np.abs(drawn - np.round(255 * weights.ravel())).max() <= 1
        explorer.word("target", 1).focus()
        above = explorer.page.locator("#edition .source .above").all_inner_texts()
        assert above == [f"{100 * weight:.0f}%" if weight >= 0.01 else "" for weight in weights[1, :-1]]
        assert "Once the word is known" in explorer.text("#word")


def test_the_color_option_is_a_ramp_for_weights_and_diverges_for_signed_terms(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    explorer.page.select_option("#ramp", "color")
    assert any(red != green for red, green, _ in explorer.cell_colors())
    explorer.page.select_option("#show", "term.delta.delta")
    red, _, blue = np.array(explorer.cell_colors()).T
    assert (red > blue).any() and (blue > red).any()
    assert "Blue is −" in explorer.text("#caption")


def test_every_view_can_be_chosen_and_is_drawn_anew(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    views = explorer.page.locator("#show option").evaluate_all("options => options.map(option => option.value)")
    assert len(views) == 3 + 9 + 13
    drawn = set()
    for view in views:
        explorer.page.select_option("#show", view)
        drawn.add(json.dumps(explorer.cell_colors()))
    assert len(drawn) == len(views) - 1  # the sum of the nine terms is the scores
    explorer.page.click('[data-term="temporal.delta"]')
    assert explorer.page.input_value("#show") == "term.temporal.delta"


def test_what_is_computed_in_the_page_equals_a_twin(explorer: Explorer, tiny: str) -> None:
    reply = ask(tiny, "explain", text=SENTENCE)
    script = """(module, reply) => {
      const explanation = module.readExplanation(reply);
      const rows = explanation.hypothesis.text.words.map((_, word) => module.rowsOfWord(explanation, word));
      const views = ["weights", "scores", "sum", ...module.TERMS.map(term => `term.${term}`)];
      const rebuilt = [...module.SUBSETS.keys()].map(name => [name, module.pieceMatrix(explanation, `kept:${name}`)]);
      return {
        words: views.map(view => module.byWords(explanation, module.pieceMatrix(explanation, view)).values),
        rebuilt: Object.fromEntries(rebuilt.map(([name, matrix]) => [name, matrix.values])),
        shares: rows.map(each => [...module.sharesOver(explanation, each).values()]),
        all: [...module.sharesOver(explanation, explanation.scores.map((_, row) => row)).values()],
      };
    }"""
    computed = explorer.reading(script, reply)
    terms = terms_of(reply)
    weights, scores = matrix(reply["attentionWeights"]), matrix(reply["attentionScores"])
    expected = [
        matrix(reply["hypothesis"]["alignment"]["wordWeights"]),
        *(by_words(reply, values) for values in (scores, np.sum(list(terms.values()), axis=0), *terms.values())),
    ]
    for words, twin in zip(computed["words"], expected, strict=True):
        np.testing.assert_allclose(words, twin, atol=1e-5)
    for distance in reply["decomposition"]["subsetDistances"]:
        rebuilt = np.array(computed["rebuilt"][distance["subset"]])
        assert np.abs(weights - rebuilt).sum(axis=1).mean() / 2 == pytest.approx(distance["totalVariation"], abs=1e-5)
    np.testing.assert_allclose(computed["shares"], [shares_of(reply, rows) for rows in rows_of(reply)], atol=1e-4)
    np.testing.assert_allclose(computed["all"], [t["share"] for t in reply["decomposition"]["terms"]], atol=1e-4)


def test_the_verdict_names_the_only_group_with_more_than_half(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    reply = ask(tiny, "explain", text=SENTENCE)
    for index, rows in enumerate(rows_of(reply)):
        grid = shares_of(reply, rows).reshape(3, 3)
        groups = {"position": grid[0, 0], "meaning": grid[:2, :2].sum() - grid[0, 0]}
        groups["context"] = 1 - sum(groups.values())
        large = [name for name, share in groups.items() if share > 0.5]
        explorer.word("target", index).focus()
        verdict = explorer.page.locator("#word .verdict")
        assert verdict.get_attribute("data-verdict") == (large[0] if len(large) == 1 else "mixed")
        assert explorer.words("target")[index] in verdict.inner_text()


def test_shares_are_shown_signed_for_word_and_sentence(explorer: Explorer, tiny: str) -> None:
    explorer.translate(SENTENCE)
    explorer.word("target", 0).focus()
    reply = ask(tiny, "explain", text=SENTENCE)
    told = explorer.page.locator('#shares tr[data-term="delta.delta"] .told').all_inner_texts()
    ours = [shares_of(reply, rows_of(reply)[0])[8], reply["decomposition"]["terms"][8]["share"]]
    for shown, share in zip(told, ours, strict=True):
        assert float(shown.replace("−", "-").rstrip(" %")) == pytest.approx(100 * share, abs=0.51)


def test_components_are_drawn_on_both_sides_with_the_chosen_word_marked(explorer: Explorer) -> None:
    explorer.translate(SENTENCE)
    explorer.word("source", 1).focus()
    sides = explorer.page.locator("#components figure")
    assert sides.count() == 2
    assert sides.first.locator(".curve").count() == 3
    assert sides.first.locator(".marked").count() >= 1
    assert explorer.page.locator("#word .neighbors dt").count() >= 1

"""``interlinear what-if``, ``contrast`` and ``alternatives`` against a real service, and what they draw."""

import json

import pytest
from google.protobuf import json_format
from rich.console import Console

from service.commands.terminal_changes import alternatives_view, contrast_view, marked, numbered, what_if_view
from service.pb import interlinear_pb2 as pb
from tests.commands.command import Run
from tests.service.edge import SENTENCE
from tests.service.explanations import explanation

TARGET = "La maison est petite, mais le jardin est grand."


def shown(interlinear: Run, *arguments: str) -> str:
    result = interlinear(*arguments)
    assert (result.returncode, result.stderr) == (0, b"")
    return result.stdout.decode()


def what_if(interlinear: Run, *arguments: str) -> pb.WhatIfResponse:
    response = pb.WhatIfResponse()
    json_format.Parse(shown(interlinear, "what-if", SENTENCE, "--json", *arguments), response)
    return response


def drawn(view: object) -> str:
    console = Console(width=100, no_color=True)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_nothing_changed_changes_nothing(interlinear: Run) -> None:
    response = what_if(interlinear)
    assert response.baseline == response.changed
    text = shown(interlinear, "what-if", SENTENCE)
    assert "0 of " in text and "changes by 0 nats" in text and "0.000" in text


def test_a_masked_word_gets_no_attention(interlinear: Run) -> None:
    weights = what_if(interlinear, "--mask", "1", "--mask", "3").changed.alignment.word_weights
    rows = [weights.values[start : start + weights.columns] for start in range(0, len(weights.values), weights.columns)]
    assert rows and all(row[1] == row[3] == 0 for row in rows)


def test_a_replaced_word_stands_in_the_source(interlinear: Run) -> None:
    response = what_if(interlinear, "--replace", "1=garden", "--replace", "7=")
    assert response.changed_source.text.startswith("The garden is small")
    assert "7:is" in shown(interlinear, "what-if", SENTENCE, "--replace", "7="), "words are numbered after the change"


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("temporal", ["temporal_temporal"]),
        (
            "no_delta",
            ["temporal_temporal", "temporal_input_driven", "input_driven_temporal", "input_driven_input_driven"],
        ),
    ],
)
def test_a_short_name_stands_for_its_terms(interlinear: Run, name: str, terms: list[str]) -> None:
    one_by_one = [argument for term in terms for argument in ("--keep", term)]
    short, long = what_if(interlinear, "--keep", name), what_if(interlinear, *one_by_one)
    assert short.changed == long.changed and short.attention_distance == long.attention_distance > 0


def test_a_term_is_named_encoder_first(interlinear: Run) -> None:
    first, second = (what_if(interlinear, "--keep", term) for term in ("temporal_delta", "delta_temporal"))
    assert first.attention_distance != second.attention_distance


def test_attention_can_be_flattened_and_forced(interlinear: Run) -> None:
    weights = what_if(interlinear, "--flatten").changed.alignment.word_weights
    assert len(set(weights.values)) < 20
    forced = what_if(interlinear, "--attend", "0=1")
    assert forced.row_attention_distances[0] > 0


def test_a_contrast_tells_which_is_likelier_and_where_attention_differs(interlinear: Run) -> None:
    text = shown(interlinear, "contrast", SENTENCE, "--target", TARGET, "--word", "1", "--alternative", "jardin")
    assert "[maison]" in text and "[jardin]" in text and "times as probable" in text
    assert "input-driven" in text and "house" in text
    reply = json.loads(
        shown(interlinear, "contrast", SENTENCE, "--target", TARGET, "--word", "1", "--alternative", "jardin", "--json")
    )
    assert f"{abs(reply['logProbabilityDifference']):.3f}" in text


def test_alternatives_are_listed_with_what_follows(interlinear: Run) -> None:
    text = shown(interlinear, "alternatives", SENTENCE, "--target", TARGET, "--word", "1", "--limit", "3")
    assert "[maison]" in text
    assert text.count("%") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("what-if", SENTENCE, "--mask", "99"), "masked_source_words"),
        (("what-if", SENTENCE, "--replace", "1=a", "--replace", "1=b"), "word 1 is replaced twice"),
        (("contrast", SENTENCE, "--target", TARGET, "--word", "1", "--alternative", ""), "alternative"),
        (("alternatives", SENTENCE, "--target", TARGET, "--word", "99"), "target_word"),
    ],
)
def test_what_the_service_refuses_is_one_line_and_exit_code_1(
    interlinear: Run, arguments: tuple[str, ...], words: str
) -> None:
    result = interlinear(*arguments)
    assert (result.returncode, result.stdout) == (1, b"")
    (line,) = result.stderr.decode().splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("what-if", SENTENCE, "--keep", "everything"), "no_delta"),
        (("what-if", SENTENCE, "--replace", "house"), "--replace"),
        (("what-if", SENTENCE, "--replace", "one=house"), "from 0"),
        (("what-if", SENTENCE, "--attend", "1=x"), "--attend"),
        (("what-if", SENTENCE, "--mask", "-1"), "mask"),
        (("contrast", SENTENCE, "--word", "1"), "alternative"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(interlinear: Run, arguments: tuple[str, ...], words: str) -> None:
    result = interlinear(*arguments)
    assert result.returncode == 2 and words in result.stderr.decode()


def test_words_are_marked_where_they_stand_and_the_text_around_them_stays() -> None:
    text = explanation(["naïve", "👍", "mot"], []).source
    assert marked(text, [1, 2, 9]).plain == "naïve [👍] [mot]"
    assert marked(text, []).plain == text.text
    assert numbered(text).plain.split() == ["0:naïve", "1:👍", "2:mot"]


def test_changes_add_up_over_the_pieces_of_a_word() -> None:
    baseline = explanation(["a"], ["x", "y"]).hypothesis
    baseline.target.words[0].piece_indices[:] = [0, 1]
    del baseline.target.words[1]
    response = pb.WhatIfResponse(
        baseline=baseline,
        baseline_words_changed=[0],
        token_log_probability_changes=[-1.0, -0.5, 0.25],
        row_attention_distances=[0.2, 0.4, 0.1],
    )
    rows = [line.split() for line in drawn(what_if_view(response)).splitlines()]
    assert ["[x]", "-1.500", "0.300"] in rows
    assert ["∎", "+0.250", "0.100"] in rows


def test_a_large_ratio_stays_a_number_a_person_can_read() -> None:
    hypothesis = explanation(["a"], ["x"]).hypothesis
    sides = [pb.ContrastSide(hypothesis=hypothesis, target_words=[0], source_weights=[0.5, 0.5]) for _ in range(2)]
    response = pb.ContrastResponse(
        source=explanation(["a"], []).source,
        chosen=sides[0],
        alternative=sides[1],
        log_probability_difference=-500.0,
        source_weight_differences=[0.0, 0.0],
    )
    assert "more than 1,000,000,000 times" in drawn(contrast_view(response))


def test_an_end_of_the_translation_is_an_alternative_too() -> None:
    response = pb.ListAlternativesResponse(source=explanation(["a"], []).source, target=explanation(["x"], []).source)
    response.alternatives.add(text="", log_probability=-0.5)
    assert "∎" in drawn(alternatives_view(response, 1)) and "60.7 %" in drawn(alternatives_view(response, 1))

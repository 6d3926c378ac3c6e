"""What ``interlinear what-if``, ``contrast`` and ``alternatives`` draw in a terminal; without colors it still reads."""

import math
from collections.abc import Collection, Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.commands.terminal import COMPONENT_NAMES, END_OF_SENTENCE, nine, warning_line
from service.pb import interlinear_pb2 as pb

_MARKED = "bold reverse"
_SHOWN_FROM = 0.005  # smaller differences would print as 0.00
_LARGEST_NATS = math.log(1e9)  # larger ratios tell a person nothing more


def what_if_view(response: pb.WhatIfResponse) -> RenderableType:
    """Return the translation before and after, what changed in it, and how far attention moved, word by word."""
    baseline, changed = response.baseline, response.changed
    source = response.changed_source if response.HasField("changed_source") else response.source
    distance, words = response.attention_distance, len(baseline.target.words)
    lines: list[RenderableType] = [
        Text.assemble(("source  ", "dim"), numbered(source)),
        Text.assemble(("before  ", "dim"), marked(baseline.target, response.baseline_words_changed)),
        Text.assemble(("after   ", "dim"), marked(changed.target, response.changed_words)),
        Text(f"\n{len(response.baseline_words_changed)} of {words} words changed, in [brackets]"),
        Text(f"log-probability of the translation before changes by {_signed(response.log_probability_change)} nats"),
        Text(f"attention moved by {distance:.3f} on average (0 the same, 1 disjoint)\n"),
        _word_changes(response),
        *(warning_line(warning, source, baseline.target) for warning in response.warnings),
    ]
    return Group(*lines)


def contrast_view(response: pb.ContrastResponse) -> RenderableType:
    """Return how probable two words are, which source words each attends to, and by which terms."""
    chosen, alternative = response.chosen, response.alternative
    ours, theirs = (_side_text(side) for side in (chosen, alternative))
    difference = response.log_probability_difference
    likelier, other = (ours, theirs) if difference >= 0 else (theirs, ours)
    lines: list[RenderableType] = [
        Text.assemble(("source       ", "dim"), response.source.text),
        Text.assemble(("chosen       ", "dim"), marked(chosen.hypothesis.target, chosen.target_words)),
        Text.assemble(("alternative  ", "dim"), marked(alternative.hypothesis.target, alternative.target_words)),
        Text(
            f"\nlog p({ours}) = {chosen.log_probability:.3f} nats, log p({theirs}) = "
            f"{alternative.log_probability:.3f} nats: {_signed(difference)}\n{likelier!r} is "
            f"{_times(abs(difference))} times as probable as {other!r} here\n"
        ),
        _attention_of_both(response, ours, theirs),
    ]
    if response.share_differences:
        keys: list[tuple[int, int]] = [(encoder, decoder) for encoder in COMPONENT_NAMES for decoder in COMPONENT_NAMES]
        shares = {key: f"{100 * share:+.1f} %" for key, share in zip(keys, response.share_differences, strict=True)}
        lines.append(Text("Shares of the nine terms, chosen less alternative (encoder down, decoder across)"))
        lines.append(nine(shares))
    lines += [warning_line(warning, response.source, chosen.hypothesis.target) for warning in response.warnings]
    return Group(*lines)


def alternatives_view(response: pb.ListAlternativesResponse, target_word: int) -> RenderableType:
    """Return the words that might stand at a place, each with the translation that would follow from it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("word", "probability", "log p", "the translation that follows"):
        table.add_column(heading, justify="right" if heading in ("probability", "log p") else "left")
    for each in response.alternatives:
        probability = f"{100 * math.exp(each.log_probability):.1f} %"
        word = Text(each.text or END_OF_SENTENCE, style="bold")
        table.add_row(word, probability, f"{each.log_probability:.3f}", Text(each.hypothesis.text))
    return Group(
        Text.assemble(("source  ", "dim"), response.source.text),
        Text.assemble(("target  ", "dim"), marked(response.target, [target_word])),
        table,
        Text("probability of the first piece of each word, given the words before it", style="dim"),
    )


def numbered(text: pb.TokenizedText) -> Text:
    """Return the words with the numbers by which options name them."""
    shown = Text()
    for index, word in enumerate(text.words):
        shown.append(f"{index}:", style="dim").append(f"{word.text} ")
    return shown


def marked(text: pb.TokenizedText, words: Collection[int]) -> Text:
    """Return the text with some of its words, by index, in [brackets] and highlighted."""
    shown, end = Text(), 0
    for index in sorted(set(words) & set(range(len(text.words)))):
        span = text.words[index].span
        shown.append(text.text[end : span.start_code_point])
        shown.append(f"[{text.words[index].text}]", style=_MARKED)
        end = span.end_code_point
    return shown.append(text.text[end:])


def _word_changes(response: pb.WhatIfResponse) -> Table:
    """Return a row a word of the translation before: log-probabilities add up over pieces, distances are averaged."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("word")
    for heading in ("Δ log p, nats", "attention moved"):
        table.add_column(heading, justify="right")
    changed = set(response.baseline_words_changed)
    for index, (word, pieces) in enumerate(_words_with_rows(response.baseline)):
        change = sum(response.token_log_probability_changes[row] for row in pieces)
        moved = sum(response.row_attention_distances[row] for row in pieces) / len(pieces)
        shown = Text(f"[{word}]", style=_MARKED) if index in changed else Text(word)
        table.add_row(shown, _signed(change), f"{moved:.3f}")
    return table


def _words_with_rows(hypothesis: pb.Hypothesis) -> Iterator[tuple[str, Sequence[int]]]:
    """Yield each word of a hypothesis and the end of sentence, if it has one, with the rows of its tokens."""
    for word in hypothesis.target.words:
        yield word.text, word.piece_indices
    for row in range(len(hypothesis.target.pieces), len(hypothesis.token_log_probabilities)):
        yield END_OF_SENTENCE, [row]


def _attention_of_both(response: pb.ContrastResponse, ours: str, theirs: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("attention to", ours, theirs, "difference"):
        table.add_column(Text(heading), justify="left" if heading == "attention to" else "right")
    words = [*(word.text for word in response.source.words), END_OF_SENTENCE]
    columns = response.chosen.source_weights, response.alternative.source_weights, response.source_weight_differences
    for word, first, second, difference in zip(words, *columns, strict=True):
        shown = f"{difference:+.2f}" if abs(difference) >= _SHOWN_FROM else ""
        table.add_row(Text(word), f"{first:.2f}", f"{second:.2f}", shown)
    return table


def _side_text(side: pb.ContrastSide) -> str:
    return " ".join(side.hypothesis.target.words[index].text for index in side.target_words)


def _signed(nats: float) -> str:
    return f"{nats:+.3f}" if round(nats, 3) else "0"


def _times(nats: float) -> str:
    """Return how many times as probable something is that is so many nats more probable."""
    times = math.exp(min(nats, _LARGEST_NATS))
    if nats > _LARGEST_NATS:
        return f"more than {times:,.0f}"
    return f"{times:,.0f}" if times >= 100 else f"{times:.3g}"

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.commands.report_page import measure, record, repeated_ratio, report_into
from service.pb import interlinear_pb2 as pb
from tests.service.explanations import explanation

HOSTILE = ["<b>", "</script><script>alert(1)</script>", '"&amp;', "]]>", "<!--"]


class Page(HTMLParser):
    """A report as a browser without JavaScript has it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.records: list[str] = []
        self.tags: list[str] = []
        self._in_cell = self._in_record = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag == "script" and ("type", "application/json") in attrs:
            self._in_record = True
            self.records.append("")
        elif tag in ("td", "th"):
            self._in_cell = True
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_record = self._in_record and tag != "script"
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_record:
            self.records[-1] += data
        elif self._in_cell:
            self.rows[-1][-1] += data


def page_of(folder: Path, *explanations: pb.ExplainResponse, title: str = "file.txt") -> str:
    file = folder / "report.html"
    with report_into(file, title) as report:
        for line, response in enumerate(explanations, 1):
            report.add(line, response)
    return file.read_text("utf-8")


def test_measures_are_what_their_definitions_say() -> None:
    weights = np.array([[0.9, 0.05, 0.05], [0.5, 0.04, 0.46], [0.0, 1.0, 0.0]])
    response = explanation(["a", "b"], ["x", "y"], weights)
    response.hypothesis.word_log_probabilities[:] = [-0.2, -2.0]
    measures = measure(response)
    assert measures.confidence == pytest.approx(math.exp(-0.5))
    assert measures.weakest_word == pytest.approx(math.exp(-2.0))
    assert measures.uncovered_source == 0.5, "b got 0.09 from words; what the end of sentence looks at does not count"
    shares = {(term.encoder, term.decoder): term.share for term in response.decomposition.terms}
    deltas = [share for sides, share in shares.items() if pb.COMPONENT_DELTA in sides]
    assert len(deltas) == 5 and measures.delta_share == pytest.approx(sum(deltas))
    entropies = [-sum(weight * math.log(weight) for weight in row) for row in weights[:2]]
    assert measures.alignment_entropy == pytest.approx(np.mean(entropies), abs=1e-6)


def test_a_translation_without_words_has_measures_too() -> None:
    measures = measure(explanation(["a"], [], np.array([[0.3, 0.7]])))
    assert (measures.repetition, measures.alignment_entropy, measures.weakest_word) == (0.0, 0.0, 1.0)
    assert measures.uncovered_source == 1.0


@given(st.lists(st.sampled_from("abC"), max_size=12))
def test_repetition_counts_pairs_that_stood_there_before(words: list[str]) -> None:
    seen: set[tuple[str, str]] = set()
    again = 0
    for pair in zip(words, words[1:], strict=False):
        again += pair in seen
        seen.add(pair)
    assert repeated_ratio(words) == pytest.approx(again / max(len(words) - 1, 1))
    assert repeated_ratio([word.swapcase() for word in words] + words) == repeated_ratio(words + words)


def test_a_record_gives_the_words_links_and_weights_back() -> None:
    response = explanation(["naïve", "👍", "word"], ["mot", "égal"])
    kept = record(response)
    units = response.source.text.encode("utf-16-le")
    words = [units[2 * start : 2 * end].decode("utf-16-le") for start, end in kept["source"]["places"]]
    assert words == ["naïve", "👍", "word"]
    weights = np.frombuffer(base64.b64decode(kept["weights"]), np.uint8).reshape(3, 4) / 255
    sent = np.frombuffer(response.hypothesis.alignment.word_weights.packed_float32, "<f4").reshape(3, 4)
    assert weights == pytest.approx(sent, abs=0.5 / 255 + 1e-6)
    links = response.hypothesis.alignment.links
    assert kept["links"] == [[link.target_index, link.source_index, round(link.weight, 3)] for link in links]


def test_without_javascript_it_is_a_table_of_every_sentence(tmp_path: Path) -> None:
    page = Page(page_of(tmp_path, explanation(["one"], ["un"]), explanation(["two", "cats"], ["deux", "chats"])))
    heading, first, second, median = page.rows[:4]
    assert len(heading) == len(first) == len(second) == 8
    assert (first[0], first[1]) == ("1", "oneun") and second[1] == "two catsdeux chats"
    assert first[2] == "61 %", "exp(-0.5)"
    assert median[0] == "median" and len(median) == 7


@pytest.mark.parametrize(
    ("probability", "shown"), [(0.004, "<1 %"), (0.0051, "1 %"), (0.0, "0 %"), (0.996, "100 %"), (0.5, "50 %")]
)
def test_a_small_probability_is_not_said_to_be_none(tmp_path: Path, probability: float, shown: str) -> None:
    response = explanation(["one"], ["un"])
    response.hypothesis.word_log_probabilities[:] = [math.log(probability) if probability else -math.inf]
    assert Page(page_of(tmp_path, response)).rows[1][3] == shown


def test_no_text_becomes_markup_and_records_survive(tmp_path: Path) -> None:
    text = page_of(tmp_path, explanation(HOSTILE, HOSTILE[::-1]), title="<i>&.txt")
    page = Page(text)
    assert page.rows[1][1] == " ".join(HOSTILE) + " ".join(HOSTILE[::-1])
    assert page.tags.count("script") == 2, "one record, one program"
    assert page.tags.count("b") == 2 and "i" not in page.tags, "the two counts are bold"
    assert "&lt;i&gt;&amp;.txt" in text
    assert json.loads(page.records[0])["source"]["text"] == " ".join(HOSTILE)


def test_it_asks_nothing_of_any_network(tmp_path: Path) -> None:
    text = page_of(tmp_path, explanation(["a"], ["b"]))
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text and not re.search(r"<(link|img|iframe)|\ssrc=", text)


def test_refused_lines_are_listed_and_hidden_when_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    with report_into(file, "file.txt") as report:
        report.refuse(7, "too <long>")
        assert report.refused == 1
    text = file.read_text("utf-8")
    assert ["7", "too <long>"] in Page(text).rows and 'refusals-title" hidden' not in text
    assert 'refusals-title" hidden' in page_of(tmp_path, explanation(["a"], ["b"]))


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("an earlier one")
    with pytest.raises(ZeroDivisionError), report_into(file, "file.txt") as report:
        report.add(1, explanation(["a"], ["b"]))
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert file.read_text() == "an earlier one"


def test_a_folder_that_is_not_there_is_told_before_the_work_begins(tmp_path: Path) -> None:
    file = tmp_path / "no" / "report.html"
    with pytest.raises(FileNotFoundError) as raised, report_into(file, "file.txt"):
        pytest.fail("the work began")
    assert str(raised.value) == f"{file} cannot be written: No such file or directory"


def test_the_same_explanations_make_the_same_page(tmp_path: Path) -> None:
    first, second = (page_of(tmp_path, explanation(["a", "b"], ["x"])) for _ in range(2))
    assert first == second


def test_a_sentence_of_twenty_words_takes_little_room(tmp_path: Path) -> None:
    words = [f"word{index}" for index in range(20)]
    one, two = (len(page_of(tmp_path, *[explanation(words, words)] * count)) for count in (1, 2))
    assert two - one < 2500

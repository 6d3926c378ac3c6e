"""The race, as far as it can be run without its rivals: what is counted, chosen, refused and written."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bundle import manifest as manifests
from bundle.tokenizer import Tokenizer
from tests.benchmarks.race.contender import require_exact
from tests.benchmarks.race.engine_contender import EngineContender
from tests.benchmarks.race.entrants import Entrant, Way, entrants
from tests.benchmarks.race.environment import RaceError, rivals_python
from tests.benchmarks.race.grpc_contender import texts
from tests.benchmarks.race.lanes import Contender
from tests.benchmarks.race.rounds import Outcome, Plan, Race, Record
from tests.benchmarks.race.table import Results, markdown, percentile, ratio
from tests.benchmarks.race.work import (
    EQUAL,
    OPUS,
    SOURCE_TOKENS,
    TARGET_TOKENS,
    VOCABULARY,
    Turn,
    recurrent_parameters,
    sentences,
)
from training.models.registry import build_model

ROOT = Path(__file__).parent.parent
EMBEDDED = ROOT / "service" / "bundles" / "en-fr"

# A contender that sleeps for as long as its argument says a sentence, a tenth of it where parts are counted in tokens,
# and then claims to have translated.
SLEEPER = """
import os, sys, time
from tests.benchmarks.race.contender import compete, repeated

def prepared():
    print("loading", flush=True)
    os.system("echo loaded")
    return repeated(translate)

def translate(turn):
    time.sleep(float(sys.argv[1]) * turn.batch * (0.1 if turn.settings.get("batch_type") == "tokens" else 1))
    return [15] * turn.batch

compete(prepared)
"""


def way(label: str, seconds: float, cuts_batches: bool = False) -> Way:
    return Way(label, (sys.executable, "-c", SLEEPER, str(seconds)), cuts_batches=cuts_batches)


# What is counted


@pytest.mark.parametrize(
    "sizes",
    [
        {"embedding": 384, "hidden": 512, "key": 128, "encoder_layers": 2, "decoder_layers": 2},
        {"embedding": 12, "hidden": 20, "key": 7, "encoder_layers": 3, "decoder_layers": 1},
    ],
)
def test_our_parameters_are_counted_as_torch_counts_them(sizes: dict[str, int]) -> None:
    model = build_model({"architecture": "aed", **sizes}, VOCABULARY)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert recurrent_parameters({**sizes, "vocabulary": VOCABULARY}) == counted


def test_the_transformer_of_equal_size_is_within_five_percent_of_the_embedded_model() -> None:
    sizes = manifests.read(EMBEDDED).sizes
    assert sizes["vocabulary"] == VOCABULARY
    assert abs(EQUAL.parameters / recurrent_parameters(sizes) - 1) < 0.05


def test_a_transformer_is_counted_as_its_equations_say() -> None:
    width, inner = 512, 2048
    encoder = 4 * (width * width + width) + (width * inner + inner) + (inner * width + width) + 2 * 2 * width
    decoder = encoder + 4 * (width * width + width) + 2 * width
    assert OPUS.parameters == VOCABULARY * (width + 1) + 6 * (encoder + decoder) + 2 * 2 * width


# That the work is the same


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("alignment", [False, True])
async def test_the_engine_gives_exactly_the_tokens_asked_for(
    tiny_bundle: Path, beam_size: int, alignment: bool
) -> None:
    contender = EngineContender(tiny_bundle, threads=1)
    try:
        turn = Turn(batch=3, beam_size=beam_size, alignment=alignment, seconds=0.0)
        assert await contender.translate(turn) == [TARGET_TOKENS] * 3
        assert (await contender.take(turn)).tokens == 3 * TARGET_TOKENS
    finally:
        await contender.close()


@pytest.mark.parametrize("lengths", [[15, 14], [15], [15, 16], []])
def test_other_work_than_was_asked_for_ends_the_race(lengths: list[int]) -> None:
    require_exact([15, 15], 2)
    with pytest.raises(AssertionError, match="2 targets of 15 tokens"):
        require_exact(lengths, 2)


def test_the_sources_have_as_many_tokens_as_every_contender_is_given() -> None:
    assert {len(ids) + 1 for ids in sentences(8, 4, VOCABULARY)} == {SOURCE_TOKENS}
    tokenizer = Tokenizer(EMBEDDED / "tokenizer.model")
    made = texts(tokenizer, 20)
    assert {len(tokenizer.encode(text).token_ids) + 1 for text in made} == {SOURCE_TOKENS}
    assert len(set(made)) == 20


# Processes that take turns


def test_a_contender_that_talks_is_understood_and_one_that_ends_is_told_with_its_last_words() -> None:
    talker = Contender(way("", 0.0).command)
    assert talker.take(Turn(batch=2, beam_size=1, alignment=False, seconds=0.0)).tokens == 2 * TARGET_TOKENS
    talker.close()
    with pytest.raises(RaceError, match="ended: ModuleNotFoundError: No module named 'no_such_rival'"):
        Contender((sys.executable, "-c", "import no_such_rival"))


def test_the_fastest_setting_is_raced_and_a_broken_toolkit_is_left_out() -> None:
    broken = Way("as it is", (sys.executable, "-c", "import no_such_rival"))
    raced = [
        Entrant("ours", "interlinear", "int8", 9, (way("only", 0.001),)),
        Entrant("theirs", "equal", "int8", 9, (way("slow", 0.05), way("fast", 0.001))),
        Entrant("toolkit", "toolkit", "float32", 9, (broken,), aligns=False),
    ]
    said: list[str] = []
    race = Race(raced, Plan((1, 2), (1, 4, 5), rounds=2, seconds=0.0), said.append)
    race.run(starts=2)
    assert set(race.outcomes["theirs"].settings.values()) == {"fast"}
    assert "no_such_rival" in race.outcomes["toolkit"].broken
    assert len(race.outcomes["ours"].startup_seconds) == 2
    assert race.outcomes["ours"].peak_mib > 0
    turns = [(r.entrant, r.batch, r.beam_size, r.alignment, r.round) for r in race.records]
    assert len(turns) == len(set(turns)) == 2 * 2 * 3 * 2 * 2  # entrants, batches, beam sizes, alignment, rounds
    assert [entrant for entrant, *_ in turns[:4]] == ["ours", "ours", "theirs", "theirs"]
    assert turns[12 * 2][0] == "theirs"  # who begins changes from round to round
    assert all(len(r.latencies) == (1 if r.batch == 1 else 0) for r in race.records)


def test_the_fastest_setting_is_cut_as_is_best_for_it() -> None:
    ways = (way("slow", 0.03, cuts_batches=True), way("fast", 0.002, cuts_batches=True))
    race = Race([Entrant("theirs", "equal", "int8", 9, ways)], Plan((8,), (4,), 1, 0.0), lambda _: None)
    race.run(starts=1)
    assert race.outcomes["theirs"].settings == {"8 x 4": "fast; max_batch_size 1024, batch_type tokens"}


def test_a_rival_that_is_no_toolkit_must_start() -> None:
    missing = Entrant("theirs", "equal", "int8", 9, (Way("", (sys.executable, "-c", "import no_such_rival")),))
    with pytest.raises(RaceError, match="no_such_rival"):
        Race([missing], Plan((1,), (1,), 1, 0.0), lambda _: None).run(starts=1)


def test_batches_are_cut_for_as_many_as_work_at_a_time() -> None:
    two = Way("2 × 1", (), parallel=2, cuts_batches=True)
    assert two.first_settings(32) == {"max_batch_size": 16, "batch_type": "examples"}
    assert two.first_settings(1)["max_batch_size"] == 1 and not two.other_settings(1)
    assert {settings["max_batch_size"] for settings in two.other_settings(128)} == {16, 32, 128, 1024}
    assert two.other_settings(128)[-1]["batch_type"] == "tokens"
    assert way("ours", 0).first_settings(32) == {}


def test_every_setting_of_a_rival_uses_all_threads_and_no_more() -> None:
    raced = entrants({"float32": EMBEDDED, "int8": EMBEDDED}, Path("models"), Path("python"), threads=4)
    rivals = [entrant for entrant in raced if entrant.family in ("equal", "opus")]
    assert len(rivals) == 4
    for entrant in rivals:
        splits = {tuple(map(int, one.command[-2:])) for one in entrant.ways}
        assert splits == {(1, 4), (2, 2), (4, 1)}
    types = {entrant.precision: {one.command[-3] for one in entrant.ways} for entrant in rivals}
    assert types == {"float32": {"float32"}, "int8": {"int8", "int8_float32"}}


# The rivals' environment


def test_rivals_that_cannot_be_installed_are_refused_with_what_to_do(tmp_path: Path) -> None:
    requirements = tmp_path / "race.lock"
    requirements.write_text("--no-index\nno-such-rival==1.0\n", encoding="utf-8")
    with pytest.raises(RaceError, match=r"(?s)race\.lock cannot be installed.*PIP_INDEX_URL.*no-such-rival"):
        rivals_python(tmp_path / "rivals", requirements)
    assert not (tmp_path / "rivals" / "ready").exists()  # or it would pass for made the next time


def test_rivals_are_installed_once_for_what_is_asked(tmp_path: Path) -> None:
    requirements = tmp_path / "race.lock"
    requirements.write_text("# nobody\n", encoding="utf-8")
    python = rivals_python(tmp_path / "rivals", requirements)
    stamp = tmp_path / "rivals" / "ready"
    made = stamp.stat().st_mtime_ns
    assert rivals_python(tmp_path / "rivals", requirements) == python and python.exists()
    assert stamp.stat().st_mtime_ns == made
    requirements.write_text("# somebody else\n", encoding="utf-8")
    rivals_python(tmp_path / "rivals", requirements)
    assert stamp.stat().st_mtime_ns != made


# The table


def entrant(name: str, family: str, precision: str) -> Entrant:
    ways = (Way("", ()),) if family in ("interlinear", "service") else (Way("a", ()), Way("b", ()))
    return Entrant(name, family, precision, 9_254_080, ways, aligns=family != "toolkit")  # type: ignore[arg-type]  # a test's own


def records(name: str, cell: tuple[int, int], alignment: bool, rates: Sequence[float]) -> list[Record]:
    latencies = [0.001, 0.002, 0.009] if cell[0] == 1 else []
    return [Record(name, *cell, alignment, number, rate, latencies) for number, rate in enumerate(rates)]


@pytest.fixture
def results() -> Results:
    raced = [
        entrant("Interlinear int8", "interlinear", "int8"),
        entrant("gRPC int8", "service", "int8"),
        entrant("CTranslate2 float32", "equal", "float32"),
        entrant("CTranslate2 int8", "equal", "int8"),
        entrant("Joey NMT", "toolkit", "float32"),
    ]
    turns = []
    for cell in ((1, 1), (32, 4)):
        turns += records("Interlinear int8", cell, True, [3000.0, 1500.0, 2000.0])
        turns += records("Interlinear int8", cell, False, [3000.0, 1500.0, 2500.0])
        turns += records("gRPC int8", cell, True, [1500.0, 1200.0, 1000.0])
        turns += records("CTranslate2 float32", cell, False, [100.0, 100.0, 100.0])
        turns += records("CTranslate2 int8", cell, True, [1000.0, 1000.0, 1000.0])
        turns += records("CTranslate2 int8", cell, False, [1000.0, 500.0, 900.0])
    outcomes = {one.name: Outcome(startup_seconds=[1.0, 3.0, 2.0], peak_mib=120.4) for one in raced}
    outcomes["Joey NMT"] = Outcome(broken="it ended: ImportError")
    outcomes["CTranslate2 int8"].settings = {"1 x 1": "1 × 2 threads", "32 x 4": "2 × 1 threads"}
    return Results(raced, turns, outcomes, ["2026-01-01, a processor."])


def row(text: str, *beginning: str) -> list[str]:
    """Return the cells of the one row that begins so."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    (found,) = [cells for cells in rows if cells[: len(beginning)] == list(beginning)]
    return found


def test_a_ratio_is_taken_within_rounds_and_against_the_fastest_of_equal_size(results: Results) -> None:
    cells = row(markdown(results), "1", "1", "yes")
    assert cells[3] == "2,000 ± 38%"
    assert cells[-1] == "2.00 (1.50–3.00)"  # int8 with attention is the faster of the two; not the median over medians
    assert row(markdown(results), "32", "4", "no")[-1] == "2.50 (1.50–3.00)"


def test_who_takes_no_part_in_a_cell_has_a_dash_there(results: Results) -> None:
    cells = row(markdown(results), "1", "1", "no")
    assert cells[4] == "–" and cells[7] == "–"


def test_the_contenders_are_told_with_memory_start_up_and_latency_or_why_they_are_broken(results: Results) -> None:
    text = markdown(results)
    assert row(text, "Interlinear int8") == ["Interlinear int8", "9,254,080", "2.00", "120", "2.00 / 9.00"]
    assert row(text, "Joey NMT")[2] == "broken: it ended: ImportError"
    assert "* CTranslate2 int8: 1 × 2 threads (1 x 1); 2 × 1 threads (32 x 4)" in text
    assert text.startswith("2026-01-01, a processor.\n")


def test_the_bars_are_told_beside_what_was_measured(results: Results) -> None:
    text = markdown(results)
    assert row(text, "times CTranslate2 of equal size: batch 1, beam 1")[1:] == ["≥ 2", "2.00 (1.50–3.00)"]
    assert row(text, "times CTranslate2 of equal size: batch 32, beam 4")[1] == "≥ 1.5"
    assert row(text, "gRPC over the engine's own: 32 callers, beam 4")[1:] == ["≥ 0.85", "0.50 (0.50–0.80)"]
    assert row(text, "p50 ms that gRPC adds: one caller, beam 1")[1:] == ["< 1", "0.00"]
    assert row(text, "speed with alignment over without: batch 1, beam 1")[2] == "1.00 (0.80–1.00)"
    assert "the toolkit:" not in text and "OPUS" not in text  # nobody raced there


def test_a_table_has_as_many_cells_in_every_row(results: Results) -> None:
    extra = records("Joey NMT", (1, 1), False, [1.0, 1.0, 1.0])
    whole = replace(
        results,
        records=[*results.records, *extra],
        outcomes=results.outcomes | {"Joey NMT": Outcome(startup_seconds=[1.0])},
    )
    for text in (markdown(results), markdown(whole)):
        tables = text.split("\n\n")
        for table in (part.splitlines() for part in tables if part.startswith("|")):
            assert len({line.count("|") for line in table}) == 1


def test_ratios_and_percentiles_of_little() -> None:
    assert ratio([], [1.0]) == ratio([1.0], []) == "–"
    assert ratio([20.0, 33.0, 40.0], [10.0, 11.0, 10.0]) == "3.00 (2.00–4.00)"
    assert percentile([3.0], 99) == 3.0
    assert percentile([float(number) for number in range(1, 101)], 99) == 99.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.0

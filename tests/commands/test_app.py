import contextlib
import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from rich.console import Console

from bundle.alignment import read_pharaoh
from service.client import array
from service.commands.terminal import END_OF_SENTENCE, explanation_view, warning_line
from service.pb import interlinear_pb2 as pb
from tests.commands.command import Run, command, environment
from tests.service.edge import ROOT, SENTENCE, ServiceProcess
from tests.tiny_bundle import SENTENCES


def test_each_text_becomes_a_line(interlinear: Run) -> None:
    result = interlinear("translate", *SENTENCES[:3])
    assert (result.returncode, result.stderr) == (0, b"")
    lines = result.stdout.decode().splitlines()
    assert len(lines) == 3 and all(lines)
    assert interlinear("translate", SENTENCES[1]).stdout.decode().splitlines() == [lines[1]]


def test_lines_come_out_in_order_and_empty_ones_stay_empty(interlinear: Run) -> None:
    known = dict(zip(SENTENCES, interlinear("translate", *SENTENCES).stdout.decode().splitlines(), strict=True))
    lines = ["", SENTENCES[0], "   ", *SENTENCES * 10, "", "\u200b", SENTENCES[2]]
    result = interlinear("translate", stdin="\n".join(lines).encode())
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode().split("\n")[:-1] == [known.get(line, "") for line in lines]


def test_windows_line_ends_are_line_ends(interlinear: Run) -> None:
    plain = interlinear("translate", stdin=f"{SENTENCE}\n\n".encode())
    assert interlinear("translate", stdin=f"{SENTENCE}\r\n\r\n".encode()).stdout == plain.stdout


def test_a_refused_line_leaves_its_place_empty_and_says_why(interlinear: Run) -> None:
    result = interlinear(
        "translate", stdin=f"{SENTENCE}\n{'word ' * 500}\n".encode() + b"caf\xe9\n" + SENTENCE.encode()
    )
    first, *refused, last = result.stdout.decode().split("\n")[:-1]
    assert refused == ["", ""] and first == last != ""
    assert result.returncode == 1
    too_long, not_text = result.stderr.decode().splitlines()
    assert too_long.startswith("interlinear: line 2: ") and "tokens" in too_long or "characters" in too_long
    assert not_text.startswith("interlinear: line 3") and "UTF-8" in not_text


def test_a_file_is_translated_with_progress_on_standard_error(interlinear: Run, tmp_path: Path) -> None:
    file = tmp_path / "source.txt"
    file.write_text("\n".join(SENTENCES), "utf-8")
    result = interlinear("translate", "--file", str(file))
    assert result.returncode == 0
    assert result.stdout == interlinear("translate", *SENTENCES).stdout
    assert f"{len(SENTENCES)}/{len(SENTENCES)}" in result.stderr.decode()


def test_answers_come_before_the_input_ends(service: ServiceProcess) -> None:
    arguments, pipe = command("translate"), subprocess.PIPE
    with subprocess.Popen(arguments, cwd=ROOT, env=environment(service.address), stdin=pipe, stdout=pipe) as process:
        assert process.stdin is not None and process.stdout is not None
        for _ in range(2):
            process.stdin.write(f"{SENTENCE}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_decoding_options_reach_the_search(interlinear: Run) -> None:
    result = interlinear("translate", "--beam-size", "1", "--forced-prefix", "Le jardin", SENTENCE)
    assert result.stdout.decode().startswith("Le jardin")
    short = interlinear("translate", "--max-target-tokens", "2", SENTENCE).stdout
    assert len(short) < len(interlinear("translate", SENTENCE).stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("translate", "--beam-size", "99", SENTENCE), "beam_size"),
        (("translate", "--model", "klingon", SENTENCE), "klingon"),
        (("explain", ""), "nothing to translate"),
        (("explain", SENTENCE, "--target", ""), "target"),
        (("explain", b"caf\xe9"), "UTF-8"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(interlinear: Run, arguments: tuple[str, ...], words: str) -> None:
    result = interlinear(*arguments)
    assert (result.returncode, result.stdout) == (1, b"")
    (line,) = result.stderr.decode().splitlines()
    assert words in line


@pytest.mark.parametrize(
    "arguments", [("translate", "a", "--file", __file__), ("explain", "a", "--json", "--pharaoh"), ("sing",)]
)
def test_a_wrong_command_line_is_exit_code_2(interlinear: Run, arguments: tuple[str, ...]) -> None:
    assert interlinear(*arguments).returncode == 2


@pytest.mark.parametrize("arguments", [("translate",), ("explain", SENTENCE), ("models",)])
def test_a_service_that_is_not_there_is_exit_code_3(interlinear: Run, arguments: tuple[str, ...]) -> None:
    result = interlinear(*arguments, "--address", "127.0.0.1:1", "--timeout", "20", stdin=b"one\ntwo\n" * 50)
    assert (result.returncode, result.stdout) == (3, b"")
    (line,) = result.stderr.decode().splitlines()
    assert "127.0.0.1:1" in line and "interlinear serve" in line


def test_a_failure_does_not_wait_for_a_line_that_may_never_come() -> None:
    arguments, pipe = command("translate", "--timeout", "5"), subprocess.PIPE
    with subprocess.Popen(arguments, cwd=ROOT, env=environment("127.0.0.1:1"), stdin=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(f"{SENTENCE}\n".encode())
        process.stdin.flush()
        try:
            assert process.wait(timeout=30) == 3
        finally:
            process.kill()
        (line,) = process.stderr.read().decode().splitlines()
        assert "127.0.0.1:1" in line


@pytest.mark.parametrize(("redirection", "words"), [("0>/dev/null", "descriptor"), ("0<&-", "closed")])
def test_an_input_that_cannot_be_read_is_told_and_exit_code_2(
    service: ServiceProcess, redirection: str, words: str
) -> None:
    shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command("translate")]
    result = subprocess.run(shell, cwd=ROOT, env=environment(service.address), capture_output=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, b"")
    assert words in result.stderr.decode() and "Traceback" not in result.stderr.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
def test_an_output_that_cannot_be_written_is_one_line_and_exit_code_2(service: ServiceProcess) -> None:
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            command("translate", SENTENCE),
            env=environment(service.address),
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert "space" in line


def test_a_failure_gives_the_terminal_its_cursor_back(tmp_path: Path) -> None:
    file = tmp_path / "source.txt"
    file.write_text(f"{SENTENCE}\n" * 100, "utf-8")
    ours, theirs = pty.openpty()
    arguments = command("translate", "--timeout", "5", "--file", str(file))
    with subprocess.Popen(
        arguments, cwd=ROOT, env=environment("127.0.0.1:1") | {"TERM": "xterm"}, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # how Linux tells the end of a terminal
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 3
    assert b"\x1b[?25l" in shown, "no bar was drawn: this test would prove nothing"
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")
    assert b"interlinear serve" in shown


def explained(interlinear: Run, *arguments: str) -> pb.ExplainResponse:
    result = interlinear("explain", SENTENCE, "--json", *arguments)
    assert (result.returncode, result.stderr) == (0, b"")
    response = pb.ExplainResponse()
    json_format.Parse(result.stdout, response)
    return response


def test_json_is_the_protos_own_mapping(interlinear: Run) -> None:
    response = explained(interlinear)
    assert response.hypothesis.text == interlinear("translate", SENTENCE).stdout.decode().rstrip("\n")
    weights = array(response.attention_weights)
    assert weights.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    total = sum(array(term.contribution) for term in response.decomposition.terms)
    assert np.abs(total - array(response.attention_scores)).max() < 1e-3


def test_a_target_of_our_own_is_explained(interlinear: Run) -> None:
    target = "La maison est petite, mais le jardin est grand."
    response = explained(interlinear, "--target", target)
    assert (response.forced, response.hypothesis.text) == (True, target)


def test_pharaoh_links_are_those_of_the_alignment(interlinear: Run) -> None:
    sure, _ = read_pharaoh(interlinear("explain", SENTENCE, "--pharaoh").stdout.decode())
    links = explained(interlinear).hypothesis.alignment.links
    assert sure == {(link.target_index, link.source_index) for link in links}


def test_the_terminal_shows_words_weights_shares_and_trust(interlinear: Run) -> None:
    shown = interlinear("explain", SENTENCE).stdout.decode()
    response = explained(interlinear)
    for word in (*response.source.words, *response.hypothesis.target.words):
        assert word.text in shown
    for word in (response.hypothesis.text, END_OF_SENTENCE, "input-driven", "without delta", "reconstruction error"):
        assert word in shown
    assert len(re.findall(r"[+-]\d+\.\d %", shown)) == 9


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_heat_map_fits_the_terminal_and_loses_no_word(interlinear: Run, width: int) -> None:
    response = explained(interlinear)
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(explanation_view(response, width))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= width
    assert all(word.text in shown for word in response.source.words)


def test_a_warning_about_a_token_read_names_its_row_and_not_the_piece_emitted_there() -> None:
    response = pb.ExplainResponse()
    for texts, tokens in (("casa grande", response.source), ("maison verte", response.hypothesis.target)):
        for text in texts.split():
            tokens.pieces.add(text=text)
    for side in (pb.SIDE_SOURCE, pb.SIDE_TARGET):
        response.warnings.add(kind=pb.WARNING_KIND_UNSEEN_TOKEN, side=side, positions=[1], message="unseen")
    response.warnings.add(kind=pb.WARNING_KIND_UNKNOWN_TOKEN, side=pb.SIDE_TARGET, positions=[1], message="unknown")
    assert [
        warning_line(warning, response.source, response.hypothesis.target).plain for warning in response.warnings
    ] == [
        "warning (source: grande): unseen",
        "warning (target rows, from 0: 1): unseen",
        "warning (target: verte): unknown",
    ]


def test_models_are_listed_for_people_and_as_json(interlinear: Run) -> None:
    shown = interlinear("models").stdout.decode()
    listed = json_format.Parse(interlinear("models", "--json").stdout, pb.ListModelsResponse())
    assert listed.models[0].name in shown and listed.models[0].digest in shown


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(service: ServiceProcess) -> None:
    arguments, pipe = command("translate"), subprocess.PIPE
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(service.address), stdin=pipe, stdout=pipe, stderr=pipe
    )
    with process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        process.stdin.write(f"{SENTENCE}\n".encode() * 5)
        process.stdin.close()
        assert process.wait(timeout=30) == 1
        assert process.stderr.read() == b""


def test_serve_takes_options_over_the_environment_and_ends_well(tiny_bundle: Path) -> None:
    arguments = (
        "serve",
        "--bundle",
        str(tiny_bundle),
        "--grpc-address",
        "127.0.0.1:0",
        "--http-address",
        "127.0.0.1:0",
    )
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment("not an address") | {"INTERLINEAR_BUNDLE": "/no/such/bundle"},
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stderr is not None
        assert any(json.loads(line)["event"] == "serving" for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"INTERLINEAR_BUNDLE": "/no/such/bundle"}, "/no/such/bundle"),
        ({"INTERLINEAR_DEVICE": "tpu", "INTERLINEAR_THREADS": "-1"}, "INTERLINEAR_THREADS"),
        ({"INTERLINEAR_DEVICE": "cuda:0"}, "cuda:0"),
    ],
)
def test_a_service_that_cannot_start_says_why_and_ends(
    tiny_bundle: Path, variables: dict[str, str], words: str
) -> None:
    defaults = environment("127.0.0.1:0")
    result = subprocess.run(
        command("serve"),
        cwd=ROOT,
        env=defaults | {"INTERLINEAR_BUNDLE": str(tiny_bundle)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert words in result.stderr and "Traceback" not in result.stderr


def test_a_guarded_translation_tells_its_doubts_and_a_loop_is_made_again(interlinear: Run) -> None:
    plain = interlinear("translate", *SENTENCES)
    reported = interlinear("translate", "--guard", "report", *SENTENCES)
    assert (plain.stderr, reported.stdout, reported.returncode) == (b"", plain.stdout, 0)
    doubted = re.findall(rb"line (\d+) is suspicious: \d+% of the translation is one run", reported.stderr)
    assert doubted
    retried = interlinear("translate", "--guard", "retry", *SENTENCES)
    lines = zip(plain.stdout.splitlines(), retried.stdout.splitlines(), strict=True)
    assert [str(number).encode() for number, (one, other) in enumerate(lines, 1) if one != other] == doubted
    assert b"one run of words" not in retried.stderr
    looping = SENTENCES[int(doubted[0]) - 1]
    assert b"suspicious: " in interlinear("explain", looping).stdout
    blocked = interlinear("translate", "--no-repeat-ngram-size", "3", looping)
    assert blocked.stdout == retried.stdout.splitlines(keepends=True)[int(doubted[0]) - 1]

"""``interlinear translate --document``, as people run it, against a service in another process."""

import os
import pty
import re
import signal
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.commands.command import Run, command, environment
from tests.service.edge import ROOT, ServiceProcess, service_process, unused_address

DOCUMENT = (
    "\ufeffThe house is small. It's raining again!\r\n\r\n\r\n"
    "  - How many brothers?\r\n\t2) I don't know.  \r\n* * *\r\n\u2029My father's car is older than yours.\u00a0\n\n \n"
).encode()


@pytest.fixture
def translate(interlinear: Run) -> Run:
    return partial(interlinear, "translate")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "document.txt"
    file.write_bytes(DOCUMENT)
    return file


def translations(translate: Run) -> list[bytes]:
    """What single sentences of the document are translated into."""
    sentences = ("The house is small.", "It's raining again!", "How many brothers?", "I don't know.")
    result = translate(*sentences, "My father's car is older than yours.")
    assert result.returncode == 0
    return result.stdout.splitlines()


def test_everything_between_the_sentences_is_kept_byte_for_byte(translate: Run, file: Path) -> None:
    result = translate("--document", str(file))
    assert (result.returncode, result.stderr) == (0, b"")
    house, rain, brothers, know, car = translations(translate)
    expected = "\ufeff".encode() + house + b" " + rain + b"\r\n\r\n\r\n  - " + brothers + b"\r\n\t2) " + know
    expected += b"  \r\n* * *\r\n\xe2\x80\xa9" + car + b"\xc2\xa0\n\n \n"
    assert result.stdout == expected


def test_a_document_may_come_on_standard_input(translate: Run, file: Path) -> None:
    assert translate("--document", "-", stdin=DOCUMENT).stdout == translate("-d", str(file)).stdout


@pytest.mark.parametrize("content", [b"", b"\n", b" \r\n\r\n\t", b"* * *", "\ufeff".encode()])
def test_what_holds_no_sentence_comes_back_as_it_is(translate: Run, content: bytes) -> None:
    result = translate("--document", "-", stdin=content)
    assert (result.returncode, result.stdout) == (0, content)


def test_sentences_that_touch_in_the_document_are_kept_apart_in_a_translation_with_spaces(translate: Run) -> None:
    _, rain, *_ = translations(translate)
    result = translate("--document", "-", stdin="The house is small.。It's raining again!".encode())
    assert result.returncode == 0
    assert result.stdout == translate("The house is small.。").stdout.rstrip(b"\n") + b" " + rain


def test_a_file_is_there_when_it_is_whole(translate: Run, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    result = translate("--document", str(file), "--output", str(output))
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert output.read_bytes() == translate("--document", str(file)).stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["document.txt", "output.txt"]


def test_a_document_is_not_written_over_by_its_translation(translate: Run, file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.txt"
    link.symlink_to(file)
    for output in (file, link):
        result = translate("--document", str(file), "--output", str(output))
        assert result.returncode == 2
        assert b"is the document itself, which would be lost; name another file" in result.stderr
    assert file.read_bytes() == DOCUMENT


def test_a_translation_that_was_cut_off_is_told_with_its_line(translate: Run, file: Path) -> None:
    file.write_bytes(b"How many brothers?\n\nMy father's car is older than yours.\n")
    said = b"interlinear: line %d: the translation was cut off at 3 tokens, the most it may have; its end is missing\n"
    expected = said % 1 + said % 3
    document = translate("--document", str(file), "--max-target-tokens", "3")
    assert (document.returncode, document.stderr) == (0, expected)
    for result in (
        translate("--file", str(file), "--max-target-tokens", "3"),
        translate("--max-target-tokens", "3", stdin=file.read_bytes()),
    ):
        told = [line for line in result.stderr.splitlines(keepends=True) if line.startswith(b"interlinear: ")]
        assert (result.returncode, b"".join(told)) == (0, expected)
    guarded = translate("--document", str(file), "--max-target-tokens", "3", "--guard", "report")
    assert guarded.stderr.count(b"cut off") == 2 and b"line 3 is suspicious: " in guarded.stderr


def test_ctrl_c_says_what_is_left_and_how_much_of_it(service: ServiceProcess, tmp_path: Path) -> None:
    document, output = tmp_path / "document.txt", tmp_path / "output.txt"
    document.write_bytes(b"".join(b"Number %d, I don't know.\n" % number for number in range(20_000)))
    asking = subprocess.Popen(
        command("translate", "--document", str(document), "--output", str(output)),
        cwd=ROOT,
        env=environment(service.address),
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "output.txt.partial"
    while not partial.exists() or not partial.stat().st_size:
        assert asking.poll() is None
        time.sleep(0.01)
    asking.send_signal(signal.SIGINT)
    _, said = asking.communicate(timeout=60)
    assert asking.returncode == 130 and not output.exists()
    told = re.search(rf"the translation of the first (\d+) sentences is in {re.escape(str(partial))}", said)
    assert told is not None, said
    assert abs(int(told[1]) - partial.read_bytes().count(b"\n") - 1) <= 1  # the signal may come amid a sentence


def test_a_sentence_that_is_refused_stays_in_its_language_and_its_line_is_told(translate: Run, file: Path) -> None:
    file.write_bytes(b"How many brothers?\r\n\r\nTw\0o. I don't know.\r\nThr\0ee.\r\n")
    result = translate("--document", str(file))
    assert result.returncode == 1
    _, _, brothers, know, _ = translations(translate)
    assert result.stdout == brothers + b"\r\n\r\nTw\0o. " + know + b"\r\nThr\0ee.\r\n"
    first, second = result.stderr.decode().splitlines()
    assert first.startswith("interlinear: line 3: text is not text: the text holds a NUL character")
    assert second.startswith("interlinear: line 4: ")


def test_options_are_those_of_single_texts(translate: Run, file: Path) -> None:
    file.write_bytes(b"My father's car is older than yours.")
    for options in (("--beam-size", "1"), ("--max-target-tokens", "3"), ("--length-penalty", "0")):
        expected = translate(*options, "My father's car is older than yours.").stdout.rstrip(b"\n")
        assert translate("--document", str(file), *options).stdout == expected


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--document", "missing.txt"), 2, "there is no missing.txt; check its name"),
        (("--document", "{folder}"), 2, "is a folder; name a file"),
        (("--document", "{file}", "--file", "{file}"), 2, "only one of them"),
        (("--document", "{file}", "text"), 2, "only one of them"),
        (("--output", "o.txt", "text"), 2, "--output is for --document"),
        (("--document", "{file}", "--output", "{folder}"), 2, "is no file"),
        (("--document", "{file}", "--output", "{folder}/none/o.txt"), 2, "none; make it, or name a file in another"),
        (("--document", "{file}", "--beam-size", "99"), 1, "beam_size is 99; allowed is 1 to 16"),
        (("--document", "{file}", "--forced-prefix", "La"), 1, "a document has many; leave it out"),
        (("--document", "{file}", "--model", "other"), 1, "no model 'other' is loaded"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    translate: Run, file: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    result = translate(*(argument.format(file=file, folder=file.parent) for argument in arguments))
    assert result.returncode == code
    assert said in result.stderr.decode().replace("\n", " ").replace("│ ", "").replace(" │", "")


def test_a_file_that_is_not_utf_8_is_refused_with_the_place(translate: Run, file: Path) -> None:
    file.write_bytes("One.\nDéjà vu.".encode("latin-1"))
    result = translate("--document", str(file))
    assert result.returncode == 2
    assert b"not valid UTF-8 at byte 6 (line 2); convert it first, for instance with iconv" in result.stderr


def test_without_a_service_it_is_told_where_none_answers(translate: Run, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "output.txt"
    arguments = ("--document", str(file), "--output", str(output), "--timeout", "2")
    result = translate(*arguments, variables={"INTERLINEAR_GRPC_ADDRESS": "127.0.0.1:9"})
    assert result.returncode == 3
    assert b"no" in result.stderr and [path.name for path in tmp_path.iterdir()] == ["document.txt"]


def test_progress_is_shown_to_a_person_who_does_not_see_the_translation(
    service: ServiceProcess, file: Path, tmp_path: Path
) -> None:
    shown, stderr = pty.openpty()
    with subprocess.Popen(
        command("translate", "--document", str(file), "--output", str(tmp_path / "o.txt")),
        cwd=ROOT,
        env=environment(service.address) | {"TERM": "xterm"},
        stderr=stderr,
    ):
        pass
    os.close(stderr)
    assert f"{len(DOCUMENT)}/{len(DOCUMENT)} bytes" in os.read(shown, 65536).decode()
    os.close(shown)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_service_that_is_restarted_meanwhile_costs_nothing_but_time(
    tiny_bundle: Path, translate: Run, tmp_path: Path, how: signal.Signals
) -> None:
    """The service is ended, twice, while a document is in progress, and another one takes its place."""
    source = b"".join(b"Number %d, my father's car is older than yours.\r\n\r\n" % number for number in range(500))
    expected = translate("--document", "-", stdin=source).stdout
    document, output = tmp_path / "document.txt", tmp_path / "output.txt"
    document.write_bytes(source)
    address = unused_address()
    with ExitStack() as stack:

        def start() -> ServiceProcess:
            settings = {"GRPC_ADDRESS": address, "DRAIN_SECONDS": "0", "DRAIN_DELAY_SECONDS": "0"}
            return stack.enter_context(service_process(tiny_bundle, **settings))

        running = start()
        asking = subprocess.Popen(
            command("translate", "--document", str(document), "--output", str(output)),
            cwd=ROOT,
            env=environment(address),
            stderr=subprocess.PIPE,
        )
        partial, seen = tmp_path / "output.txt.partial", 0
        for _ in range(2):
            while not partial.exists() or partial.stat().st_size < seen + 2000:
                assert asking.poll() is None
                time.sleep(0.01)
            seen = partial.stat().st_size
            running.process.send_signal(how)
            running.process.wait(timeout=60)
            running = start()
        _, said = asking.communicate(timeout=120)
    assert asking.returncode == 0
    assert all(b"the translation was cut off" in line for line in said.splitlines())  # and nothing but that is told
    assert output.read_bytes() == expected

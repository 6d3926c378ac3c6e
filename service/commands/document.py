"""``interlinear translate --document``: a whole text file, everything between its sentences kept byte for byte."""

import contextlib
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeRemainingColumn

from service.client import CallFailed, Client, failure
from service.commands.command_line import Connection, Unusable, ask, tell
from service.commands.terminal import cut_off, doubts
from service.pb import interlinear_pb2 as pb

STANDARD_INPUT = Path("-")

_PART_CHARACTERS = 16_384  # of one message
_LINE_BREAK = re.compile(rb"\r\n?|\n")


def translate_file(connection: Connection, options: pb.DocumentOptions, file: Path, output: Path | None) -> int:
    """Write the translation of a document and tell of each sentence that was refused; return how many were.

    Args:
        connection: How to reach the service.
        options: How to translate.
        file: The document; ``STANDARD_INPUT`` is no file.
        output: Where its translation goes; None for standard output.

    Raises:
        OSError: A file cannot be read or written.
        Unusable: The document is not UTF-8, or is to be written over, or the service cannot go on with it after a
            connection broke.
        CallFailed: The service refused the whole document, or could not be reached any more.
    """
    if output is not None and output.exists() and file != STANDARD_INPUT and output.samefile(file):
        raise Unusable(f"--output {output} is the document itself, which would be lost; name another file")
    content = _content(file)
    job = _Job(content, options)
    try:
        with _destination(output, job) as written, _progress(output) as progress:
            bar = progress.add_task("", total=len(content))
            ask(connection, lambda client: job.translate(client, written, progress, bar))
    finally:  # what there is to say of the part that was translated, also where the rest could not be
        for remark in job.remarks:
            tell(remark)
    return job.refused


class _Job:
    """A document being translated.

    Attributes:
        sentences: Written so far.
        refused: Those left in their language.
        remarks: What to tell of sentences, in their order.
    """

    def __init__(self, content: bytes, options: pb.DocumentOptions) -> None:
        self.sentences = 0
        self.refused = 0
        self.remarks: list[str] = []
        self._content = content
        self._options = options

    async def translate(self, client: Client, output: IO[bytes], progress: Progress, bar: TaskID) -> None:
        """Write the translation as it comes."""
        done, last = 0, ""
        async for reply in client.translate_stream(self._options, _parts(self._content)):
            if reply.WhichOneof("response") == "end":
                output.write(reply.end.after.encode())
                progress.update(bar, completed=len(self._content))
                break
            sentence = reply.sentence
            if done + len(sentence.before.encode()) != sentence.span.start_byte:
                raise Unusable(
                    "the service does not go on where it broke off: it has another model now, for which it cuts the "
                    "document in another way. Translate it again from its beginning."
                )
            done = sentence.span.end_byte
            translated = self._translated(sentence)
            between = sentence.before or _space_after(last)
            last = translated
            output.write((between + translated).encode())
            self.sentences += 1
            output.flush()  # whoever reads along gets each sentence when it is there
            progress.update(bar, completed=done)

    def _translated(self, sentence: pb.DocumentSentence) -> str:
        """Return the translation of a sentence, or the sentence, and remember what there is to say of it."""
        start, end = sentence.span.start_byte, sentence.span.end_byte
        if sentence.WhichOneof("result") == "translation":
            if self._options.guard and (said := doubts(sentence.translation.suspicions)):
                self.remarks.append(f"line {_line(self._content, start)} is suspicious: {said}")
            elif said := cut_off(sentence.translation):
                self.remarks.append(f"line {_line(self._content, start)}: {said}")
            return str(sentence.translation.hypotheses[0].text)
        error: CallFailed = failure(sentence.error)
        if error.reason != "SOURCE_EMPTY":  # a sentence of invisible characters says nothing in any language
            self.refused += 1
            self.remarks.append(f"line {_line(self._content, start)}: {error}")
        return self._content[start:end].decode()


def _content(file: Path) -> bytes:
    """Return a document in UTF-8."""
    if file != STANDARD_INPUT:
        name, content = str(file), file.read_bytes()
    elif sys.stdin is None:  # how Python tells that its caller has closed it
        raise Unusable("standard input is closed; name a file")
    else:
        if sys.stdin.isatty():
            tell("reading a document from standard input; Ctrl-D ends")
        name, content = "standard input", sys.stdin.buffer.read()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        where = f"{name} is not valid UTF-8 at byte {error.start} (line {_line(content, error.start)})"
        raise Unusable(f"{where}; convert it first, for instance with iconv") from None
    return content


def _parts(content: bytes) -> list[str]:
    text = content.decode()
    return [text[start : start + _PART_CHARACTERS] for start in range(0, len(text), _PART_CHARACTERS)]


def _line(content: bytes, byte: int) -> int:
    """Return the number, from 1, of the line that ``byte`` is in."""
    return 1 + len(_LINE_BREAK.findall(content, 0, byte))


def _space_after(translated: str) -> str:
    """Return what keeps a sentence apart from one before it that it touches in the document, as in Chinese.

    Only a translation into such a script, whose characters are wide, lets them touch as well.
    """
    return "" if not translated or unicodedata.east_asian_width(translated[-1]) in "WF" else " "


@contextlib.contextmanager
def _destination(output: Path | None, job: _Job) -> Iterator[IO[bytes]]:
    """Yield where to write: standard output, or a file beside ``output`` that takes its place when it is whole."""
    if output is None:
        yield sys.stdout.buffer
        return
    output = output.resolve()  # a link stays one
    if output.exists() and not output.is_file():
        raise Unusable(f"{output} is no file; leave --output out to write to standard output")
    if not output.parent.is_dir():
        raise Unusable(f"there is no folder {output.parent}; make it, or name a file in another")
    partial = output.with_name(f"{output.name}.partial")
    with partial.open("wb") as file:
        try:
            yield file
        except BaseException:  # Ctrl-C too
            if job.sentences:
                what = f"the translation of the first {job.sentences} sentences"
                tell(f"the document is not done: {what} is in {partial}; {output} is as it was")
            else:
                partial.unlink()
            raise
    os.replace(partial, output)


@contextlib.contextmanager
def _progress(output: Path | None) -> Iterator[Progress]:
    """Yield a bar on standard error, shown to a person who does not see the translation itself come in."""
    console = Console(stderr=True)
    reading_along = output is None and sys.stdout.isatty()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=reading_along or not console.is_terminal) as progress:
        yield progress

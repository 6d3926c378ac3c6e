from pathlib import Path

import pytest

from bundle.sessions import encoder_inputs, padded, session_entries


def test_sources_are_padded_to_a_multiple_of_sixteen() -> None:
    assert [padded(length) for length in (1, 16, 17)] == [16, 16, 32]
    inputs = encoder_inputs([[5, 3], [7] * 17], pad=0)
    assert inputs["source_ids"].shape == (2, 32)
    assert inputs["source_ids"][0].tolist() == [5, 3] + [0] * 30
    assert inputs["source_lengths"].tolist() == [2, 17]


@pytest.mark.parametrize(
    ("processor", "asked"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n", False),
        ("flags\t\t: fpu sse2 avx2 avx_vnni\n", False),
        ("flags\t\t: fpu sse2 avx2 avx512f\n", True),
        ("Features\t: fp asimd asimddp\n", False),
        (None, False),
    ],
)
def test_exact_products_are_asked_for_where_the_processor_would_cut_them(
    tmp_path: Path, processor: str | None, asked: bool
) -> None:
    if processor is not None:
        (tmp_path / "cpuinfo").write_text(processor)
    assert ("session.x64quantprecision" in session_entries(tmp_path / "cpuinfo")) is asked

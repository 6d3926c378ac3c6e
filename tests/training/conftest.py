from pathlib import Path

import pytest

from tests.reversal import write_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of a second or two: digits to be reversed, not long enough to learn it."""
    run = write_run(
        tmp_path_factory.mktemp("digits"),
        pairs=400,
        embedding=16,
        hidden=32,
        key=16,
        steps=12,
        batch_tokens=400,
        learning_rate="3e-3",
        warmup_steps=2,
        decay_steps=4,
        validate_every=6,
    )
    return run.read_text(encoding="utf-8")


@pytest.fixture
def config_file(small_run: str, tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text(small_run, encoding="utf-8")
    return file

"""The administrative calls, over their own listener, and what they refuse."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.client import CallFailed, Client
from service.pb import interlinear_pb2 as pb
from tests.service.edge import Served, served
from tests.service.models.bundles import renamed


@pytest.fixture
async def running(tiny_bundle: Path, tmp_path: Path) -> AsyncIterator[Served]:
    root = tmp_path / "models"
    root.mkdir()
    renamed(tiny_bundle, root / "second", version="2")
    (renamed(tiny_bundle, root / "damaged", version="3") / "tokenizer.model").write_bytes(b"")
    async with served(tiny_bundle, models=root) as running:
        yield running


async def test_a_version_is_loaded_activated_and_unloaded(running: Served) -> None:
    async with Client(running.admin_grpc_address) as administrator, Client(running.address) as client:
        loaded = await administrator.load_model("second")
        assert (loaded.model.name, loaded.model.version, loaded.previous_version) == ("tiny", "2", "1")
        assert loaded.model.is_active and loaded.model.is_default
        listed = (await client.list_models()).models
        assert [(model.version, model.is_active, model.is_default) for model in listed] == [
            ("2", True, True),
            ("1", False, False),
        ]
        for name, version in (("", "2"), ("tiny", "2"), ("tiny@1", "1"), ("tiny@2", "2")):
            reply = await client.translate(pb.TranslateRequest(model=name, texts=["The house is big."]))
            assert reply.metadata.model_version == version
            assert (await client.get_model(name)).model.version == version
        back = await administrator.activate_model("tiny")
        assert (back.model.version, back.previous_version, back.model.is_active) == ("1", "2", True)
        await administrator.unload_model("tiny", "2")
        assert [model.version for model in (await client.list_models()).models] == ["1"]


async def test_what_cannot_be_done_is_refused_with_its_reason(running: Served) -> None:
    async with Client(running.admin_grpc_address) as administrator:
        for call, reason in (
            (administrator.load_model("nowhere"), "MODEL_NOT_FOUND"),
            (administrator.load_model("../second"), "MODEL_NOT_FOUND"),
            (administrator.load_model("damaged"), "MODEL_REFUSED"),
            (administrator.activate_model("tiny"), "MODEL_NOT_FOUND"),
            (administrator.activate_model("tiny", "9"), "MODEL_NOT_FOUND"),
            (administrator.unload_model("tiny", "1"), "MODEL_IN_USE"),
            (administrator.unload_model("tiny", "9"), "MODEL_NOT_FOUND"),
        ):
            with pytest.raises(CallFailed) as refusal:
                await call
            assert refusal.value.reason == reason


async def test_they_are_not_served_where_everybody_may_call(running: Served) -> None:
    async with Client(running.address) as client:
        with pytest.raises(CallFailed, match="there is no such call here"):
            await client.load_model("second")

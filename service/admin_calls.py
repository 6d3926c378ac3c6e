"""The calls that administer models, without transport: a request and a deadline in, a reply out.

They do what the folder's watcher does. A bundle that is being loaded is loaded even if its caller goes away.
"""

import asyncio
from collections.abc import Mapping

from service.calls import Behavior
from service.models.folder import ModelFolder
from service.models.registry import Activated
from service.pb import interlinear_pb2 as pb
from service.replies import write_listed_model


class AdminCalls:
    """Every call of ModelAdminService."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder

    @property
    def by_name(self) -> Mapping[str, Behavior]:
        """The calls by the names that the proto gives them."""
        return {
            "LoadModel": self.load_model,
            "ActivateModel": self.activate_model,
            "UnloadModel": self.unload_model,
        }

    async def load_model(self, request: pb.LoadModelRequest, deadline: float | None) -> pb.LoadModelResponse:
        """Load the bundle in a folder, and let it answer for its name.

        Raises:
            ModelNotFound: There is no such folder.
            ModelRefused: The bundle cannot be used; nothing has changed.
        """
        activated = await asyncio.shield(self._folder.load(request.folder))
        return pb.LoadModelResponse(model=self._written(activated), previous_version=activated.previous_version)

    async def activate_model(
        self, request: pb.ActivateModelRequest, deadline: float | None
    ) -> pb.ActivateModelResponse:
        """Let a loaded version answer for its name.

        Raises:
            ModelNotFound: It is not loaded.
        """
        activated = self._folder.activate(request.name, request.version)
        return pb.ActivateModelResponse(model=self._written(activated), previous_version=activated.previous_version)

    async def unload_model(self, request: pb.UnloadModelRequest, deadline: float | None) -> pb.UnloadModelResponse:
        """Unload a version once the calls that use it are answered.

        Raises:
            ModelNotFound: It is not loaded.
            ModelInUse: It answers for its name, or is the last.
        """
        await asyncio.shield(self._folder.unload(request.name, request.version))
        return pb.UnloadModelResponse()

    def _written(self, activated: Activated) -> pb.Model:
        return write_listed_model(activated.model, self._folder.models.standing(activated.model))

"""The folder of models: what stands in it is loaded, what changes is loaded anew, what goes is unloaded.

Every subfolder with a manifest is a bundle, but for hidden ones; its name and version are those of the manifest,
whatever the subfolder is called. The watcher and the administrative calls do the same things in the same order: have
the bundle examined by a process of its own, read it once, load it, warm it up, and only then let the new model answer.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import structlog

from bundle import manifest as manifests
from bundle.errors import InvalidBundle
from bundle.manifest import Manifest
from service.aligner import check_reverse
from service.errors import BundleRefused, InvalidSettings, ModelInUse, ModelNotFound, ModelRefused, StartupError
from service.metrics import Metrics
from service.models.examination import Examined, examine
from service.models.loading import load, read
from service.models.registry import Activated, Models
from service.models.scanning import FOLDER_NAME, Signature, bundles, holds_bundle, ripe
from service.models.served_model import ServedModel
from service.settings import EMBEDDED_BUNDLE, Settings

_log = structlog.get_logger()


class _RefusedForNow(BundleRefused):
    """There is no room for a bundle, or its name is taken: that may change when another model goes."""


class ModelFolder:
    """Keeps what is loaded in step with a folder, and does what administrators ask; it belongs to one event loop.

    Attributes:
        models: What is loaded.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, models: Models, reverse: ServedModel | None = None
    ) -> None:
        """Load nothing yet.

        Args:
            settings: Where the folder is, and what models may take.
            metrics: Where loads are counted.
            models: Where loaded models go.
            reverse: A model of a reverse direction, for those that it is the reverse of.
        """
        self.models = models
        self._settings = settings
        self._metrics = metrics
        self._reverse = reverse
        self._turn = asyncio.Lock()  # one bundle is examined and loaded at a time
        self._tried: dict[str, Signature] = {}  # by subfolder: what was loaded or refused
        self._refused: set[str] = set()  # subfolders whose bundle, as it stands there, is not loaded
        self._waiting: set[str] = set()  # those of them that may do once another model has gone
        self._holds: dict[str, ServedModel] = {}  # what was loaded from a subfolder last
        self._seen: dict[str, Signature] = {}  # at the last look
        self._gone: list[ServedModel] = []  # whose subfolder was, at the last look; the service's last model stays
        self._told: set[str] = set()
        metrics.models.budget_bytes.set(settings.models_memory_bytes)

    @property
    def lost(self) -> bool:
        """Whether an engine could not be made anew: of a model, or of that of the reverse direction."""
        models = [*self.models.listed(), *([self._reverse] if self._reverse else [])]
        return any(model.scheduler.health == "failed" for model in models)

    async def load(self, name: str) -> Activated:
        """Load the bundle in the subfolder ``name``, whatever became of it before, and let it answer.

        Raises:
            ModelNotFound: There is no such subfolder.
            ModelRefused: The bundle is; everything that is loaded stays as it is.
        """
        async with self._turn:
            root = self._settings.models
            found = await asyncio.to_thread(bundles, root) if root and FOLDER_NAME.fullmatch(name) else {}
            if root is None or name not in found:
                where = (
                    "INTERLINEAR_MODELS" if root else "INTERLINEAR_MODELS, which is not set, so nothing can be loaded"
                )
                raise ModelNotFound(f"there is no bundle in a folder of that name in {where}")
            self._forget_gone(found)
            return await self._load_named(root, name, found[name])

    def activate(self, name: str, version: str) -> Activated:
        """Let a loaded version answer for its name; empty, the one that was active before.

        Raises:
            ModelNotFound: It is not loaded.
        """
        activated = self.models.activate(name, version)
        _log.info("model activated", model=activated.model.manifest.qualified_name, previous=activated.previous_version)
        return activated

    async def unload(self, name: str, version: str) -> None:
        """Unload a version once the calls that use it are answered.

        Raises:
            ModelNotFound: It is not loaded.
            ModelInUse: It is active and its folder is there, or it is the last.
        """
        async with self._turn:
            folder = self.models.find(name, version).folder
            is_there = await asyncio.to_thread(holds_bundle, folder)
            self._remove(name, version, folder_is_gone=not is_there)

    async def load_bundle(self) -> None:
        """Load the bundle that ``INTERLINEAR_BUNDLE`` names.

        Raises:
            BundleRefused: It cannot be used.
        """
        folder = self._settings.bundle
        if folder == EMBEDDED_BUNDLE:
            bundle = await read(folder)
            self.models.add(await load(bundle, self._settings, self._metrics, self._reverse))
        else:
            await self._load(folder)

    async def look(self, patient: bool = True) -> None:
        """Look at the folder once; load and unload what has changed.

        Args:
            patient: Whether to leave a bundle alone while it is being written: until nothing of it has changed from one
                look to the next, or all is there that its manifest lists.
        """
        root = self._settings.models
        assert root is not None
        async with self._turn:
            try:
                found = await asyncio.to_thread(bundles, root)
            except OSError as error:
                self._tell_once(f"{root} cannot be read: {error.strerror}")
                return
            gone = [model for model in self.models.listed() if self._is_gone(model, root, found)]
            if any(model not in self._gone for model in gone):
                self._retry_refused()  # before the unloading: one of them may have the same name
            self._gone = gone
            changed = [name for name, signature in found.items() if signature != self._tried.get(name)]
            quiet = {name for name in changed if not patient or found[name] == self._seen.get(name)}
            self._seen = found
            for name in await asyncio.to_thread(ripe, root, changed, quiet):
                with contextlib.suppress(
                    ModelRefused
                ):  # it is logged and counted, and tried again when its files change
                    await self._load_named(root, name, found[name], self._held(name))
            self._unload_gone(root, found)

    async def watch(self) -> None:
        """Look at the folder again and again."""
        while True:
            await asyncio.sleep(self._settings.models_poll_seconds)
            try:
                await self.look()
            except Exception as error:  # the service goes on with what it has, and the next look may go better
                _log.error("the folder of models could not be looked at", exc_info=error)

    def _held(self, name: str) -> ServedModel | None:
        """Return the model that was loaded from a subfolder, if it still is."""
        model = self._holds.get(name)
        return model if model in self.models.listed() else None

    async def _load_named(
        self, root: Path, name: str, signature: Signature, held: ServedModel | None = None
    ) -> Activated:
        """Load the bundle in a subfolder, unless it is the one that ``held`` was loaded from."""
        self._tried[name] = signature
        self._waiting.discard(name)
        try:
            activated = await self._load(root / name, held)
        except BundleRefused as error:
            self._metrics.models.loads.labels("refused").inc()
            self._refused.add(name)
            if isinstance(error, _RefusedForNow):
                self._waiting.add(name)
            _log.warning("bundle refused", folder=name, reason=str(error))
            raise ModelRefused(str(error)) from error
        else:
            self._refused.discard(name)
            self._holds[name] = activated.model
            return activated
        finally:
            self._metrics.models.refused.set(len(self._refused))

    async def _load(self, folder: Path, held: ServedModel | None = None) -> Activated:
        """Have the bundle in ``folder`` examined, load it and let it answer.

        Raises:
            BundleRefused: It cannot be used; nothing has changed.
        """
        started = time.perf_counter()
        metrics = self._metrics.models
        try:
            examined = await examine(folder)
            if held is not None and held.digest == examined.digest:  # touched; another version may be active on purpose
                return Activated(held, "")
            await asyncio.to_thread(self._check_room, folder, examined)
            bundle = await read(folder, examined.digest)
            with self.models.expected(bundle.manifest.qualified_name):
                model = await load(bundle, self._settings, self._metrics, self._reverse_of(bundle.manifest))
                activated = self.models.add(model)
        except BundleRefused:
            raise
        except (OSError, MemoryError, StartupError) as error:  # of this process or its device, not of the bundle
            raise _RefusedForNow(f"{folder} cannot be loaded now: {error}") from error
        seconds = time.perf_counter() - started
        metrics.loads.labels("loaded").inc()
        metrics.load_seconds.observe(seconds)
        _log.info(
            "model loaded",
            model=model.manifest.qualified_name,
            previous=activated.previous_version,
            digest=model.digest,
            seconds=round(seconds, 3),
        )
        return activated

    def _check_room(self, folder: Path, examined: Examined) -> None:
        """Refuse a bundle whose name is taken, or that is too large beside what is loaded."""
        name = f"{examined.name}@{examined.version}"
        others = [*self.models.listed(), *([self._reverse] if self._reverse else [])]
        for other in others:
            if other.manifest.qualified_name == name and other.folder != folder and holds_bundle(other.folder):
                raise _RefusedForNow(
                    f"{folder} is called {name}, as is the bundle in {other.folder}; give one of them another version"
                )
        budget, loaded = self._settings.models_memory_bytes, self.models.size_bytes
        if budget and loaded + examined.size_bytes > budget:
            raise _RefusedForNow(
                f"{folder} has {examined.size_bytes} bytes and what is loaded has {loaded}; together "
                f"INTERLINEAR_MODELS_MEMORY_BYTES allows {budget}. Unload a version first"
            )

    def _reverse_of(self, manifest: Manifest) -> ServedModel | None:
        """Return the model of the reverse direction, if it is that of ``manifest``."""
        if self._reverse is None:
            return None
        try:
            check_reverse(manifest, self._reverse.manifest)
        except BundleRefused:
            return None
        return self._reverse

    def _is_gone(self, model: ServedModel, root: Path, found: Mapping[str, Signature]) -> bool:
        """Return whether the subfolder of a model is, or holds another one now."""
        name = model.folder.name
        return model.folder.parent == root and (name not in found or self._holds.get(name) is not model)

    def _unload_gone(self, root: Path, found: Mapping[str, Signature]) -> None:
        for model in self.models.listed():
            if self._is_gone(model, root, found):
                try:
                    self._remove(model.manifest.bundle_id, model.manifest.version, folder_is_gone=True)
                except ModelInUse as error:
                    self._tell_once(f"{model.folder} is gone. {error}")
        self._forget_gone(found)

    def _forget_gone(self, found: Mapping[str, Signature]) -> None:
        for name in self._tried.keys() - found.keys():
            del self._tried[name]
        self._waiting &= found.keys()
        self._refused &= found.keys()
        self._metrics.models.refused.set(len(self._refused))

    def _remove(self, name: str, version: str, folder_is_gone: bool) -> None:
        self.models.remove(name, version, folder_is_gone)
        _log.info("model unloaded", model=f"{name}@{version}")
        self._retry_refused()

    def _retry_refused(self) -> None:
        """Have what was refused for the others' sake tried once more; what is damaged stays so until it changes."""
        for name in self._waiting:
            self._tried.pop(name, None)
        self._waiting.clear()

    def _tell_once(self, trouble: str) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            _log.warning("the folder of models is not as expected", reason=trouble)


@contextlib.asynccontextmanager
async def opened(settings: Settings, metrics: Metrics) -> AsyncIterator[ModelFolder]:
    """Yield everything that ``settings`` say to serve, loaded and watched; all of it is closed with the context.

    Without a folder of models that is ``settings.bundle``. With one, it is served besides if it was named explicitly.

    Raises:
        StartupError: A bundle that is named cannot be used, or the folder of models is none.
    """
    root = settings.models
    if root is not None and not root.is_dir():
        raise InvalidSettings(f"INTERLINEAR_MODELS={root}: there is no such folder; make it, or leave the setting out")
    async with contextlib.AsyncExitStack() as stack:
        reverse = None
        if settings.reverse_bundle is not None:
            examined = await examine(settings.reverse_bundle)
            reverse = await load(await read(settings.reverse_bundle, examined.digest), settings, metrics)
            stack.push_async_callback(reverse.close)
        names_bundle = root is None or "bundle" in settings.model_fields_set
        models = Models(metrics, _bundle_id(settings.bundle) if names_bundle else "")
        stack.push_async_callback(models.close)
        folder = ModelFolder(settings, metrics, models, reverse)
        if names_bundle:
            await folder.load_bundle()
        if root is not None:
            await folder.look(patient=False)
            if settings.models_poll_seconds:
                watching = asyncio.create_task(folder.watch())
                stack.push_async_callback(_cancelled, watching)
        yield folder


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def _bundle_id(folder: Path) -> str:
    try:
        return manifests.read(folder).bundle_id
    except InvalidBundle as error:
        raise BundleRefused(str(error)) from error

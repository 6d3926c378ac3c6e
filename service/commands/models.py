"""``interlinear models``: what is loaded, and with a verb, loading, activating and unloading."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer
from google.protobuf import json_format
from rich.console import Console

from service.client import DEFAULT_TIMEOUT_SECONDS, Client
from service.commands.command_line import (
    DEFAULT_ADDRESS,
    Address,
    Connection,
    Json,
    Reply,
    Timeout,
    Wait,
    ask,
    print_line,
)
from service.commands.terminal import model_view
from service.pb import interlinear_pb2 as pb

models = typer.Typer(help="List what the service has loaded, or load, activate and unload models.")

_DEFAULT_ADMIN_ADDRESS = "127.0.0.1:50052"
_LOADING_TIMEOUT_SECONDS = 600.0  # a large bundle is examined, loaded and warmed up before the service answers
_ADMIN_ADDRESS = typer.Option(
    "--address", envvar="INTERLINEAR_ADMIN_GRPC_ADDRESS", help="Where administrators are served, host:port."
)
AdminAddress = Annotated[str, _ADMIN_ADDRESS]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model, or NAME@VERSION.")]


@models.callback(invoke_without_command=True)
def listed(
    context: typer.Context,
    json: Json = False,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    wait: Wait = False,
) -> None:
    """List the models the service has loaded, with their measured quality; or, with a verb, change what is loaded."""
    if context.invoked_subcommand is not None:
        return
    response = ask(Connection(address, timeout, wait), lambda client: client.list_models())
    if json:
        print_line(json_format.MessageToJson(response, ensure_ascii=False))
        return
    for model in response.models:
        Console().print(model_view(model))


@models.command()
def load(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Its name in INTERLINEAR_MODELS, without a path.")],
    json: Json = False,
    address: AdminAddress = _DEFAULT_ADMIN_ADDRESS,
    timeout: Timeout = _LOADING_TIMEOUT_SECONDS,
) -> None:
    """Load the bundle in a folder of models, and let it answer in place of the version that did."""
    _told(_asked(address, timeout, lambda client: client.load_model(folder)), json)


@models.command()
def activate(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Left out: the one that was active before.")] = "",
    json: Json = False,
    address: AdminAddress = _DEFAULT_ADMIN_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
) -> None:
    """Let a loaded version answer requests that name no version; without VERSION, go back to the one before."""
    name, version = _of_version(name, version)
    _told(_asked(address, timeout, lambda client: client.activate_model(name, version)), json)


@models.command()
def unload(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="Of the model; not the active one.")] = "",
    address: AdminAddress = _DEFAULT_ADMIN_ADDRESS,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
) -> None:
    """Unload a version once the calls that use it are answered."""
    name, version = _of_version(name, version)
    if not version:
        raise typer.BadParameter(f"say which version of {name} to unload: {name}@VERSION")
    _asked(address, timeout, lambda client: client.unload_model(name, version))
    print_line(f"unloaded {name}@{version}")


def _of_version(name: str, version: str) -> tuple[str, str]:
    """Return name and version of a model, whether they came as two arguments or as NAME@VERSION."""
    bare, at, named = name.partition("@")
    if at and version not in ("", named):
        raise typer.BadParameter(f"{name} names a version, and {version} another; give one of them")
    return bare, named or version


def _asked(address: str, timeout: float, call: Callable[[Client], Awaitable[Reply]]) -> Reply:
    return ask(Connection(address, timeout, wait=False), call)


def _told(response: pb.LoadModelResponse | pb.ActivateModelResponse, json: bool) -> None:
    """Print what is active now."""
    if json:
        print_line(json_format.MessageToJson(response, ensure_ascii=False))
        return
    before = f", in place of {response.previous_version}" if response.previous_version else ""
    print_line(f"{response.model.name}@{response.model.version} is active{before}")

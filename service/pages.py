"""Files served as they are: the explorer. A browser may keep them, but asks each time whether they have changed."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Nothing from elsewhere, nothing inline; pictures that a page draws of itself are data and blob URLs.
_POLICY = "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {"content-security-policy": _POLICY, "cache-control": "no-cache"}  # besides those of every answer


def routes(files: Mapping[str, tuple[bytes, str]]) -> list[Route]:
    """Return a route for each file, given as content and content type by its path."""
    return [Route(path, _endpoint(content, media_type)) for path, (content, media_type) in files.items()]


def _endpoint(content: bytes, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "etag": tag, "content-type": media_type}

    async def respond(request: Request) -> Response:
        known = {known.strip().removeprefix("W/") for known in request.headers.get("if-none-match", "").split(",")}
        if known & {tag, "*"}:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    return respond

"""``/metrics``: what is counted, for whoever may see it."""

import asyncio

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.access.entrance import Access
from service.errors import ServiceError
from service.http_connection import CERTIFICATE_NAMES
from service.incoming import REQUEST_ID_HEADER, Refusal, accepted_request_id, key_of
from service.json_api import refused

PATH = "/metrics"


def route(registry: CollectorRegistry, access: Access) -> Route:
    """Return the route of the metrics: Prometheus text or OpenMetrics, whichever the scraper prefers."""

    async def metrics(request: Request) -> Response:
        try:
            access.admit(key_of(request.headers), request.scope.get(CERTIFICATE_NAMES, ()), PATH)
        except ServiceError as error:
            return refused(Refusal.of(error, accepted_request_id(request.headers.get(REQUEST_ID_HEADER))))
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(await asyncio.to_thread(encode, registry), headers={"content-type": content_type})

    return Route(PATH, metrics)

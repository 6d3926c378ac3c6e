# Two stages: the first installs, the second runs. Neither holds torch. Build: docker build --tag interlinear .
# tests/test_packaging.py runs the first stage's COPY and RUN lines, the HEALTHCHECK and the start command as they
# stand here, in a clean folder: keep each RUN one shell command that needs nothing but $PREFIX and Python.
FROM python:3.11-slim-bookworm AS install
ENV PREFIX=/opt/interlinear PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/serving.lock requirements/
RUN python -m venv "$PREFIX" && "$PREFIX/bin/pip" install --quiet --requirement requirements/serving.lock
COPY pyproject.toml README.md ./
COPY bundle bundle
COPY training training
COPY exporters exporters
COPY service service
RUN "$PREFIX/bin/pip" wheel --quiet --no-deps --wheel-dir dist . && "$PREFIX/bin/pip" install --quiet --no-deps dist/*.whl

FROM python:3.11-slim-bookworm
COPY --from=install /opt/interlinear /opt/interlinear
ENV PATH=/opt/interlinear/bin:$PATH PYTHONUNBUFFERED=1 \
    INTERLINEAR_GRPC_ADDRESS=0.0.0.0:50051 INTERLINEAR_HTTP_ADDRESS=0.0.0.0:8080
USER 10001:10001
EXPOSE 50051 8080
# Whoever publishes these ports gives a certificate and credentials, or says INTERLINEAR_ALLOW_UNPROTECTED=true
# (docs/security.md): without either the service does not start. Metrics and administration stay on loopback unless told.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["python", "-c", "\
import os, ssl, urllib.request; \
scheme = 'https' if os.environ.get('INTERLINEAR_TLS_CERTIFICATE') else 'http'; \
address = os.environ.get('INTERLINEAR_HTTP_ADDRESS') or '127.0.0.1:8080'; \
unverified = ssl._create_unverified_context(); \
urllib.request.urlopen(f'{scheme}://{address}/readyz', timeout=4, context=unverified)"]
ENTRYPOINT ["interlinear"]
CMD ["serve"]

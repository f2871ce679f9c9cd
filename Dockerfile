# syntax=docker/dockerfile:1
# One image a service: docker build --build-arg SERVICE=cost -t sluice/cost .
# PYTHON_IMAGE may name any image with Python 3.11 to 3.13 (a mirror, a hardened base).
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG SERVICE
WORKDIR /src
COPY requirements/uv.txt requirements/${SERVICE}.txt requirements/
RUN python3 -m venv /opt/sluice \
 && /opt/sluice/bin/python -m pip install --quiet --require-hashes -r requirements/uv.txt \
 && /opt/sluice/bin/uv pip install --quiet --python /opt/sluice/bin/python --no-deps --require-hashes -r requirements/${SERVICE}.txt
COPY LICENSE pyproject.toml ./
COPY protos protos
COPY services/_events services/_events
COPY services/_kit services/_kit
COPY services/${SERVICE} services/${SERVICE}
# Our own packages bring no dependency past the lock (--no-deps, --no-build-isolation).
RUN /opt/sluice/bin/uv pip install --quiet --python /opt/sluice/bin/python --no-deps --no-build-isolation --no-config \
      ./protos ./services/_events ./services/_kit ./services/${SERVICE} \
 && ln -s /opt/sluice/bin/sluice-${SERVICE} /opt/sluice/bin/service

FROM ${PYTHON_IMAGE}
ARG SERVICE
LABEL org.opencontainers.image.title="sluice-${SERVICE}" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/sluice /opt/sluice
ENV PATH=/opt/sluice/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 SLUICE_HOME=/var/lib/sluice HOME=/tmp
# A fixed number, so that Kubernetes can check runAsNonRoot; the root file system may be read-only, state goes to SLUICE_HOME.
RUN mkdir -p /var/lib/sluice /var/lib/sluice-keys && chown 10001:10001 /var/lib/sluice /var/lib/sluice-keys \
 && chmod 700 /var/lib/sluice-keys
USER 10001:10001
VOLUME /var/lib/sluice
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/sluice/bin/service"]

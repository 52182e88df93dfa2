# syntax=docker/dockerfile:1
# docker build .                                     with the native accelerator
# docker build --build-arg ACCELERATOR=python .      without it: needs no Rust and builds faster
ARG PYTHON=3.12-slim-trixie
ARG RUST=1.90-slim-trixie
ARG ACCELERATOR=native

FROM rust:${RUST} AS rust

FROM python:${PYTHON} AS accelerator-native
# The linker for Rust, in the base image's version. Only the wheel of this stage is kept.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV PATH=/usr/local/cargo/bin:$PATH RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo
COPY native /src/native
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src/native

FROM python:${PYTHON} AS accelerator-python
RUN mkdir /wheels

# hadolint ignore=DL3006
FROM accelerator-${ACCELERATOR} AS accelerator

FROM python:${PYTHON} AS build
# Without pip: pip installs into it from outside, so that it contains only the program.
RUN python -m venv --without-pip /opt/cdc
WORKDIR /src
# Locked dependencies, verified by hash. All have wheels, so no compiler is needed.
COPY docker/requirements.txt docker/
RUN pip --python /opt/cdc/bin/python install --no-cache-dir --only-binary :all: --require-hashes \
    --requirement docker/requirements.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY schemas schemas
COPY cdc cdc
RUN --mount=from=accelerator,source=/wheels,target=/wheels \
    pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps . \
 && find /wheels -name '*.whl' -exec pip --python /opt/cdc/bin/python install --no-cache-dir --no-deps {} +

FROM python:${PYTHON}
# Remove pip and ensurepip, which could reinstall it.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin cdc \
 && python -m pip uninstall --yes pip \
 && rm -rf /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/cdc /opt/cdc
COPY docker/healthcheck.py docker/setup.py /opt/cdc/
# Probes, metrics and the status page listen on all addresses of the container: publish the port with care.
ENV PATH=/opt/cdc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CDC_HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cdc-publisher" \
      org.opencontainers.image.description="Publishes a PostgreSQL transactional outbox to Kafka as Avro" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The directory of cdc-publisher.toml and schemas/.
WORKDIR /etc/cdc
# A numeric id, so that Kubernetes can verify that it is not root. Only /tmp is written to, if anything.
USER 10001:10001
# `docker inspect` shows the answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/cdc/healthcheck.py"]
# Stops reading, waits for Kafka and confirms to the slot, for at most [delivery] drain_seconds (25).
STOPSIGNAL SIGTERM
ENTRYPOINT ["cdc-publisher"]
CMD ["start"]

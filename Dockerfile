# syntax=docker/dockerfile:1
# docker build .                                     with the native accelerator
# docker build --build-arg ACCELERATOR=python .      without: no Rust, a quicker build
ARG PYTHON=3.12-slim-trixie
ARG RUST=1.90-slim-trixie
ARG ACCELERATOR=native

FROM rust:${RUST} AS rust

FROM python:${PYTHON} AS accelerator-native
# What Rust links with. Its version is the base image's; nothing of this stage but the wheel is kept.
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
# Without pip: what is installed from outside holds what runs, and nothing else.
RUN python -m venv --without-pip /opt/cdc
WORKDIR /src
# Every dependency as it was locked, by its hash. All have wheels: no compiler, not even here.
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
# No pip, and nothing to get it back with.
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin cdc \
 && python -m pip uninstall --yes pip \
 && rm -rf /usr/local/lib/python3.*/ensurepip
COPY --from=build /opt/cdc /opt/cdc
COPY docker/healthcheck.py docker/setup.py /opt/cdc/
# Probes, metrics and the status page listen on every address of the container: publish the port with care.
ENV PATH=/opt/cdc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CDC_HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cdc-publisher" \
      org.opencontainers.image.description="Publishes a PostgreSQL transactional outbox to Kafka as Avro" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# cdc-publisher.toml and schemas/ are looked for here.
WORKDIR /etc/cdc
# By number, so that Kubernetes sees that it is not root. Nothing is written but to /tmp, if at all.
USER 10001:10001
# Ready, or why not in a word: `docker inspect` shows it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "/opt/cdc/healthcheck.py"]
# Stops reading, waits for Kafka, moves the slot: at most [delivery] drain_seconds (25).
STOPSIGNAL SIGTERM
ENTRYPOINT ["cdc-publisher"]
CMD ["start"]

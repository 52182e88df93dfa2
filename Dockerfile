# syntax=docker/dockerfile:1

FROM python:3.12-slim AS build
RUN python -m venv /opt/cdc
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY cdc cdc
# Every dependency has wheels: no compiler, not even here.
RUN /opt/cdc/bin/pip install --no-cache-dir --only-binary :all: '.[registry]' \
 && /opt/cdc/bin/pip uninstall --yes pip

FROM python:3.12-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin cdc
COPY --from=build /opt/cdc /opt/cdc
COPY docker/slot_state.py /opt/cdc/
ENV PATH=/opt/cdc/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# cdc-publisher.toml and schemas/ are looked for here.
WORKDIR /etc/cdc
USER 10001
# Stops reading, waits for Kafka, moves the slot: at most [delivery] drain_seconds (25).
STOPSIGNAL SIGTERM
ENTRYPOINT ["cdc-publisher"]
CMD ["start"]

# One image for every part: the argument says which (`up`, `api`, `worker`, `scheduler`).
# It runs as a user without rights and writes only to /var/lib/coursewire, which only `up`
# needs, so the root file system may be read-only:
#
#   docker run --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v coursewire:/var/lib/coursewire coursewire

FROM python:3.13.12-slim-trixie AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/coursewire
COPY requirements.lock requirements-build.lock ./
RUN pip --python /opt/coursewire install --no-deps --require-hashes -r requirements.lock \
 && pip install --no-deps --require-hashes -r requirements-build.lock
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY workers workers
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/coursewire install --no-deps --no-index /wheels/*.whl

FROM python:3.13.12-slim-trixie
RUN useradd --system --uid 10001 --no-log-init --home-dir /var/lib/coursewire --create-home coursewire
COPY --from=build /opt/coursewire /opt/coursewire
ENV PATH=/opt/coursewire/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    COURSEWIRE_HOST=0.0.0.0 \
    COURSEWIRE_DATA_DIR=/var/lib/coursewire
USER 10001:10001
WORKDIR /var/lib/coursewire
VOLUME ["/var/lib/coursewire"]
EXPOSE 8000
# For the parts that serve HTTP; switch it off where a container runs a worker or a scheduler.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-m", "service.healthcheck"]
ENTRYPOINT ["coursewire"]
CMD ["up"]

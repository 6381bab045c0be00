# syntax=docker/dockerfile:1
# One image, one container, both processes. The running image has no shell and no package manager; it
# runs as an unprivileged user, and on a read-only root file system when the three directories below
# VOLUME are writable.
#
#   docker build -t rtpbridge .
#   docker run --network host -e RTPBRIDGE_MEDIA_IP=192.0.2.10 rtpbridge

# Every source file reduced to a stub: what follows is rebuilt only when a manifest changes.
FROM debian:bookworm-slim AS skeleton
WORKDIR /src
COPY . .
RUN find . -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" > "$file"; done' stub {} + \
    && find . -type f ! -name '*.rs' ! -name Cargo.toml ! -name Cargo.lock -delete \
    && find . -type d -empty -delete

FROM rust:1.95-slim-bookworm AS build
# cmake builds libopus, which is linked statically.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY --from=skeleton /src .
RUN cargo build --release --locked -p rtpbridge-control -p rtpbridge-dataplane
COPY . .
# The stubs were compiled after these files were written, so cargo would take them for current. What
# build scripts of dependencies made is as old as it was, or they would be compiled again.
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release --locked -p rtpbridge-control -p rtpbridge-dataplane \
    && mkdir -p /image/usr/local/bin /image/var/lib/rtpbridge/recordings /image/var/cache/rtpbridge \
                /image/run/rtpbridge \
    && chmod 0700 /image/var/cache/rtpbridge /image/run/rtpbridge \
    && cd target/release \
    && cp rtpbridge rtpbridge-control rtpbridge-dataplane rtpbridgectl /image/usr/local/bin/ \
    && strip /image/usr/local/bin/*

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/usr/local/bin /usr/local/bin
COPY --from=build --chown=65532:65532 /image/var/lib/rtpbridge /var/lib/rtpbridge
COPY --from=build --chown=65532:65532 /image/var/cache/rtpbridge /var/cache/rtpbridge
COPY --from=build --chown=65532:65532 /image/run/rtpbridge /run/rtpbridge
USER 65532:65532
# Docker kills 10 s after its SIGTERM, Kubernetes after 30; raise the wait together with theirs.
ENV RTPBRIDGE_LISTEN=0.0.0.0:9100 \
    RTPBRIDGE_SHUTDOWN_MAX_WAIT_SECS=8 \
    RTPBRIDGE_CACHE_DIR=/var/cache/rtpbridge \
    RTPBRIDGE_RUNTIME_DIR=/run/rtpbridge
VOLUME ["/var/lib/rtpbridge/recordings", "/var/cache/rtpbridge", "/run/rtpbridge"]
EXPOSE 9100/tcp 30000-39999/udp
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["rtpbridgectl", "health"]
ENTRYPOINT ["rtpbridge"]

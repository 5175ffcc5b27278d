# qpq-server in a distroless image: no shell, no package manager, uid 65532, read-only root file system.
#   docker build -t quicproquo .
# Both base images are arguments, so that a mirror or an image of your own can stand in.
ARG DENO_IMAGE=denoland/deno:debian-2.9.6
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${DENO_IMAGE} AS build
ARG TARGETARCH=amd64
WORKDIR /build
COPY deno.json deno.lock package.json main.ts ./
COPY mod ./mod
COPY ops/shipping/compile.ts ./ops/shipping/compile.ts
RUN deno task --quiet fetch \
  && case "${TARGETARCH}" in \
       amd64) target=x86_64-unknown-linux-gnu ;; \
       arm64) target=aarch64-unknown-linux-gnu ;; \
       *) echo "no build for ${TARGETARCH}" >&2; exit 1 ;; \
     esac \
  && deno task --quiet compile --target "${target}" \
  && mkdir -p /out/bin /out/data \
  && cp "dist/${target}/qpq-server" /out/bin/qpq-server \
  && ln -s qpq-server /out/bin/qpq-client

FROM ${RUNTIME_IMAGE}
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build --chown=65532:65532 /out/data /data
ENV QPQ_DATA_DIR=/data
USER 65532:65532
VOLUME ["/data"]
# QUIC; metrics and health when enabled
EXPOSE 7000/udp 9090/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s CMD ["/usr/local/bin/qpq-server", "health"]
ENTRYPOINT ["/usr/local/bin/qpq-server"]

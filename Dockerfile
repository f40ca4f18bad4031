# The image of the shop, with the programs `shop` and `millstream`. It can be built for several platforms:
# docker buildx build --platform linux/amd64,linux/arm64 .

FROM rust:1.95.0-slim-bookworm AS rust
WORKDIR /src

# The manifests, with a stub for each crate's code. These files change only with a dependency, so that the layer
# with the dependencies below is rebuilt only then.
FROM rust AS manifests
COPY . .
RUN mkdir /stubs && cp -r Cargo.toml Cargo.lock .cargo /stubs/ \
 && find crates tests -name Cargo.toml -printf '%h\n' | while read -r crate; do \
      mkdir -p "/stubs/$crate" && cp "$crate/Cargo.toml" "/stubs/$crate/"; \
      for root in "$crate"/src/lib.rs "$crate"/src/main.rs "$crate"/examples/*.rs; do \
        if [ -f "$root" ]; then mkdir -p "$(dirname "/stubs/$root")" && echo 'fn main() {}' >"/stubs/$root"; fi; \
      done; \
      sed -n 's/^path = "\(.*\.rs\)"$/\1/p' "$crate/Cargo.toml" | while read -r root; do \
        mkdir -p "$(dirname "/stubs/$crate/$root")" && echo 'fn main() {}' >"/stubs/$crate/$root"; \
      done; \
    done

FROM rust AS build
ARG PROGRAMS="--package shop --features shop/mongodb,shop/smtp --package millstream-cli"
COPY --from=manifests /stubs .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --locked --profile dist $PROGRAMS
COPY . .
# The revision that the programs report.
ARG REVISION=unknown
ENV MILLSTREAM_REVISION=$REVISION
# The stubs are newer than the real code, so cargo would take their artifacts for up to date.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    find crates -name '*.rs' -exec touch {} + && cargo build --locked --profile dist $PROGRAMS \
 && mkdir /programs /data && find target/dist -maxdepth 1 -type f -executable -exec cp {} /programs/ \;
# What the services need of the broker, for `millstream declare`.
RUN for service in orders inventory payments notifications analytics; do \
      /programs/shop serve "$service" --declare || exit 1; \
    done >/declarations.json

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /programs/ /usr/local/bin/
COPY --from=build /declarations.json /etc/millstream/declarations.json
COPY docs/runbooks.md /etc/millstream/runbook.md
# A named volume mounted here gets the same owner.
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
# Milliseconds until the allocator gives pages back to the system. Its default of 10 costs a busy service more than it saves.
ENV MIMALLOC_PURGE_DELAY=1000
WORKDIR /data
# Listens on all interfaces of the container; the published ports decide what is reachable from outside.
ENV HTTP_HOST=0.0.0.0 LOG_FORMAT=json
ENTRYPOINT ["/usr/local/bin/shop"]

# The shop's one image, with the programs `shop` and `millstream`. Nothing in it is of one processor:
# docker buildx build --platform linux/amd64,linux/arm64 .

FROM rust:1.95.0-slim-bookworm AS rust
WORKDIR /src

# The manifests, with a stub in place of each crate's code. These files differ only when a dependency does, so that the layer
# with the dependencies below is built again only then.
FROM rust AS manifests
COPY . .
RUN mkdir /stubs && cp Cargo.toml Cargo.lock /stubs/ \
 && find crates tests -name Cargo.toml -printf '%h\n' | while read -r crate; do \
      mkdir -p "/stubs/$crate/src" && cp "$crate/Cargo.toml" "/stubs/$crate/"; \
      for root in lib main; do \
        if [ -f "$crate/src/$root.rs" ]; then echo 'fn main() {}' >"/stubs/$crate/src/$root.rs"; fi; \
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
# What the programs say of their origin.
ARG REVISION=unknown
ENV MILLSTREAM_REVISION=$REVISION
# A stub is newer than the code that it stands for, and would pass for what was built of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    find crates -name '*.rs' -exec touch {} + && cargo build --locked --profile dist $PROGRAMS \
 && mkdir /programs /data && find target/dist -maxdepth 1 -type f -executable -exec cp {} /programs/ \;

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /programs/ /usr/local/bin/
# A named volume that is laid over it belongs to the same user.
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
WORKDIR /data
# All of the container's network; who may come from outside is for the published ports to say.
ENV HTTP_HOST=0.0.0.0 LOG_FORMAT=json
ENTRYPOINT ["/usr/local/bin/shop"]

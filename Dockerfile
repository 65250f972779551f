# twintrack in a container.
#
#   docker build -t twintrack .                          for the CPU
#   docker build -t twintrack:cuda --build-arg DEVICE=gpu .   for NVIDIA GPUs (CUDA 13; run with --gpus all)
#   docker run --rm -v "$PWD:/data" twintrack track /data/clip.mp4 -o /data/clip.jsonl
#
# The image with ONNX Runtime includes the CUDA and cuDNN libraries (2 GB); the host needs only the
# NVIDIA driver and the NVIDIA container toolkit.
ARG DEBIAN=bookworm

FROM rust:1.92-${DEBIAN} AS build
# cpu or gpu: the build of ONNX Runtime.
ARG DEVICE=cpu
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Versions follow the Debian release of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        clang g++ libclang-dev libopencv-dev pkg-config python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY scripts/fetch_onnxruntime.sh scripts/onnxruntime-*.txt scripts/
RUN scripts/fetch_onnxruntime.sh "$DEVICE"
COPY Cargo.toml Cargo.lock build.rs ./
COPY benches benches
COPY examples examples
COPY src src
COPY models/catalogue.toml models/
COPY schema schema
COPY web web
RUN cargo build --release --locked --bin twintrack \
    && strip target/release/twintrack

FROM debian:${DEBIAN}-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libopencv-imgcodecs406 libopencv-imgproc406 libopencv-video406 \
        libopencv-videoio406 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/twintrack twintrack
COPY --from=build /src/target/release/twintrack /usr/local/bin/
COPY --from=build /src/.deps/onnxruntime /opt/twintrack/onnxruntime
COPY models/*.onnx models/README.md /opt/twintrack/models/
COPY configs /opt/twintrack/configs
ENV ORT_DYLIB_PATH=/opt/twintrack/onnxruntime/libonnxruntime.so \
    LD_LIBRARY_PATH=/opt/twintrack/onnxruntime \
    TWINTRACK_MODELS=/opt/twintrack/models \
    STATE_DIRECTORY=/var/lib/twintrack
USER 10001
WORKDIR /var/lib/twintrack
# Port of the page, live events and metrics. It can be reached only if the configuration listens on
# all addresses, which requires users or a token.
EXPOSE 8090
ENTRYPOINT ["twintrack"]
CMD ["--help"]

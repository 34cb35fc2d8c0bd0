# hftrainer serve in a container.
#   docker build -t hftrainer .                                     for CPUs
#   docker build -t hftrainer:cuda --build-arg DEVICE=cuda .        for NVIDIA GPUs; to run it: --gpus all
#   docker run --rm -p 127.0.0.1:8000:8000 -e HFTRAINER_TOKEN=... hftrainer [options of hftrainer serve]
ARG PYTHON=3.11
ARG DEVICE=cpu

FROM python:${PYTHON}-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid 10001 motion && mkdir -p /app /data && chown motion /data
WORKDIR /app
COPY constraints.txt ./

# torch from PyPI brings its own CUDA; only the driver comes from the machine (NVIDIA Container Toolkit)
FROM base AS torch-cuda
RUN pip install --no-cache-dir -c constraints.txt torch

FROM base AS torch-cpu
RUN pip install --no-cache-dir -c constraints.txt --index-url https://download.pytorch.org/whl/cpu torch

# hadolint ignore=DL3006
FROM torch-${DEVICE} AS server
ARG DEVICE
WORKDIR /app
COPY pyproject.toml setup.py README.md LICENSE NOTICE ./
COPY hftrainer ./hftrainer
RUN pip install --no-cache-dir -c constraints.txt '.[serve,viz]' && rm -rf build
COPY checkpoints/gotozero-nano ./checkpoints/gotozero-nano
ENV HFTRAINER_DEVICE=${DEVICE} HF_HOME=/data/hub
USER 10001
EXPOSE 8000
VOLUME /data
HEALTHCHECK --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=5)"]
# a shell, because the token must come from the environment, where it is not seen in the image
ENTRYPOINT ["sh", "-c", "exec hftrainer serve --host 0.0.0.0 --token \"${HFTRAINER_TOKEN:?set HFTRAINER_TOKEN}\" --jobs /data/jobs --device \"$HFTRAINER_DEVICE\" \"$@\"", "hftrainer"]

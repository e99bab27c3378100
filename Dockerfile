# The web page and the API on a CPU. It is linted by hadolint, but was not built or tested.
#
#   docker build -t saliency-r1 .
#   docker run --rm -p 127.0.0.1:8765:8765 -e SALIENCY_R1_TOKEN saliency-r1
#
# The server listens outside the container's loopback, so it needs a token: SALIENCY_R1_TOKEN in the environment.
# Other commands: docker run --rm -v "$PWD:/data" saliency-r1 saliency-r1 predict dog.jpg
FROM python:3.11.14-slim-bookworm

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_DISABLE_TELEMETRY=1

WORKDIR /opt/saliency-r1
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN pip install --no-cache-dir -c constraints.txt ".[serve]" \
    && useradd --create-home --uid 1000 saliency \
    && mkdir /data && chown saliency:saliency /data

USER 1000
WORKDIR /data
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
CMD ["saliency-r1", "serve", "--host", "0.0.0.0", "--port", "8765"]

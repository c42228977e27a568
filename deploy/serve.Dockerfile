# The server of docs/serve.md for CPUs, as nobody in particular; nothing is written but under /tmp.
#
#     docker build --file deploy/serve.Dockerfile --tag dit_jax-serve .
#     docker compose --file deploy/compose.yaml up
FROM python:3.12-slim

COPY . /src
RUN pip install --no-cache-dir "/src[demo]" && rm -rf /src

USER 10001:10001
ENV HOME=/tmp JAX_PLATFORMS=cpu PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=5m CMD \
    ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz')"]
ENTRYPOINT ["dit-jax", "serve", "--host=0.0.0.0", "--port=8000"]
CMD ["--model=/model"]

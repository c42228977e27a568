"""Label Studio's routes: /health, /setup, /predict, /webhook, as its "Model" page asks them.

They are its protocol, `dit_jax.predict.label.studio`, and no part of this server's description.
"""

import json
import os
from typing import Any

from fastapi import FastAPI, Request

from dit_jax.data.pixels import pictures
from dit_jax.predict.label import studio
from dit_jax.serve.desk import Desk
from dit_jax.serve.sessions import pixels_of

URL, TOKEN = "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"  # of the environment, as its SDK has them


def add(app: FastAPI, desk: Desk) -> None:
    hidden = dict(include_in_schema=False)
    app.get("/health", **hidden)(studio.health)

    @app.post("/setup", **hidden)
    async def setup(request: Request) -> dict[str, str]:
        return studio.setup(_object(await request.body()))

    @app.post("/webhook", status_code=201, **hidden)
    async def webhook(request: Request) -> dict[str, str]:
        return studio.webhook(_object(await request.body()))

    @app.post("/predict", **hidden)
    async def predict(request: Request) -> dict[str, Any]:
        known = studio.Pictures(os.environ.get(URL, ""), os.environ.get(TOKEN, ""))

        def fetch(source: str) -> pictures.Rgb:
            return pixels_of(known(source))

        def work(ask: studio.Ask, body: bytes) -> dict[str, Any]:
            try:
                return studio.predict(_object(body), ask=ask, fetch=fetch)
            except OSError as error:  # Label Studio does not give the picture
                raise ValueError(str(error)) from error

        async with desk.admitted():
            body = await request.body()
            return await desk.answered(request, desk.with_model(lambda ask: work(ask, body)))


def _object(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body or b"{}")
    except ValueError as error:
        raise ValueError(f"the body is no JSON: {error}.") from error
    if not isinstance(said, dict):
        raise ValueError("the body is no JSON object.")
    return said

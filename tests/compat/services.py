"""A service with one endpoint of every kind that BentoML's clients know."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import PIL.Image
from pydantic import BaseModel

import modelport as bentoml
from modelport.validators import ContentType, DataframeSchema, DType, Shape


class Params(BaseModel):
    temperature: float = 0.5
    tags: list[str] = []


USUAL = Params()


class Teapot(bentoml.exceptions.BentoMLException):
    error_code = HTTPStatus.IM_A_TEAPOT


WORKERS = int(os.environ.get("PROBE_WORKERS", "1"))


@bentoml.service(name="probe", traffic={"timeout": 5}, workers=WORKERS)
class Probe:
    """Every kind of endpoint."""

    def __init__(self) -> None:
        self.started: list[str] = ["init"]

    @bentoml.on_startup
    async def warm(self) -> None:
        self.started.append("startup")

    @bentoml.api
    def classify(self, text: str, n: int = 3, opt: float | None = None) -> dict[str, Any]:
        """Tell what came."""
        return {"text": text, "n": n, "opt": opt}

    @bentoml.api
    def started_by(self) -> list[str]:
        return self.started

    @bentoml.api
    async def shout(self, text: str) -> str:
        await asyncio.sleep(0)
        return text.upper()

    @bentoml.api
    def add(self, x: Annotated[np.ndarray, Shape((2, 2)), DType("float32")]) -> np.ndarray:
        assert x.dtype == np.float32
        return x + 1

    @bentoml.api
    def not_finite(self) -> np.ndarray:
        return np.array([1.0, np.nan, np.inf])

    @bentoml.api
    def table(
        self, data: Annotated[pd.DataFrame, DataframeSchema(columns=["a", "b"])]
    ) -> pd.DataFrame:
        return data.assign(c=data["a"] + data["b"])

    @bentoml.api
    def image(self, image: PIL.Image.Image, params: Params = USUAL) -> PIL.Image.Image:
        return image.rotate(90, expand=True) if params.temperature else image

    @bentoml.api
    def audio(
        self, audio: Annotated[Path, ContentType("audio/wav")], ctx: bentoml.Context
    ) -> Annotated[Path, ContentType("audio/mpeg")]:
        out = Path(ctx.temp_dir) / "result.mp3"
        out.write_bytes(audio.read_bytes()[::-1])
        return out

    @bentoml.api
    def files(self, files: list[Path], scale: int = 1) -> list[int]:
        return [scale * len(each.read_bytes()) for each in files]

    @bentoml.api
    def suffixes(self, file: Path | None = None) -> str:
        return "none" if file is None else file.name[-6:]

    @bentoml.api
    def root_text(self, text: str, /) -> str:
        return text + "!"

    @bentoml.api
    def root_list(self, items: list[int], /) -> int:
        return sum(items)

    @bentoml.api
    def root_model(self, params: Params, /) -> Params:
        return params

    @bentoml.api
    def root_file(self, file: Path, /) -> int:
        return len(file.read_bytes())

    @bentoml.api
    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for each in prompt.split():
            yield each
            await asyncio.sleep(0.01)

    @bentoml.api
    def count(self, n: int) -> Iterator[dict[str, int]]:
        for at in range(n):
            yield {"i": at}
            time.sleep(0.01)

    @bentoml.api
    def breaks(self, after: int) -> Iterator[str]:
        for at in range(after):
            yield f"item {at}"
        raise RuntimeError("secret")

    @bentoml.api(route="/custom/route")
    def routed(self, kind: Literal["a", "b"] = "a") -> Literal["a", "b"]:
        return kind

    @bentoml.api(batchable=True, max_batch_size=8)
    def lengths(self, texts: list[str]) -> list[int]:
        if "poison" in texts and len(texts) > 1:
            raise ValueError("cannot")
        return [len(each) for each in texts]

    @bentoml.api(batchable=True)
    def wrong(self, texts: list[str]) -> list[int]:
        return [1]

    @bentoml.api
    def failing(self, how: str) -> str:
        match how:
            case "bad":
                raise bentoml.exceptions.InvalidArgument("no such thing")
            case "missing":
                raise bentoml.exceptions.NotFound("not here")
            case "teapot":
                raise Teapot("short and stout")
            case "forbidden":
                raise bentoml.exceptions.BentoMLException("secret", error_code=HTTPStatus.FORBIDDEN)
            case "down":
                raise bentoml.exceptions.ServiceUnavailable("secret")
            case _:
                raise ValueError("secret")

    @bentoml.api
    def slow(self, seconds: float) -> str:
        time.sleep(seconds)
        return "done"

    @bentoml.api
    def shaped(self, ctx: bentoml.Context) -> dict[str, str]:
        ctx.response.status_code = 201
        ctx.response.headers["X-Own"] = "yes"
        ctx.response.set_cookie("taste", "sweet")
        return {"agent": ctx.request.headers.get("X-Asked", "")}

    @bentoml.api
    def anything(self, **kwargs: Any) -> dict[str, Any]:
        return kwargs

    @bentoml.api
    def mixed(self, ctx: bentoml.Context) -> tuple[Path, dict[str, int]]:
        out = Path(ctx.temp_dir) / "a.txt"
        out.write_text("hello")
        return out, {"n": 1}

    @bentoml.task
    def train(self, text: str) -> str:
        return text[::-1]


@bentoml.service(name="team", path_prefix="/team")
class Team:
    """Behind a prefix."""

    @bentoml.api
    def shout(self, text: str) -> str:
        return text.upper()

    @bentoml.task
    def later(self, text: str) -> str:
        return text[::-1]

"""The app: routers of all pages, files that they load, and errors as one line."""

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException

from unweave import __version__
from unweave.errors import UserError
from unweave.web import compare, evals, latent, latent_map, latents, lists, prompt, runs, steer, sweeps
from unweave.web.library import Library
from unweave.web.prompt_reading import Readings
from unweave.web.security import LocalOnly
from unweave.web.shell import PLOTLY, STATIC

ROUTERS = (
    runs.router,
    latents.router,
    latent.router,
    lists.router,
    latent_map.router,
    evals.router,
    compare.router,
    sweeps.router,
    prompt.router,
    steer.router,
)
"""One for each page."""
_YEAR = "public, max-age=31536000, immutable"


class Problem(BaseModel):
    """What is wrong with a request."""

    error: str
    """One line: what came, what was expected, what to do."""


def create_app(root: Path) -> FastAPI:
    """The app for a run or a folder of runs; raises ``UserError`` where there is no such folder."""
    problems = {status: {"model": Problem} for status in (400, 404, 413, 422)}
    app = FastAPI(
        title="unweave",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        responses=problems,  # pyright: ignore[reportArgumentType]
    )
    app.state.library = Library(root)
    app.state.readings = Readings()
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/vendor/plotly-{version}.js", _plotly, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=str(STATIC), packages=[("unweave.pages", "static")]))
    app.add_exception_handler(UserError, _one_line)
    app.add_exception_handler(OSError, _one_line)
    app.add_exception_handler(StarletteHTTPException, _of_http)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_middleware(LocalOnly)
    return app


def _plotly(version: str) -> Response:
    """Plotly's script, which the browser keeps: another version has another address."""
    from plotly.offline import get_plotlyjs  # slow to import, and only pages with large charts need it

    if version != PLOTLY:
        raise HTTPException(404, f"there is no Plotly {version!r} here, only {PLOTLY}")
    return Response(get_plotlyjs(), media_type="text/javascript", headers={"cache-control": _YEAR})


def _problem(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.split())}, status)


async def _one_line(request: Request, error: Exception) -> JSONResponse:
    return _problem(400, str(error))


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    return _problem(error.status_code, str(error.detail))


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    said = (f"{'.'.join(str(part) for part in each['loc'][1:])}: {each['msg']}" for each in error.errors())
    return _problem(422, "; ".join(said))

"""Save the pictures of docs/experiments.md from a project with experiments: `python docs/pictures.py PROJECT`.

They show the comparison of samplers in MLflow, two clicks from its start page, and `dvc exp show`.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).parent
sys.path.append(str(DOCS.parent / "tests"))

from support.browser import Browser  # noqa: E402

EXPERIMENT = "postprior-samplers"
CHOICES = {  # "Model training", and no assistant
    "mlflow.workflowType_v1": '"machine_learning"',
    "mlflow.assistant.panelOpen_v1": "false",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
}
OPEN = f"[...document.querySelectorAll('a')].find((link) => link.innerText.trim() == '{EXPERIMENT}')"
CHART = "document.querySelectorAll('input[type=radio]')[1]"
PAGE = "<meta charset=utf-8><style>body {{ margin: 16px; font-size: 13px }} {stylesheet}</style><pre>{code}</pre>"
SIDES = ("Width", "Height")
SHOW = ("exp", "show", "--only-changed", "--hide-workspace", "--drop", "results|artefacts", "--no-pager")


def wait(browser: Browser, condition: str) -> None:
    """Wait until a condition holds in the page, and until it is drawn."""
    for _ in range(120):
        if browser.run(f"Boolean({condition})"):
            break
        time.sleep(0.5)
    else:
        raise TimeoutError(condition)
    time.sleep(5)


def save(browser: Browser, name: str, width: int, height: int) -> None:
    """Save what the page shows as a picture of the docs."""
    size(browser, width, height)
    time.sleep(2)
    picture = browser.send("Page.captureScreenshot", format="png")["data"]
    (DOCS / name).write_bytes(base64.b64decode(picture))


def size(browser: Browser, width: int, height: int) -> None:
    browser.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


def samplers(browser: Browser, project: Path) -> None:
    """Go to the comparison of samplers as a user does, in two clicks, and save it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{project / 'mlflow.db'}"]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port), *store]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(1)
            size(browser, 1300, 1000)
            browser.go(address := f"http://127.0.0.1:{port}/")
            wait(browser, OPEN)
            for key, value in CHOICES.items():
                browser.run(f"localStorage.setItem({key!r}, {value!r})")
            browser.go("about:blank")
            browser.go(address)
            wait(browser, OPEN)
            browser.run(f"{OPEN}.click()")
            wait(browser, CHART)
            browser.run(f"{CHART}.click()")
            wait(browser, "document.body.innerText.includes('Model metrics')")
            save(browser, "mlflow.png", 1300, 1000)
        finally:
            server.terminate()


def exp_show(browser: Browser, project: Path) -> None:
    """Save what `dvc exp show` prints on a terminal."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "400", "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *SHOW]
    shown = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=True).stdout
    console = Console(record=True, width=400, file=io.StringIO())
    console.print(Text.from_ansi(shown), soft_wrap=True)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(console.export_html(code_format=PAGE), encoding="utf-8")
        browser.send("Emulation.setScrollbarsHidden", hidden=True)
        size(browser, 100, 100)
        browser.go(page.as_uri())
        save(browser, "exp_show.png", *(browser.run(f"document.documentElement.scroll{side}") for side in SIDES))


def main(project: Path) -> None:
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        samplers(browser, project)
        exp_show(browser, project)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

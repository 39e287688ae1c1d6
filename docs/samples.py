"""Save docs/samples.png, real rows beside samples, from the committed report of the demo: `python docs/samples.py`."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "results"
ROWS = 8  # shown of each set
ENLARGED = 3
HEAD, GAP = 34, 24  # pixels above and between the sheets


def sheet(page: str, title: str) -> Image.Image:
    """Return the first rows of the sheet of samples with a title on the page, enlarged."""
    found = re.search(rf'<img src="data:image/webp;base64,([^"]+)"\s+alt="{re.escape(title)}: (\d+) samples', page)
    if found is None:
        raise SystemExit(f"{RESULTS / 'report.html'}: found no samples of '{title}'; run make demo")
    image = Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGBA")  # transparent between pictures
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    shown = image.crop((0, 0, image.width * ROWS // int(found[2]), image.height))
    return shown.resize((shown.width * ENLARGED, shown.height * ENLARGED), Image.Resampling.NEAREST)


def picture() -> Image.Image:
    """Return three sheets side by side: a column is a row of the data, whose images have to show one digit."""
    page, best = (RESULTS / "report.html").read_text(), json.loads((RESULTS / "summary.json").read_text())["best"]
    titles = {
        "real rows": "Real, held out",
        f"samples: codes drawn from {best['density']}": best["density"],
        "samples: codes drawn from N(0, I)": "Normal prior",
    }
    sheets = {told: sheet(page, title) for told, title in titles.items()}
    wide, high = next(iter(sheets.values())).size
    whole = Image.new("RGB", (len(sheets) * (wide + GAP) - GAP, HEAD + high), "white")
    pen = ImageDraw.Draw(whole)
    for number, (told, image) in enumerate(sheets.items()):
        left = number * (wide + GAP)
        pen.text((left, 4), told, fill="black", font=ImageFont.load_default(20))
        whole.paste(image, (left, HEAD))
    return whole


if __name__ == "__main__":
    picture().quantize(256).save(DOCS / "samples.png", optimize=True)

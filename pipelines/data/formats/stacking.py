"""Stack the images of a modality: all get one mode and one size, and each decision is told."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from postprior.pipelines.data.arrays import Values, zeros
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.conversion.columns import close
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.pixels.modes import MODES, bits, has_alpha, mode_of
from postprior.pipelines.data.pixels.reading import Content, Header, Reading
from postprior.pipelines.errors import UserError
from postprior.pipelines.progress import progress
from postprior.pipelines.texts import enumerated

T = TypeVar("T")
NAMED = 3  # greatest number of files or sizes that a message lists
LARGEST = 10**8  # pixels of a resized image
SHOWN = 1000  # number of images from which on progress is shown


@dataclass(frozen=True)
class Picture:
    """The content of one image, its row, and its name in messages."""

    row: int
    content: Content
    name: str


@dataclass(frozen=True)
class Stack:
    """Images of one mode and size.

    Attributes:
        pixels: (n, H, W) or (n, H, W, C).
        reading: how they were read.
        kept: (n,) bool: images whose pixels are the values of their files.
        exact: (n,) bool: those of them whose files can be written again from their pixels.
        notes: lines that tell the user what was decided.
    """

    pixels: Values
    reading: Reading
    kept: Values
    exact: Values
    notes: tuple[str, ...]

    @property
    def axes(self) -> str:
        """The axes of one image."""
        return MODES[self.reading.mode].axes

    @property
    def facts(self) -> dict[str, Any]:
        """How images were changed when they were read."""
        size, alpha = self.reading.size, self.reading.background
        return ({"size": list(size)} if size else {}) | ({"alpha": alpha} if alpha else {})


def original_file(dataset: Dataset, conversion: ArrayConversion, row: int) -> bytes | None:
    """Return the stored file of a sample's image if its pixels are unchanged, otherwise None."""
    source = dataset.source_values.get(conversion.name)
    if source is None or hasattr(source, "dtype") or (content := source["file"][row].as_py()) is None:
        return None
    height, width = conversion.shape[:2]
    pixels = replace(reading_of(conversion), size=(height, width)).pixels(content)
    x, _ = conversion.encode(pixels[None], np.zeros(1, int))
    return content if close(x[0], dataset.data[conversion.name][row]).all() else None


def is_picture(conversion: ArrayConversion) -> bool:
    """Whether the values of a modality were read from image files."""
    return conversion.facts["source"] == "images" or bool(conversion.facts.get("image"))


def reading_of(conversion: ArrayConversion) -> Reading:
    """Return how the images of imported data were read."""
    facts, size = conversion.facts, conversion.facts.get("size")
    mode = facts.get("mode") or mode_of(conversion.dtype, conversion.shape)
    return Reading(mode, tuple(size) if size else None, facts.get("alpha"))


def stacked(place: str, name: str, pictures: Callable[[], Iterable[Picture]], rows: int, roles: Roles) -> Stack:
    """Read images into an array of `rows` rows; rows without an image are 0.

    `place` names them in messages, `name` is their modality, and `pictures` starts to list them: all headers are read
    before the first pixels. A UserError is raised for files that cannot be read, and for several frames and different
    sizes unless `roles` says how to read them.
    """
    read = list(_each(f"{place}: headers", pictures(), rows, Header.read))
    headers = {picture.row: header for picture, header in read}
    several = [picture.name for picture, header in read if header.frames > 1]
    if several and not roles.first_frame:
        remedy = (
            f"split them into files, or add --first-frame to read the first of each ({len(several)} of {len(read)})"
        )
        raise UserError(f"{several[0]}: several frames or pages found, expected one per image; {remedy}")
    reading, size = _reading(place, read, roles, roles.images.get(name))
    shape = (*size, MODES[reading.mode].channels)[: len(MODES[reading.mode].axes)]
    pixels = zeros((rows, *shape), MODES[reading.mode].dtype)

    def decode(content: Content) -> Values:
        if (image := reading.pixels(content)).shape != shape:
            raise ValueError(f"{_size(image.shape)} pixels, {_size(shape)} in its header")
        if image.dtype.kind == "f" and (np.isinf(image).any() or (np.isnan(image).any() and not roles.nan_is_missing)):
            raise ValueError("it has NaN or infinity; --nan-is-missing reads NaN as missing values")
        return image

    for picture, image in _each(f"{place}: images", pictures(), rows, decode):
        pixels[picture.row] = image
    kept, exact = np.zeros(rows, bool), np.zeros(rows, bool)
    for row, header in headers.items():
        kept[row] = header.kept and (header.mode, header.size) == (reading.mode, size)
        exact[row] = kept[row] and header.lossless
    notes = tuple(f"{place}: {note}" for note in _notes(headers.values(), reading, size))
    return Stack(pixels, reading, kept, exact, notes)


def _each(
    title: str, pictures: Iterable[Picture], rows: int, read: Callable[[Content], T]
) -> Iterator[tuple[Picture, T]]:
    """Yield what `read` returns for each picture; after the last one, a UserError names those that are broken."""
    broken: list[str] = []
    with progress(title, rows) if rows >= SHOWN else nullcontext(lambda _: None) as advance:
        for picture in pictures:
            try:
                yield picture, read(picture.content)
            except ValueError as error:
                broken.append(f"{picture.name}: this image cannot be read ({error})")
            advance("")
    if broken:
        names = [text.partition(": this image")[0].rpartition("/")[2] for text in broken[1:]]
        others = f", nor can {len(names)} others: {enumerated(names, NAMED)}" if names else ""
        raise UserError(f"{broken[0]}{others}; replace it or leave it out")


def _reading(
    place: str, read: Sequence[tuple[Picture, Header]], roles: Roles, trained: Reading | None
) -> tuple[Reading, tuple[int, int]]:
    """Return how all images are read, and the height and width that they get."""
    headers = [header for _, header in read]
    modes, sizes = Counter(header.mode for header in headers), Counter(header.size for header in headers)
    if len({bits(mode) for mode in modes}) > 1:
        rarest = modes.most_common()[-1][0]
        odd = next(picture.name for picture, header in read if header.mode == rarest)
        remedy = "convert them to one type, or put them into different folders"
        raise UserError(f"{odd}: {counted(modes)} found in {place}, expected images of one type of values; {remedy}")
    wanted = roles.size or (trained.size if trained else None)
    if wanted and not (min(wanted) > 0 and wanted[0] * wanted[1] <= LARGEST):
        expected = f"expected a height and width of at least 1 pixel, and at most {LARGEST} pixels; correct them"
        raise UserError(f"--size: {wanted[0]} {wanted[1]} found, {expected}")
    if wanted is None and len(sizes) > 1:
        (height, width), *_, smallest = [size for size, _ in sizes.most_common()]
        odd = next(picture.name for picture, header in read if header.size == smallest)
        found = f"{len(sizes)} sizes (height × width) found in {place}: {counted(_worded(sizes))}"
        found += ", some after EXIF data turned them upright" if any(header.turned for header in headers) else ""
        remedy = f"add --size {height} {width} to resize all images"
        raise UserError(f"{odd}: {found}; expected one size, {remedy}")
    alpha = roles.alpha or (None if trained is None else trained.background)
    mode = _mode(modes, roles, alpha) if trained is None else trained.mode
    if bits(mode) not in {bits(m) for m in modes} or (mode == "1" and set(modes) != {"1"}):
        expected = f"expected {MODES[mode].words} as in the training data"
        raise UserError(f"{place}: {counted(modes)} found, {expected}; convert the images")
    return Reading(mode, wanted, alpha), wanted or headers[0].size


def _worded(sizes: Counter[tuple[int, int]]) -> dict[str, int]:
    return {_size(size): count for size, count in sizes.most_common()}


def _mode(modes: Counter[str], roles: Roles, alpha: str | None) -> str:
    """Return the mode that the user names, or the commonest; of equally common ones, that with more channels."""
    deep = ";16" if all(bits(mode) == "uint16" for mode in modes) else ""
    if roles.mode is not None and bits(next(iter(modes))) in ("uint8", "uint16"):
        return {"L;16": "I;16"}.get(roles.mode + deep, roles.mode + deep)
    counts: Counter[str] = Counter()
    for mode, count in modes.items():
        without = {"LA": "L", "RGBA": "RGB", "LA;16": "I;16", "RGBA;16": "RGB;16"}.get(mode, mode)
        counts["L" if mode == "1" and len(modes) > 1 else without if alpha else mode] += count
    return max(counts, key=lambda mode: (counts[mode], MODES[mode].channels))


def _notes(headers: Collection[Header], reading: Reading, size: tuple[int, int]) -> Iterator[str]:
    """Tell how images were changed when they were read, and which option chooses otherwise."""
    words, most = MODES[reading.mode].words, len(headers)
    if turned := sum(header.turned for header in headers):
        yield f"{turned} of {most} images turned upright, as their EXIF data say"
    for (colours, mode), count in Counter((h.colours, h.mode) for h in headers if h.colours).items():
        yield f"{colours} colours of {count} of {most} images converted to {MODES[mode].words}"
    modes = Counter(header.mode for header in headers)
    if others := {mode: count for mode, count in modes.items() if mode != reading.mode}:
        yield f"{counted(others)} of {most} images converted to {words}; --mode chooses another mode"
    if lost := sum(has_alpha(header.mode) for header in headers if not has_alpha(reading.mode)):
        yield f"transparent pixels of {lost} images put over {reading.background or 'white'}; --alpha, --mode"
    elif has_alpha(reading.mode):
        yield "alpha is the last channel; --alpha white or --alpha black puts transparent pixels over a colour"
    if resized := [header.size for header in headers if header.size != size]:
        yield f"{len(resized)} of {most} images resized to {_size(size)} pixels, linearly with antialiasing"
        if stretched := sum(abs(h * size[1] - w * size[0]) > max(size) for h, w in resized):
            yield f"{stretched} of {most} images stretched, because they have another ratio of height to width"
    if profiles := sum(header.profile for header in headers):
        yield f"colour profiles of {profiles} of {most} images not applied"
    if frames := sum(header.frames > 1 for header in headers):
        yield f"only the first frame or page of {frames} of {most} images read"


def counted(counts: dict[str, int]) -> str:
    """List modes or sizes with their counts.

    >>> counted({"L": 3, "RGB": 1})
    'grey (3), RGB (1)'
    """
    named = [f"{MODES[key].words if key in MODES else key} ({count})" for key, count in counts.items()]
    return enumerated(named, NAMED)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[0]} × {shape[1]}"

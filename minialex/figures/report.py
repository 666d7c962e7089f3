"""A run as one page: a self-contained HTML file, without scripts or references to anything outside it.

Curves and the confusion matrix are SVG in the page's own colours, light or dark; kernels and examples are embedded
images. Every picture has an alternative text with its numbers.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minialex
from minialex.evaluation.errors import wilson
from minialex.figures import pictures
from minialex.figures.pictures import Float, name_of, series, top_classes
from minialex.look.kernels import colour_share
from minialex.screen.formats import percent, plain
from minialex.storage import atomic

EXAMPLES = 10  # of each kind
EXAMPLE_PIXELS = 160  # larger images are shown, and embedded, at this size
TABLE_ROWS = 100
EVENTS = 100
PIXELS_ACROSS = 840  # width of the kernels' picture

Records = Sequence[Mapping[str, Any]]


def write(
    path: Path,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    metrics: Records,
    kernels: Float | None,
    columns: int,
    confusion: NDArray[np.int64] | None,
    images: NDArray[np.uint8],
    probs: Float,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    warnings: Sequence[str],
    recipe_toml: str,
) -> None:
    """Write the report of a run, completely or not at all; the same arguments give the same bytes.

    All text is escaped, whatever it contains.

    Args:
        path: the HTML file
        title: the page's heading
        facts: pairs of name and value, shown as a table; those whose value is a command, ``minialex …``, appear under
            "What next" instead
        metrics: the run's records, see `minialex.figures.pictures.curves`; validation records may have ``seconds``, the
            training time so far, and events have ``step`` and ``message``
        kernels: float [K,C,R,S], the first convolution's kernels, those of column 1 first; or None
        columns: number of columns of the network
        confusion: int64 [K,K], images of each true class (row) that were given each class (column); or None
        images: uint8 [n,3,S,S], validation images to choose examples from
        probs: float [n,K], the network's probabilities for them
        labels: int64 [n]
        class_names: K names; if there are fewer, numbers replace the missing ones
        warnings: the guards' warnings
        recipe_toml: the resolved recipe

    Raises:
        ResourceError, ConfigurationError: As in `minialex.storage.atomic.write_bytes`.
    """
    classes = len(class_names) or None
    commands = [(name, value) for name, value in facts if _is_command(value)]
    sections = [
        _result(title, metrics, confusion, classes),
        _warnings(warnings),
        _section("facts", "Facts", _table(fact for fact in facts if not _is_command(fact[1]))),
        _section("curves", "How it learned", _curves(metrics, classes)),
        _section("kernels", "What the first layer learned", _kernels(kernels, columns)),
        _section("errors", "Where it errs", _confusion(confusion, class_names)),
        _section("examples", "Examples", _examples(images, probs, labels, class_names)),
        _section("next", "What next", _commands(commands)),
        _section("recipe", "Recipe", _details("The full recipe", f"<pre><code>{_e(recipe_toml)}</code></pre>")),
    ]
    page = PAGE.format(
        title=_e(title), style=STYLE, body="\n".join(filter(None, sections)), version=minialex.__version__
    )
    atomic.write_bytes(path, page.encode())


# ---- the sections ----------------------------------------------------------------------------------------------


def _result(title: str, metrics: Records, confusion: NDArray[np.int64] | None, classes: int | None) -> str:
    """The heading, the result in a sentence, and its numbers."""
    done = [r for r in metrics if r.get("kind") == "validation" and _finite(r.get("top1_error"))]
    tiles: list[tuple[str, str]] = []
    if done:
        last, best = done[-1], min(done, key=lambda r: float(r["top1_error"]))
        error, epoch = float(last["top1_error"]), last.get("epoch", len(done))
        took = f", {duration(last['seconds'])} of training," if _finite(last.get("seconds")) else ""
        counted = f" ({_plural(int(last['step']), 'step')})" if _finite(last.get("step")) else ""
        sentence = (
            f"After <strong>{_plural(epoch, 'epoch')}</strong>{counted}{took} the network is wrong on "
            f"<strong>{percent(error)}</strong> of the validation images"
        )
        if confusion is not None and confusion.sum():
            low, high = wilson(error, int(confusion.sum()))
            sentence += f" (95%: {percent(low)} to {percent(high)}, as there are {int(confusion.sum()):,})"
        sentence += f"; guessing would be wrong on {percent(1 - 1 / classes)}." if classes else "."
        if float(best["top1_error"]) < error:
            sentence += f" It was best after epoch {_e(best.get('epoch', '?'))}: {percent(float(best['top1_error']))}."
        tiles.append(("validation error", percent(error)))
        if (classes is None or classes > pictures.TOP) and _finite(last.get("top5_error")):
            tiles.append(("top-5 error", percent(float(last["top5_error"]))))
        if _finite(last.get("seconds")):
            tiles.append(("training time", duration(last["seconds"])))
    elif confusion is not None and confusion.sum():
        error = 1 - int(np.trace(confusion)) / int(confusion.sum())
        sentence = (
            f"The network is wrong on <strong>{percent(error)}</strong> of {_plural(int(confusion.sum()), 'image')}."
        )
    else:
        sentence = "Nothing has been validated yet."
    _, speed = series(metrics, "train", "images_per_second")
    if len(speed):
        tiles.append(("images a second", f"{float(np.median(speed)):,.0f}"))
    cells = "".join(f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>" for name, value in tiles)
    numbers = f'<dl class="tiles">{cells}</dl>' if tiles else ""
    return f'<header><h1>{_e(title)}</h1>\n<p class="result">{sentence}</p>\n{numbers}</header>'


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{_e(warning)}</li>" for warning in warnings)
    return f'<section id="warnings" class="warnings"><h2>Warnings</h2>\n<ul>{items}</ul></section>'


def _curves(metrics: Records, classes: int | None) -> str:
    if not len(series(metrics, "train", "loss")[0]) + len(series(metrics, "validation", "loss")[0]):
        return "<p>Nothing has been recorded yet.</p>"
    chance = f" Guessing gives {math.log(classes):.2f}." if classes else ""
    losses = f"Loss against epochs. {_words(metrics, 'loss', 'loss', '{:.3g}'.format)}{chance}"
    chance = f" Guessing gives {percent(1 - 1 / classes)}." if classes else ""
    errors = f"Error against epochs. {_words(metrics, 'top1', 'top1_error', percent)}{chance}"
    draw = (
        _svg(pictures.loss_curve(metrics, classes), "loss", losses),
        _svg(pictures.error_curve(metrics, classes), "error", errors),
    )
    note = (
        "Training is measured while it goes on: on cropped, reflected and recoloured images and with dropout, where "
        "the recipe has them. So it may well look worse than validation."
    )
    parts = [
        f'<div class="pair"><figure>{draw[0]}</figure><figure>{draw[1]}</figure></div>',
        f'<p class="note">{note}</p>',
        _epochs(metrics),
        _events(metrics),
    ]
    return "\n".join(filter(None, parts))


def _words(metrics: Records, train: str, validation: str, form: Any) -> str:
    """A curve's numbers as text."""
    said = []
    _, values = series(metrics, "train", train)
    if train == "top1":
        values = 1 - values
    if len(values):
        said.append(f"Training: from {form(values[0])} to {form(values[-1])}.")
    epochs, values = series(metrics, "validation", validation)
    if len(values):
        best = int(np.argmin(values))
        said.append(
            f"Validation: {form(values[0])} after epoch {epochs[0]:g}, {form(values[-1])} after epoch {epochs[-1]:g}; "
            f"lowest {form(values[best])} after epoch {epochs[best]:g}."
        )
    return " ".join(said)


def _epochs(metrics: Records) -> str:
    """The validation records as a table, with the mean training loss of each epoch."""
    records = [r for r in metrics if r.get("kind") == "validation"]
    if not records:
        return ""
    where, losses = series(metrics, "train", "loss")
    rated, rates = series(metrics, "train", "learning_rate")
    every = math.ceil(len(records) / TABLE_ROWS)
    rows = []
    for record in records[::-1][::every][::-1]:
        epoch = record.get("epoch")
        cells = ["–", "–", "–"]
        if epoch is not None:
            within = (where > epoch - 1 + 1e-9) & (where <= epoch + 1e-9)
            cells[0] = f"{epoch:g}"
            cells[1] = f"{rates[rated <= epoch + 1e-9][-1]:g}" if (rated <= epoch + 1e-9).any() else "–"
            cells[2] = f"{losses[within].mean():.4f}" if within.any() else "–"
        cells.append(f"{record['loss']:.4f}" if _finite(record.get("loss")) else "–")
        cells += [percent(record[f], 2) if _finite(record.get(f)) else "–" for f in ("top1_error", "top5_error")]
        rows.append(
            f'<tr><th scope="row">{cells[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>"
        )
    names = ("epoch", "learning rate", "training loss", "validation loss", "top-1 error", "top-5 error")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f'<table class="numbers"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return _details("The numbers, epoch by epoch", f'<div class="scroll">{table}</div>')


def _events(metrics: Records) -> str:
    events = [r for r in metrics if r.get("kind") == "event"]
    if not events:
        return ""
    items = "".join(f"<li>step {_e(r.get('step', '?'))}: {_e(r.get('message', ''))}</li>" for r in events[-EVENTS:])
    return _details(f"What happened on the way ({len(events)})", f"<ul>{items}</ul>")


def _kernels(kernels: Float | None, columns: int) -> str:
    if kernels is None or not kernels.size:
        return ""
    _, C, R, S = kernels.shape
    figures = []
    for number, block in enumerate(np.array_split(kernels, columns), start=1):
        if not len(block):
            continue
        said = f"{_plural(len(block), 'kernel')} of {R} × {S} weights in {_plural(C, 'channel')}"
        if C == 3:
            said += f"; share of colour {percent(colour_share(block), 0)}"
        name = f"column {number}: " if columns > 1 else ""
        tiles = pictures.tile_kernels(block)
        zoom = max(1, PIXELS_ACROSS // tiles.shape[1])
        source = _image(tiles.repeat(zoom, axis=0).repeat(zoom, axis=1))
        picture = f'<img class="kernels" src="{source}" alt="{_e(name + said)}">'
        figures.append(f"<figure>{picture}<figcaption>{_e(name + said)}.</figcaption></figure>")
    note = "Each square is one kernel, scaled to its own smallest and largest weight."
    if C == 3:
        note += (
            " The share of colour is what remains of the squared weights when the mean over red, green and blue is "
            "taken away: 67 % in random weights, 0 % in grey ones."
        )
        if columns > 1:
            note += " In the paper’s figure 3 one column became mostly grey and the other mostly coloured."
    return "\n".join(figures) + f'\n<p class="note">{note}</p>'


def _confusion(matrix: NDArray[np.int64] | None, class_names: Sequence[str]) -> str:
    if matrix is None or not matrix.sum():
        return ""
    totals = matrix.sum(axis=1)
    seen = np.flatnonzero(totals)
    shares = np.diagonal(matrix)[seen] / totals[seen]
    order = seen[np.argsort(-shares, kind="stable")]
    right = dict(zip(seen.tolist(), shares.tolist(), strict=True))
    pairs = [
        f"{images:,} of {_plural(int(totals[true]), 'image')} of <b>{_e(name_of(class_names, true))}</b> were taken "
        f"for <b>{_e(name_of(class_names, given))}</b> ({percent(share)})"
        for true, given, images, share in pictures.most_confused(matrix, 3)
    ]
    first, last = int(order[0]), int(order[-1])
    words = (
        f"<p>Best known: <b>{_e(name_of(class_names, first))}</b>, {percent(right[first])} right. Least: "
        f"<b>{_e(name_of(class_names, last))}</b>, {percent(right[last])} right.</p>"
    )
    confused = "".join(f"<li>{pair}.</li>" for pair in pairs) or "<li>No image was taken for another class.</li>"
    listed = order if len(order) <= pictures.NUMBERED_CLASSES else np.concatenate([order[:3], order[-3:]])
    said = (
        f"Confusion matrix of {_plural(int(totals.sum()), 'image')}, {int(np.trace(matrix)):,} right. Right answers by "
        f"class{'' if len(listed) == len(order) else ', the three best and the three worst'}: "
        + ", ".join(f"{name_of(class_names, k)} {percent(right[k])}" for k in listed.tolist())
        + ". Most confused: "
        + ("; ".join(html.unescape(re.sub("</?b>", "", pair)) for pair in pairs) or "none")
        + "."
    )
    figure = pictures.confusion(matrix, class_names)
    width = figure.get_size_inches()[0] * 96
    note, least = "Blue is right, orange wrong; the stronger, the larger the share.", width
    if len(matrix) > pictures.MATRIX_CLASSES:
        note, least = "", 0
    elif len(matrix) <= pictures.NUMBERED_CLASSES:
        least = 0 if len(matrix) <= 12 else 0.8 * width
    drawn = _svg(figure, "confusion", said, f"width:min(100%,{width:.0f}px);min-width:{least:.0f}px")
    return (
        f"{words}\n<p>The most confused:</p>\n<ol>{confused}</ol>\n"
        f'<figure class="scroll" tabindex="0">{drawn}</figure>\n<p class="note">{note}</p>'
    )


def _examples(images: NDArray[np.uint8], probs: Float, labels: NDArray[np.int64], class_names: Sequence[str]) -> str:
    if not len(images):
        return ""
    given = np.array([top_classes(p, 1)[0] for p in probs])
    surest = np.nan_to_num(probs[np.arange(len(probs)), given])
    wrong = np.flatnonzero(given != labels)
    wrong = wrong[np.argsort(-surest[wrong], kind="stable")][:EXAMPLES]
    right = _spread(np.flatnonzero(given == labels), labels, EXAMPLES)
    parts = []
    for heading, chosen in (("Wrong, the surest first", wrong), ("Right, class by class", right)):
        if len(chosen):
            items = "\n".join(_example(images[n], probs[n], int(labels[n]), class_names) for n in chosen)
            parts.append(f'<h3>{heading}</h3>\n<ul class="examples">{items}</ul>')
    return "\n".join(parts)


def _spread(chosen: NDArray[np.int64], labels: NDArray[np.int64], count: int) -> list[int]:
    """Some of the chosen images, taking classes in turn."""
    turns: dict[int, int] = {}
    keyed = []
    for n in chosen.tolist():
        turn = turns[int(labels[n])] = turns.get(int(labels[n]), -1) + 1
        keyed.append((turn, int(labels[n]), n))
    return [n for *_, n in sorted(keyed)[:count]]


def _example(image: NDArray[np.uint8], probs: Float, label: int, class_names: Sequence[str]) -> str:
    """One image, its label, and the most probable classes as bars."""
    top = [(k, float(np.nan_to_num(probs[k]))) for k in top_classes(probs)]
    said = ", ".join(f"{name_of(class_names, k)} {percent(p)}" for k, p in top)
    truth = name_of(class_names, label)
    bars = []
    for k, p in top:
        sort, mark = ("is-right", '<span aria-label="right">✓</span>&nbsp;') if k == label else ("is-wrong", "")
        name = f"<span>{mark}{_e(name_of(class_names, k))}</span>"
        bars.append(f'<li class="{sort}" style="--p:{100 * p:.1f}%">{name}<span>{percent(p)}</span></li>')
    small = max(image.shape[1:]) <= pictures.SMALL_IMAGE
    picture = f'<img class="{"small" if small else "large"}" src="{_image(image.transpose(1, 2, 0))}" alt="'
    alt = _e(f"An image of {truth}; the network says {said}")
    return f'<li>{picture}{alt}"><p class="truth">{_e(truth)}</p><ol>{"".join(bars)}</ol></li>'


def _commands(commands: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"<p>{_e(name)}</p>\n<pre><code>{_e(command)}</code></pre>" for name, command in commands)


# ---- parts -----------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Return a time as text in two units: ``250`` as ``4 min 10 s``."""
    if seconds < 59.5:
        return f"{seconds:.0f}\N{NO-BREAK SPACE}s" if seconds >= 10 else f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\N{NO-BREAK SPACE}min {rest}\N{NO-BREAK SPACE}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\N{NO-BREAK SPACE}h {minutes}\N{NO-BREAK SPACE}min"


def _e(text: object) -> str:
    """Escape text for use between tags or quotes."""
    return html.escape(plain(str(text), keep="\n\t"), quote=True)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _plural(count: float, what: str) -> str:
    return f"{count:,}\N{NO-BREAK SPACE}{what}{'' if count == 1 else 's'}"


def _is_command(value: str) -> bool:
    return value.startswith(("minialex ", "python -m minialex "))


def _section(name: str, heading: str, content: str) -> str:
    return f'<section id="{name}"><h2>{heading}</h2>\n{content}\n</section>' if content else ""


def _table(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f'<tr><th scope="row">{_e(name)}</th><td>{_e(value)}</td></tr>' for name, value in facts)
    return f'<table class="facts"><tbody>{rows}</tbody></table>' if rows else ""


def _details(summary: str, content: str) -> str:
    return f"<details><summary>{_e(summary)}</summary>\n{content}\n</details>"


def _image(pixels: NDArray[np.uint8]) -> str:
    """Pixels [H,W,3 or 4] as a data URL: PNG if small, else reduced and as JPEG."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    buffer = io.BytesIO()
    if pixels.shape[2] == 4 or max(pixels.shape[:2]) <= pictures.SMALL_IMAGE:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((EXAMPLE_PIXELS, EXAMPLE_PIXELS))
        picture.save(buffer, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _svg(figure: Any, name: str, said: str, style: str = "width:100%") -> str:
    """A figure as SVG that fits the page: its colours and font, without ids or styles of its own."""
    drawn = pictures.svg(figure, name)
    drawn = drawn[drawn.index("<svg") :].strip()
    drawn = re.sub(r"<style.*?</style>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)
    drawn = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", drawn)
    for colour, variable in COLOURS.items():
        drawn = drawn.replace(f": {colour}", f": var({variable})")
    drawn = re.sub(r"\n\s*", " ", drawn)
    box = re.search(r'viewBox="[^"]*"', drawn)
    head = f'<svg {box.group() if box else ""} style="{style}" role="img" aria-label="{_e(said)}">'
    return re.sub(r"^<svg[^>]*>", lambda _: head, drawn)


COLOURS = {
    pictures.INK: "--ink",
    pictures.MUTED: "--muted",
    pictures.GRID: "--line",
    pictures.BLUE: "--blue",
    pictures.ORANGE: "--orange",
}

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<footer>Written by minialex {version}.</footer>
</body>
</html>
"""

STYLE = """
:root { --ink: #1c2126; --muted: #5d6873; --line: #dde2e6; --ground: #fff; --card: #f5f7f8;
  --blue: #0069a6; --orange: #b94a00; --blue-bar: #0069a64d; --orange-bar: #b94a0033; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebee; --muted: #a3adb7; --line: #353c43; --ground: #14181c; --card: #1e2429;
    --blue: #62b4ea; --orange: #ff9a52; --blue-bar: #62b4ea66; --orange-bar: #ff9a5240; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; }
main, footer { max-width: 60rem; margin: 0 auto; padding: 0 1rem; overflow-wrap: anywhere; }
main { padding-top: 1.5rem; }
footer { padding-block: 2rem; color: var(--muted); font-size: .875rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .75rem; }
h2 { font-size: 1.25rem; margin: 0 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .75rem; }
section { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 1px solid var(--line); }
.result { font-size: 1.2rem; line-height: 1.5; margin: 0; max-width: 46rem; }
.note, figcaption, dt { color: var(--muted); font-size: .9rem; }
.note { max-width: 46rem; margin: .75rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0 0; }
.tiles div { flex: 1 1 8rem; background: var(--card); border-radius: .5rem; padding: .75rem 1rem; }
dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.warnings { border: 0; border-left: .3rem solid var(--orange); background: var(--card); padding: 1rem 1.25rem; }
.warnings ul { margin: 0; padding-left: 1.1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1.5rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 400; color: var(--muted); }
.facts { width: 100%; max-width: 46rem; }
.facts th { width: 36%; }
.numbers { font-size: .9rem; overflow-wrap: normal; }
.numbers th, .numbers td { text-align: right; padding: .2rem 1.2rem .2rem 0; white-space: nowrap; }
figure { margin: 0 0 1rem; }
figcaption { margin-top: .35rem; }
svg { display: block; height: auto; stroke-linejoin: round; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.pair figure { margin: 0; }
.scroll { overflow-x: auto; }
img { display: block; max-width: 100%; }
.kernels { width: 52rem; height: auto; }
.examples { list-style: none; margin: 0; padding: 0; display: grid; gap: 1.5rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.examples img { width: 100%; border-radius: .25rem; }
.examples .small { image-rendering: pixelated; }
.truth { font-weight: 600; margin: .4rem 0 .3rem; text-align: center; }
.examples ol { list-style: none; margin: 0; padding: 0; font-size: .8rem; }
.examples ol li { display: flex; justify-content: space-between; gap: .25rem; padding: .05rem .2rem; margin-bottom: 2px;
  background: linear-gradient(to right, var(--bar) var(--p), transparent 0); }
.examples ol span:last-child { white-space: nowrap; font-variant-numeric: tabular-nums; }
.is-right { --bar: var(--blue-bar); font-weight: 600; }
.is-wrong { --bar: var(--orange-bar); }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--blue); padding: .25rem 0; }
pre { background: var(--card); border-radius: .5rem; padding: .75rem 1rem; overflow-x: auto; font-size: .85rem;
  line-height: 1.45; margin: .35rem 0 1rem; overflow-wrap: normal; }
#next p { margin: 0; }
"""

"""Plots as SVG text and picture grids as small PNGs."""

from PIL import Image, ImageDraw

INK, PALE, COLOURS = "#333", "#ddd", ["#2166c9", "#d6601e", "#2c8c46", "#8040a0"]


def lines(title, labels, series, low=0.0, high=1.0, joined=True):
    """Points with their intervals over labelled places, side by side if not joined: `series` is name to a list of `(mean, low, high)` or `None`."""
    width, height, left, top, right, bottom = 600, 280, 60, 46, 50, 40
    span = (width - left - right) / max(1, len(labels) - 1)

    def at(index, value):
        share = (min(max(value, low), high) - low) / (high - low)
        return left + index * span, top + (height - top - bottom) * (1 - share)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="18" fill="{INK}">{title}</text>',
    ]
    for step in range(5):
        value = low + (high - low) * step / 4
        _, y = at(0, value)
        out.append(f'<path d="M{left} {y:.1f}H{width - right}" stroke="{PALE}"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{INK}">{value:.2g}</text>')
    for index, label in enumerate(labels):
        x, _ = at(index, low)
        out.append(f'<text x="{x:.1f}" y="{height - bottom + 20}" text-anchor="middle" fill="{INK}">{label}</text>')
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        there = [(index, point) for index, point in enumerate(points) if point is not None]
        path = "L".join("{:.1f} {:.1f}".format(*at(index, point[0])) for index, point in there)
        if joined:
            out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for index, (mean, down, up) in there:
            x, y = at(index, mean)
            x += 0 if joined else 7 * number
            out.append(f'<path d="M{x:.1f} {at(index, down)[1]:.1f}V{at(index, up)[1]:.1f}" stroke="{colour}"/>')
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        out.append(f'<text x="{left + number * 170}" y="36" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>\n"])


def grid(path, rows, columns, cell=72):
    """Rows of `(label, files)` under column words, 128 colours so that the file stays small."""
    gap, left, top = 3, 124, 18
    sheet = Image.new("RGB", (left + len(columns) * (cell + gap), top + len(rows) * (cell + gap)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, words in enumerate(columns):
        draw.text((left + index * (cell + gap) + 2, 3), words, fill="black")
    for index, (label, files) in enumerate(rows):
        y = top + index * (cell + gap)
        draw.text((4, y + cell // 2 - 6), label, fill="black")
        for column, file in enumerate(files):
            if file is not None:
                picture = Image.open(file).convert("RGB").resize((cell, cell), Image.BOX)
                sheet.paste(picture, (left + column * (cell + gap), y))
    sheet.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)

"""What is read off figures instead of looking at them."""

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def draw(figure):
    """Lay out and render: what would fail only when a figure is saved fails here."""
    FigureCanvasAgg(figure).draw()
    return figure


def kept_figures(monkeypatch):
    """The figures by the name of their file, kept instead of saved."""
    figures = {}

    def keep(figure, path):
        figures[path.name] = figure
        return path

    monkeypatch.setattr("dogs_accel.eda.run.save_figure", keep)
    return figures


def stands_out(figure):
    """Texts that end beyond the right side of a figure, but for labels of ticks, which may lie out of sight."""
    draw(figure)
    ticks = {text for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for text in axis.findobj(Text)}
    every = [each for each in figure.findobj(Text) if each.get_text() and each not in ticks]
    return [each.get_text() for each in every if each.get_window_extent().x1 > figure.bbox.width]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def cells(figure):
    """Caption of each cell with its picture, or what it says instead."""
    found = []
    for axes in figure.axes:
        if axes.axison:
            found.append((axes.get_xlabel(), axes.images[0] if axes.images else axes.texts[0].get_text()))
    return found

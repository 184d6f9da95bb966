"""What is read off figures instead of looking at them."""

from matplotlib.backends.backend_agg import FigureCanvasAgg


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


def texts(axes):
    return [text.get_text() for text in axes.texts]


def cells(figure):
    """Caption of each cell with its picture, or what it says instead."""
    found = []
    for axes in figure.axes:
        if axes.axison:
            found.append((axes.get_xlabel(), axes.images[0] if axes.images else axes.texts[0].get_text()))
    return found

"""Opens an exported GeoPackage with QGIS' own Python and draws it in its own styles.

Run it with the Python that has ``qgis`` (Debian: ``apt install python3-qgis``):
``/usr/bin/python3 benchmarks/open_in_qgis.py PROJECT.gpkg MAP.png``.
Exits 1 where a layer or style fails.
"""

import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor

LAYERS = ("targets", "ellipses", "detections", "gaps", "coverage")


def main(path: str, picture: str) -> int:
    """Prints one line per layer; returns 1 where one is invalid or comes without its style."""
    app = QgsApplication([], False)
    app.initQgis()
    layers, bad = [], 0
    for name in LAYERS:
        layer = QgsVectorLayer(f"{path}|layername={name}", name, "ogr")
        message, styled = layer.loadDefaultStyle()
        print(
            f"{name:10} valid={layer.isValid()} features={layer.featureCount()} "
            f"crs={layer.crs().authid()} styled={styled} {message}"
        )
        bad += not (layer.isValid() and styled)
        layers.append(layer)
    settings, extent = QgsMapSettings(), QgsRectangle()
    for layer in layers:
        if layer.featureCount():
            extent.combineExtentWith(layer.extent())
    extent.scale(1.1)
    settings.setLayers(layers)
    settings.setDestinationCrs(layers[0].crs())
    settings.setExtent(extent)
    settings.setOutputSize(QSize(1200, 800))
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    bad += not job.renderedImage().save(picture)
    del job, settings, layers, layer  # before the application that owns their providers
    app.exitQgis()
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

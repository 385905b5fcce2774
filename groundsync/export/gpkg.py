"""GeoPackage: all layers in one file, with the QGIS styles inside."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
from shapely import MultiPolygon
from shapely.geometry.base import BaseGeometry

from groundsync.errors import ExportError
from groundsync.export.rows import Sheet, sheets
from groundsync.export.styles import style_of
from groundsync.view import ProjectView

EPOCH = "2000-01-01T00:00:00.000Z"
"""The file's own time stamps: the same project gives the same bytes."""

DTYPES: dict[type, type] = {int: np.int64, float: np.float64, bool: np.bool_, str: object}

GPKG_VERSION = "1.2"
"""Read without complaint by GDAL 2.3 and later; nothing newer is needed."""

STYLES_TABLE = """
CREATE TABLE layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  f_table_catalog TEXT(256), f_table_schema TEXT(256), f_table_name TEXT(256),
  f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now'))
)"""


def write_gpkg(view: ProjectView, path: Path) -> Path:
    """Writes every layer and its style into one GeoPackage, whole or not at all; returns its path.

    Raises:
        ExportError: The file cannot be written.
    """
    draft = path.with_name(f".{path.stem}.draft.gpkg")
    layers = sheets(view)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": EPOCH})
        try:
            for i, sheet in enumerate(layers):
                _write_layer(view, sheet, draft, append=i > 0)
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        _write_styles(draft, layers)
        draft.replace(path)
    except (OSError, sqlite3.Error, pyogrio.errors.DataSourceError) as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ExportError(
            f"cannot write {path}: {error}", "close it in other programs; check the disk's space"
        ) from error
    return path


def _write_layer(view: ProjectView, sheet: Sheet, path: Path, *, append: bool) -> None:
    columns: dict[str, object] = {
        name: np.array(values, dtype=DTYPES[kind])
        for (name, kind), values in zip(sheet.columns, sheet.table().values(), strict=True)
    }
    shapes = [_as(sheet.kind, shape) for shape in sheet.shapes]
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=view.crs)
    pyogrio.write_dataframe(
        frame,
        path,
        layer=sheet.name,
        driver="GPKG",
        append=append,
        geometry_type=sheet.kind,
        dataset_options={} if append else {"VERSION": GPKG_VERSION},
        layer_options={"DESCRIPTION": sheet.about, "GEOMETRY_NAME": "geom"},
    )


def _as(kind: str, shape: BaseGeometry) -> BaseGeometry:
    if kind != "MultiPolygon" or shape.geom_type == "MultiPolygon":
        return shape
    parts = getattr(shape, "geoms", [shape])
    return MultiPolygon([part for part in parts if part.geom_type == "Polygon"])


def _write_styles(path: Path, layers: Sequence[Sheet]) -> None:
    """Adds QGIS's own ``layer_styles`` table, one default style per layer."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(STYLES_TABLE)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, description, "
            "last_change) VALUES ('layer_styles', 'attributes', 'layer_styles', 'QGIS styles', ?)",
            (EPOCH,),
        )
        for sheet in layers:
            columns = sheet.table()
            classes = sorted({str(v) for v in columns.get("class_name", [])})
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
                "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, "
                "owner, ui, update_time) VALUES ('', '', ?, 'geom', 'gossan', ?, '', 1, ?, '', "
                "NULL, ?)",
                (sheet.name, style_of(sheet.name, classes), sheet.about, EPOCH),
            )

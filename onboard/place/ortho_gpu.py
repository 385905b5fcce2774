"""The ortho on an NVIDIA GPU: map interpolation, masks and sampling in one CuPy kernel.

The nodes, the exact cells and the horizon come from the CPU as they are; only what costs time per
pixel runs here. Without CuPy or a device the CPU path serves (`ortho.apply_map` chooses).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onboard.place.backward_map import BackwardMap
from onboard.place.direct_map import OUTSIDE_PX
from onboard.place.ortho_resample import MAX_CHANNELS, ImageResampling
from onboard.records import Bools, Image, Ints

log = logging.getLogger(__name__)

TYPES = {"uint8": "unsigned char", "uint16": "unsigned short"}
BLOCK = (32, 8)

SOURCE = r"""
#define FRAME int h, int w, int bands, int cubic, float high_u, float high_v, \
    float scale, float shift
struct Frame { int h, w, bands, cubic; float high_u, high_v, scale, shift; };

__device__ float tap(const PIXEL* src, Frame f, int x, int y, int band) {
    x = min(max(x, 0), f.w - 1);
    y = min(max(y, 0), f.h - 1);
    return (float)src[((long long)y * f.w + x) * f.bands + band];
}

__device__ void weights(float t, int cubic, float* w) {
    if (!cubic) { w[0] = 0.f; w[1] = 1.f - t; w[2] = t; w[3] = 0.f; return; }
    const float a = -0.75f;
    w[0] = ((a * (t + 1.f) - 5.f * a) * (t + 1.f) + 8.f * a) * (t + 1.f) - 4.f * a;
    w[1] = ((a + 2.f) * t - (a + 3.f)) * t * t + 1.f;
    w[2] = ((a + 2.f) * (1.f - t) - (a + 3.f)) * (1.f - t) * (1.f - t) + 1.f;
    w[3] = 1.f - w[0] - w[1] - w[2];
}

__device__ void paint(const PIXEL* src, Frame f, float u, float v, long long at,
                      PIXEL* out, unsigned char* mask) {
    bool seen = u >= 0.f && v >= 0.f && u <= f.high_u && v <= f.high_v;
    mask[at] = seen;
    if (!seen) {
        for (int band = 0; band < f.bands; ++band) out[at * f.bands + band] = 0;
        return;
    }
    float x = u * f.scale + f.shift, y = v * f.scale + f.shift;
    int x0 = (int)floorf(x), y0 = (int)floorf(y);
    float wx[4], wy[4];
    weights(x - x0, f.cubic, wx);
    weights(y - y0, f.cubic, wy);
    int first = f.cubic ? 0 : 1, last = f.cubic ? 4 : 3;
    for (int band = 0; band < f.bands; ++band) {
        float sum = 0.f;
        for (int j = first; j < last; ++j) {
            float line = 0.f;
            for (int i = first; i < last; ++i)
                line += wx[i] * tap(src, f, x0 + i - 1, y0 + j - 1, band);
            sum += wy[j] * line;
        }
        out[at * f.bands + band] = (PIXEL)fminf(fmaxf(rintf(sum), 0.f), HIGHEST);
    }
}

extern "C" __global__ void spread(
    const PIXEL* src, FRAME, const float2* nodes, int node_columns,
    const int* column_cell, const float* column_weight, const int* row_cell,
    const float* row_weight, const unsigned char* near, int height, int width,
    PIXEL* out, unsigned char* mask) {
    int col = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (col >= width || row >= height) return;
    Frame f = {h, w, bands, cubic, high_u, high_v, scale, shift};
    long long at = (long long)row * width + col;
    int i = column_cell[col], j = row_cell[row];
    float wx = column_weight[col], wy = row_weight[row];
    float u = -1.f, v = -1.f;
    if (near[j * (node_columns - 1) + i]) {
        const float2* top = nodes + (long long)j * node_columns + i;
        const float2* low = top + node_columns;
        float ua = top[0].x + (top[1].x - top[0].x) * wx;
        float ub = low[0].x + (low[1].x - low[0].x) * wx;
        float va = top[0].y + (top[1].y - top[0].y) * wx;
        float vb = low[0].y + (low[1].y - low[0].y) * wx;
        u = (1.f - wy) * ua + wy * ub;
        v = (1.f - wy) * va + wy * vb;
    }
    paint(src, f, u, v, at, out, mask);
}

extern "C" __global__ void exact(
    const PIXEL* src, FRAME, const float2* uv, const long long* pixel, long long count,
    PIXEL* out, unsigned char* mask) {
    long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= count) return;
    Frame f = {h, w, bands, cubic, high_u, high_v, scale, shift};
    paint(src, f, uv[k].x, uv[k].y, pixel[k], out, mask);
}
"""


@cache
def ready() -> bool:
    """Whether CuPy is installed and finds a device; asked once."""
    try:
        import cupy

        return int(cupy.cuda.runtime.getDeviceCount()) > 0
    except ImportError:
        return False
    except RuntimeError as error:
        log.warning("gpu_not_usable reason=%s", error)
        return False


def serves(pixels: Image) -> bool:
    """Whether the kernel takes such pixels: 8 or 16 bits, up to four bands."""
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    return str(pixels.dtype) in TYPES and bands <= MAX_CHANNELS


def render(
    source: Image,
    backward: BackwardMap,
    resampling: ImageResampling,
    scale: float,
    shift: float,
) -> tuple[Image, Bools]:
    """Returns the ortho (h, w[, bands]) and its mask (h, w), as the CPU would within 1 DN.

    The mask is of what lies in the frame, hidden ground included.

    Args:
        source: (h, w, bands) or (h, w) uint8 or uint16.
        backward: Which source pixel each output pixel shows.
        resampling: Between source pixels.
        scale: A source coordinate c lies at c · scale + shift in the source.
        shift: See scale.
    """
    import cupy as cp

    grid = backward.grid
    module, frame = _module(str(source.dtype)), _frame(source, backward, resampling, scale, shift)
    src = cp.asarray(np.ascontiguousarray(source))
    out = cp.empty((grid.height, grid.width, *source.shape[2:]), source.dtype)
    mask = cp.empty((grid.height, grid.width), cp.uint8)
    nodes = np.where(np.isfinite(backward.uv), backward.uv, OUTSIDE_PX).astype(np.float32)
    axes = [
        cp.asarray(part)
        for axis in (backward.columns, backward.rows)
        for part in (axis.cell.astype(np.int32), axis.weight)
    ]
    near = cp.asarray(backward.near.view(np.uint8))
    size = np.int32(grid.height), np.int32(grid.width)
    blocks = (-(-grid.width // BLOCK[0]), -(-grid.height // BLOCK[1]))
    given = (
        src,
        *frame,
        cp.asarray(nodes),
        np.int32(nodes.shape[1]),
        *axes,
        near,
        *size,
        out,
        mask,
    )
    module.get_function("spread")(blocks, BLOCK, given)
    pixel, uv = _exact(backward)
    if len(pixel):
        given = (src, *frame, cp.asarray(uv), cp.asarray(pixel), np.int64(len(pixel)), out, mask)
        module.get_function("exact")((-(-len(pixel) // 256),), (256,), given)
    return cp.asnumpy(out), cp.asnumpy(mask).view(np.bool_)


def _frame(
    source: Image, backward: BackwardMap, resampling: ImageResampling, scale: float, shift: float
) -> tuple[np.generic, ...]:
    """Returns the kernels' arguments that describe the source frame."""
    camera = backward.view.camera
    bands = 1 if source.ndim == 2 else source.shape[2]
    whole = (*source.shape[:2], bands, resampling == "cubic")
    real = (camera.width_px - 1.0, camera.height_px - 1.0, scale, shift)
    return (*[np.int32(v) for v in whole], *[np.float32(v) for v in real])


@cache
def _module(dtype: str) -> Any:
    import cupy as cp

    highest = float(np.iinfo(dtype).max)
    text = SOURCE.replace("PIXEL", TYPES[dtype]).replace("HIGHEST", f"{highest}f")
    return cp.RawModule(code=text, options=("--fmad=false",))


def _exact(backward: BackwardMap) -> tuple[Ints, NDArray[np.float32]]:
    """Returns flat indices (n,) and source pixels (n, 2) of what is evaluated pixel by pixel."""
    grid = backward.grid
    cells = backward.exact[backward.rows.cell]
    if not cells.any():
        return np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
    row, col = np.nonzero(cells[:, backward.columns.cell])
    uv = backward.source_px(np.stack([col, row], axis=1))
    uv = np.where(np.isfinite(uv), uv, OUTSIDE_PX).astype(np.float32)
    return (row * np.int64(grid.width) + col).astype(np.int64), np.ascontiguousarray(uv)

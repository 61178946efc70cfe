"""Hole filling by the biharmonic equation, with one sparse solve for all holes of an image."""

import numpy as np


def fill(image: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Fill the holes so that the sum of squared Laplacians is smallest, (H, W) float64.

    With L the five-point Laplacian, mirrored at the border, h the pixels in holes and k the known ones, it solves

        argmin |L x|^2  over x_h:   (L^T L)_hh x_h = -(L^T L)_hk x_k ,

    the biharmonic equation in the holes. The matrix is positive definite as soon as one pixel is known.

    scikit-image's `inpaint_biharmonic` (0.26) solves it hole by hole, and reads uninitialised memory where holes are
    long and thin.

    Arguments:
        image: (H, W); its values in the holes are ignored.
        holes: (H, W) bool.

    Raises:
        ValueError: no pixel is known.

    References: S. Damelin, N. Hoang, On surface completion and image inpainting by biharmonic functions: numerical
    aspects, 2018.
    """
    from scipy.sparse.linalg import LaplacianNd, splu

    h, k = np.flatnonzero(holes), np.flatnonzero(~holes)
    if not len(k):
        raise ValueError("No pixel is known, so that the biharmonic equation has no boundary values.")
    x = image.astype(np.float64).ravel()
    if not len(h):
        return x.reshape(image.shape)
    sides = [side for side in image.shape if side > 1]  # scipy's does not mirror along a side of one pixel
    L = LaplacianNd(sides, boundary_conditions="neumann").tosparse().astype(float).tocsc()
    B = L[:, h]
    # The matrix is positive definite, so it needs no pivoting, which would spoil the ordering that minimises fill-in.
    matrix = splu((B.T @ B).tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    x[h] = matrix.solve(-(B.T @ (L[:, k] @ x[k])))
    return x.reshape(image.shape)

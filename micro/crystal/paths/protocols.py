"""Simple strain paths: the test protocols of the paper and the usual ones of mechanics.

Each function draws a path and returns the right stretch U(x) (m, 6) for a loading parameter x in [0, 1]. c is the
strain of the path, the largest of the loading direction. The axes are those of the sample; the option `orientation` of
the data set turns a path at random.

==================  =========================================================================================
uniaxial            U11 = f, U22 = 1/f, U33 = 1, f = 1 + c x. Protocol U of table 1; the paper prints f = ct, which
                    does not begin at the identity. Isochoric.
load-unload         The same with f = 1 + c (1 - |2x - 1|). Protocol L-U of table 1.
cavity              U11 = 1/U22 = 1/sqrt(1 + k x^2), U33 = 1, with k = (1 + c)^2 - 1, so that U22(1) = 1 + c. Protocol C
                    of table 1, the stretch beside an expanding cavity.
axisymmetric        U = diag(f, f^-1/2, f^-1/2), f = exp(+-c x): isochoric tension or compression of a bar.
plane-strain        U = exp(c x N), N = cos(a) (e1 e1 - e2 e2) + sin(a) (e1 e2 + e2 e1), a random: isochoric, U33 = 1.
simple-shear        The right stretch of F = I + 2 c x e1 e2. In the plane 1-2 it is U = (C + I)/sqrt(tr C + 2), because
                    C = F^T F has the determinant 1 there (Hoger and Carlson, 1984).
cyclic              U = diag(f, 1/f, 1), log f = log(1 + c) w(x), w a triangular wave in [-1, 1] with 2 to 5 cycles.
proportional        U = exp(c x N), N a random deviator, uniform in direction, with N : N = 3/2, so that c is the
                    equivalent logarithmic strain.
==================  =========================================================================================

References:
    Liu et al. (2022), section 3.2 and table 1, doi:10.1016/j.jmps.2021.104668.
    A. Hoger and D. E. Carlson, Determination of the stretch and rotation in the polar decomposition of the deformation
    gradient, 1984: the stretch of a plane tensor.
"""

from collections.abc import Callable

import numpy as np

from micro.tensors import to_components

Stretch = Callable[[np.ndarray], np.ndarray]
#: Numbers of cycles of a cyclic path.
CYCLES = (2, 5)


def exponential(H: np.ndarray) -> np.ndarray:
    """Return exp(H) of symmetric tensors (m, 3, 3), in their principal axes."""
    values, axes = np.linalg.eigh(H)
    return np.einsum("mik,mk,mjk->mij", axes, np.exp(values), axes)


def random_deviator(rng: np.random.Generator) -> np.ndarray:
    """Return a symmetric deviator N (3, 3), uniform in direction, with N : N = 3/2."""
    A = rng.standard_normal((3, 3))
    A = (A + A.T) / 2  # variances 1 on and 1/2 off the diagonal: a normal vector in the Mandel basis, without direction
    N = A - np.trace(A) / 3 * np.eye(3)
    return N * np.sqrt(1.5 / np.sum(N * N))


def plane(f11: np.ndarray, f22: np.ndarray) -> np.ndarray:
    """Return the stretches diag(f11, f22, 1) (m, 6)."""
    zero = np.zeros_like(f11)
    return np.stack([f11, f22, zero + 1.0, zero, zero, zero], axis=-1)


def uniaxial(rng: np.random.Generator, c: float) -> Stretch:
    """U11 = f, U22 = 1/f, f = 1 + c x."""
    return lambda x: plane(1 + c * x, 1 / (1 + c * x))


def load_unload(rng: np.random.Generator, c: float) -> Stretch:
    """U11 = f, U22 = 1/f, f = 1 + c (1 - |2x - 1|)."""

    def stretch(x: np.ndarray) -> np.ndarray:
        f = 1 + c * (1 - np.abs(2 * x - 1))
        return plane(f, 1 / f)

    return stretch


def cavity(rng: np.random.Generator, c: float) -> Stretch:
    """U11 = 1/U22 = 1/sqrt(1 + k x^2) with U22(1) = 1 + c."""

    def stretch(x: np.ndarray) -> np.ndarray:
        f = np.sqrt(1 + ((1 + c) ** 2 - 1) * x**2)
        return plane(1 / f, f)

    return stretch


def axisymmetric(rng: np.random.Generator, c: float) -> Stretch:
    """U = diag(f, f^-1/2, f^-1/2), f = exp(+-c x)."""
    sign = float(rng.integers(0, 2) * 2 - 1)

    def stretch(x: np.ndarray) -> np.ndarray:
        f, zero = np.exp(sign * c * x), np.zeros_like(x)
        return np.stack([f, f**-0.5, f**-0.5, zero, zero, zero], axis=-1)

    return stretch


def plane_strain(rng: np.random.Generator, c: float) -> Stretch:
    """U = exp(c x N) with a random isochoric N in the plane 1-2."""
    a = rng.uniform(0, 2 * np.pi)

    def stretch(x: np.ndarray) -> np.ndarray:
        ch, sh, zero = np.cosh(c * x), np.sinh(c * x), np.zeros_like(x)  # N^2 is the identity of the plane
        return np.stack([ch + sh * np.cos(a), ch - sh * np.cos(a), zero + 1, sh * np.sin(a), zero, zero], axis=-1)

    return stretch


def simple_shear(rng: np.random.Generator, c: float) -> Stretch:
    """Right stretch of F = I + 2 c x e1 e2."""

    def stretch(x: np.ndarray) -> np.ndarray:
        gamma, zero = 2 * c * x, np.zeros_like(x)
        root = np.sqrt(4 + gamma**2)
        return np.stack([2 / root, (2 + gamma**2) / root, zero + 1, gamma / root, zero, zero], axis=-1)

    return stretch


def cyclic(rng: np.random.Generator, c: float) -> Stretch:
    """U = diag(f, 1/f, 1), log f = log(1 + c) w(x), w a triangular wave."""
    cycles = int(rng.integers(CYCLES[0], CYCLES[1] + 1))

    def stretch(x: np.ndarray) -> np.ndarray:
        wave = 1 - np.abs(4 * ((cycles * x + 0.25) % 1.0) - 2)  # 0, 1, 0, -1, 0 in a cycle
        f = (1 + c) ** wave
        return plane(f, 1 / f)

    return stretch


def proportional(rng: np.random.Generator, c: float) -> Stretch:
    """U = exp(c x N), N a random deviator."""
    N = random_deviator(rng)
    return lambda x: to_components(exponential(c * x[:, None, None] * N))


#: The protocols of this module by name.
SIMPLE: dict[str, Callable[[np.random.Generator, float], Stretch]] = {
    "uniaxial": uniaxial,
    "load-unload": load_unload,
    "cavity": cavity,
    "axisymmetric": axisymmetric,
    "plane-strain": plane_strain,
    "simple-shear": simple_shear,
    "cyclic": cyclic,
    "proportional": proportional,
}

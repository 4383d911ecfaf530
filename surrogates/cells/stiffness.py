"""Engineering constants and directional stiffness of an effective tensor, with its picture.

Tensors are in `micro.tensors.ENGINEERING_ORDER`, with engineering shear strains.
"""

from pathlib import Path
from typing import Any

import numpy as np

from micro.tensors import ENGINEERING_ORDER

#: Fraction of the largest modulus that is given to a strain without resistance, so that it has a compliance.
SOFTEST = 1e-9
#: Planes of the picture: name, axes, and style of the line, so that equal curves stay visible.
PLANES = (("12", (0, 1), "-"), ("23", (1, 2), "--"), ("13", (0, 2), ":"))


def compliance(C: np.ndarray) -> np.ndarray:
    """Return the compliance (6, 6); it is very large for strains without resistance."""
    values, vectors = np.linalg.eigh((C + C.T) / 2)
    return (vectors / np.maximum(values, SOFTEST * max(values[-1], 1e-300))) @ vectors.T


def engineering_constants(C: np.ndarray) -> dict[str, float | None]:
    """Return Young's and shear moduli along the axes, Poisson's ratios, bulk moduli, and two measures of anisotropy.

    `nu_ij` is minus the strain along j by that along i under tension along i. Voigt averages assume a uniform strain
    in a polycrystal of such cells, Reuss averages a uniform stress. `zener` is 2 C44 / (C11 - C12) of the averages
    over the axes, 1 if isotropic; `universal` is 5 G_V / G_R + K_V / K_R - 6, 0 if isotropic. A
    constant is None where the cell does not resist an extension or a shear that the constant needs.

    Args:
        C: Stiffness (6, 6), of the unit of Young's modulus of the solid.

    References:
        Ranganathan and Ostoja-Starzewski (2008), Universal elastic anisotropy index, equation (12),
        doi:10.1103/PhysRevLett.101.055504.
    """
    S = compliance(C)
    axes, top = "123", float(np.linalg.eigvalsh((C + C.T) / 2)[-1])
    out: dict[str, float | None] = {}

    def modulus(s: float) -> float | None:
        return 1 / s if top > 0 and s * top < 0.1 / SOFTEST else None

    for i in range(3):
        out[f"E_{axes[i]}"] = modulus(S[i, i])
    for row, (i, j) in enumerate(ENGINEERING_ORDER.pairs[3:], start=3):
        out[f"G_{axes[i]}{axes[j]}"] = modulus(S[row, row])
    for i in range(3):
        for j in range(3):
            if i != j:
                known = out[f"E_{axes[i]}"] is not None and out[f"E_{axes[j]}"] is not None
                out[f"nu_{axes[i]}{axes[j]}"] = -S[j, i] / S[i, i] if known else None
    K_V, K_R = C[:3, :3].sum() / 9, modulus(S[:3, :3].sum())
    G_V = ((C[0, 0] + C[1, 1] + C[2, 2]) - (C[0, 1] + C[0, 2] + C[1, 2]) + 3 * (C[3, 3] + C[4, 4] + C[5, 5])) / 15
    G_R = modulus((4 * (S[0, 0] + S[1, 1] + S[2, 2] - S[0, 1] - S[0, 2] - S[1, 2]) + 3 * np.trace(S[3:, 3:])) / 15)
    out |= {"K_voigt": float(K_V), "K_reuss": K_R, "G_voigt": float(G_V), "G_reuss": G_R}
    differ = np.trace(C[:3, :3]) - (C[0, 1] + C[0, 2] + C[1, 2])
    out["zener"] = float(2 * np.trace(C[3:, 3:]) / differ) if differ > SOFTEST * top else None
    out["universal"] = None if G_R is None or K_R is None else float(5 * G_V / G_R + K_V / K_R - 6)
    return {name: None if value is None else float(value) for name, value in out.items()}


def directional_stiffness(C: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return Young's modulus of tension along unit vectors (..., 3): 1 / E = (n n) : S : (n n)."""
    n = np.asarray(direction, dtype=float)
    stress = n[..., ENGINEERING_ORDER.rows] * n[..., ENGINEERING_ORDER.columns]
    return 1 / np.einsum("...i,ij,...j->...", stress, compliance(C), stress)


def check_picture(path: Path) -> None:
    """Check that the ending of a file is that of a picture; ValueError lists those that are known."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix.lower().lstrip(".") not in known:
        raise ValueError(f"picture must end in one of {', '.join(known)}, got {path}.")


def write_picture(path: Path, C: np.ndarray, title: str = "") -> None:
    """Draw Young's modulus over directions and write it in the format of the file's ending (png, pdf, svg).

    Args:
        path: The file.
        C: Stiffness (6, 6), relative to Young's modulus of the solid.
        title: Of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    theta, phi = np.meshgrid(np.linspace(0, np.pi, 91), np.linspace(0, 2 * np.pi, 181), indexing="ij")
    n = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    E = directional_stiffness(C, n)
    top = float(E.max())
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    colours = ScalarMappable(Normalize(float(E.min()), top), "viridis")
    body: Any = figure.add_subplot(1, 2, 1, projection="3d")
    x = n * E[..., None]
    body.plot_surface(*np.moveaxis(x, -1, 0), facecolors=colours.to_rgba(E), rstride=2, cstride=2, shade=False)
    for axis in "xyz":
        getattr(body, f"set_{axis}lim")(-top, top)
        getattr(body, f"set_{axis}label")(f"{'xyz'.index(axis) + 1}")
    body.set_box_aspect((1, 1, 1))
    body.tick_params(labelsize=6)
    figure.colorbar(colours, ax=body, shrink=0.7, pad=0.14, label="E(n) / E solid")
    flat = figure.add_subplot(1, 2, 2, projection="polar")
    angle = np.linspace(0, 2 * np.pi, 361)
    for name, (i, j), line in PLANES:
        directions = np.zeros((len(angle), 3))
        directions[:, i], directions[:, j] = np.cos(angle), np.sin(angle)
        flat.plot(angle, directional_stiffness(C, directions), line, label=f"plane {name}")
    flat.legend(loc="lower left", bbox_to_anchor=(-0.12, -0.12), fontsize=7)
    flat.tick_params(labelsize=7)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)

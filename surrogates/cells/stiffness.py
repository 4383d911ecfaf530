"""Engineering constants and directional stiffness of an effective tensor.

Order 11, 22, 33, 23, 13, 12, engineering shear strains.
"""

import numpy as np

#: Part of the stiffest strain's modulus that a strain without any resistance is given, to have a compliance.
SOFTEST = 1e-9


def compliance(C: np.ndarray) -> np.ndarray:
    """Return the compliance (6, 6); strains that meet no resistance have a very large one."""
    values, vectors = np.linalg.eigh((C + C.T) / 2)
    return (vectors / np.maximum(values, SOFTEST * max(values[-1], 1e-300))) @ vectors.T


def engineering_constants(C: np.ndarray) -> dict[str, float | None]:
    """Return Young's and shear moduli along the axes, Poisson's ratios, bulk moduli, and two measures of anisotropy.

    `nu_ij` is minus the strain along j by that along i under tension along i. Voigt averages hold for a uniform strain
    of a polycrystal of such cells, Reuss averages for a uniform stress. `zener` is 2 C44 / (C11 - C12) of the averages
    over the axes, 1 if isotropic; `universal` is 5 G_V / G_R + K_V / K_R - 6, 0 if isotropic. None where a cell has no
    resistance to an extension or a shear that the constant needs.

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
    for row, (i, j) in enumerate(((1, 2), (0, 2), (0, 1)), start=3):
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
    i, j = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
    stress = n[..., i] * n[..., j]
    return 1 / np.einsum("...i,ij,...j->...", stress, compliance(C), stress)

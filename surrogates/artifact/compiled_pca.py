"""PCA-Net in compiled form: the weights of an artifact, evaluated by a C library, NumPy in and out.

All points of a host have one time, so that they share the sums over the times of the data that encoder and first layer
need (`surrogates.path.pca_law`), and the row of the decoder. Sums to the end of the window are made once per law, so
that a step takes differences and multiples of rows. Points of different times are left to PyTorch.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surrogates.artifact.evaluator import Evaluator

MAIN = Path(__file__).parent / "kernel" / "pca_net.c"
#: Neurons of a layer are filled up to a multiple of this, the lanes of the widest vector.
LANES = 16
#: Parts of `Job` in pca_net.c.
JOB: dict[str, tuple[str, ...]] = {
    "arrays": ("weights", "rows", "F", "state", "P", "state_new"),
    "numbers": ("dt", "inverse_step", "bulk", "scale"),
    "flags": ("passes", "isochoric", "full"),
}


class CompiledPCALaw:
    """The compiled form of an on-line PCA-Net in single precision.

    Args:
        module: The law, scripted or not.

    Raises:
        BuildError: It cannot be compiled here.
        ValueError: The sizes of its weights do not fit.
    """

    relative_to_stress: tuple[int, ...] = ()
    smallest_scale = 1e-12  # the time is some 1e-6 s

    def __init__(self, module: Any) -> None:
        layers = [(layer.weight.detach(), layer.base.detach().flatten()) for layer in module.hidden.children()]
        self._module, self._stored = module, len(layers[0][1])
        width = -(-self._stored // LANES) * LANES
        pads = (0, width - self._stored)
        square = [torch.nn.functional.pad(W.t(), (*pads, *pads)).flatten() for W, _ in layers[1:]]
        bases = [torch.nn.functional.pad(base, pads) for _, base in layers]
        self._weights = torch.cat([*square, *bases]).numpy().copy()
        self._sums = Sums(module, layers[0][0], pads)
        # A network of the full stress has its pressure in it.
        self._numbers = (0.0 if module.full_stress else float(module.bulk), float(module.stress_scale))
        self._flags = (int(module.isochoric_measure), int(module.full_stress))
        self._window = float(module.window)
        defines = (f"STORED={self._stored}", f"WIDTH={width}", f"LAYERS={len(square)}")
        state = module.initial_state(0).shape[1]
        self._evaluate = Evaluator(MAIN, defines, **JOB, weights=self._weights.size, state=state)
        self._last: tuple[tuple[float, float], tuple[np.ndarray, float, bool]] | None = None

    def update_into(self, F: np.ndarray, state: np.ndarray, dt: float, P: np.ndarray, new: np.ndarray) -> None:
        """See `CompiledLaw`."""
        if len(F) == 0:
            return
        times = state[:, self._stored + 6]
        start, end = float(times[0]), float(times[0]) + float(dt)
        if not ((times == start).all() and start >= 0.0 and math.isfinite(end)):
            with torch.no_grad():
                piece = self._module(torch.from_numpy(F), torch.from_numpy(state), float(dt))
            P[:], new[:] = (tensor.numpy() for tensor in piece)
            return
        rows, inverse_step, passes = self._rows(start, end)
        arrays, flags = (self._weights, rows, F, state, P, new), (int(passes), *self._flags)
        self._evaluate(len(F), arrays, (float(dt), inverse_step, *self._numbers), flags)

    def _rows(self, start: float, end: float) -> tuple[np.ndarray, float, bool]:
        """`Sums.rows`; those of the last step are kept, for all pieces of a host have the same."""
        last = self._last
        if last is None or last[0] != (start, end):
            last = ((start, end), self._sums.rows(start / self._window, end / self._window))
            self._last = last
        return last[1]

    def durations(self, strains: np.ndarray) -> np.ndarray:
        """Durations (s) of steps of these strains, to compare laws with: one is zero, the last pass the window."""
        parts = 10.0 ** (-3 + 3 * ((np.arange(len(strains)) * 0.414) % 1))
        parts[len(parts) // 2] = 0.0
        return np.asarray(parts * (1.3 * self._window / parts.sum()))


class Sums:
    """Sums over the times t_j of the data, from each to the last, of the first layer's weights W_j = W Phi_j.

    Args:
        module: The law.
        first: Weight (width, 6 d) of its first layer.
        pads: Neurons to add before and after those of a layer.
    """

    def __init__(self, module: Any, first: torch.Tensor, pads: tuple[int, int]) -> None:
        modes, psi = module.phi.detach().double().numpy(), module.psi.detach().double().numpy()
        T, _, d = modes.shape
        output = module.output.detach().double().numpy().reshape(6, d, -1)
        W = self._rows_of("tcd,kcd->tck", modes, first.double().numpy().reshape(-1, 6, d), pads)
        self.decoder = self._rows_of("tcd,cdk->tck", psi, output, pads)
        self.count, self.horizon = T, float(module.horizon)
        at = (np.arange(T) / (T - 1))[:, None, None]
        self.plain, self.moment = self._from_each(W), self._from_each(W * at)
        self.fading = np.zeros_like(self.plain)  # sum of W_j exp(-(t_j - t)/horizon) from each t on
        if 0.0 < self.horizon < math.inf:
            decay, sum_ = math.exp(-1.0 / ((T - 1) * self.horizon)), np.zeros_like(W[0])
            for j in reversed(range(T)):
                sum_ = self.fading[j] = W[j] + decay * sum_

    @staticmethod
    def _rows_of(subscripts: str, a: np.ndarray, b: np.ndarray, pads: tuple[int, int]) -> np.ndarray:
        return np.pad(np.einsum(subscripts, a, b, optimize=True), ((0, 0), (0, 0), pads))

    @staticmethod
    def _from_each(values: np.ndarray) -> np.ndarray:
        """Sums from each time to the last."""
        return np.asarray(np.cumsum(values[::-1], axis=0)[::-1])

    def rows(self, start: float, end: float) -> tuple[np.ndarray, float, bool]:
        """What a step between two times, over the window, needs.

        Returns:
            Rows (5, 6, width), single precision, of V_n and its rate over the times passed, of V and its rate over
            those to come, and of the output; the inverse of the step, 0 without one; whether a time was passed.
        """
        last = self.count - 1
        s_n, s = min(start, 1.0), min(end, 1.0)
        # The first time to come; the last is never passed, so that its sample follows the present strain.
        j_n, j = (min(math.floor(t * last) + 1, last) for t in (s_n, s))
        passed = self.plain[j_n] - self.plain[j]
        moved = self.moment[j_n] - self.moment[j] - s_n * passed
        if self.horizon == 0.0:
            ahead = np.zeros_like(passed)
        elif math.isinf(self.horizon):
            ahead = self.moment[j] - s * self.plain[j]
        else:
            fading = math.exp(-max(j / last - s, 0.0) / self.horizon) * self.fading[j]
            ahead = self.horizon * (self.plain[j] - fading)
        k = min(math.floor(s * last), last - 1)
        w = s * last - k
        output = (1.0 - w) * self.decoder[k] + w * self.decoder[k + 1]
        rows = np.stack([passed, moved, self.plain[j], ahead, output]).astype(np.float32)
        return rows, (1.0 / (s - s_n) if s > s_n else 0.0), j > j_n


def is_pca_net(module: Any) -> bool:
    """Whether a module is an on-line PCA-Net in single precision."""
    names = ("phi", "psi", "hidden", "output", "horizon", "window", "stress_scale", "isochoric_measure", "full_stress")
    return all(hasattr(module, name) for name in names) and module.phi.dtype == torch.float32

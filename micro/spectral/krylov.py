"""Linear equations of a batch of problems by a preconditioned method of minimal residuals, without transposes.

References:
    Jiranek and Rozloznik (2010), Adaptive version of simpler GMRES, doi:10.1007/s11075-009-9311-8.
"""

from collections.abc import Callable

import torch
from torch import Tensor

#: A direction from the residual is taken where the last one has cut the residual below this multiple, else one from
#: the last image: the former keeps the basis well conditioned, the latter goes on where an indefinite matrix stalls.
FALL = 0.95


def minimal_residual(
    apply: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], b: Tensor, share: Tensor, most: int
) -> Tensor:
    """Return x (p, n) with |b - A x| <= share |b|, or what `most` products with A have reached.

    Args:
        apply: The product A x of vectors (p, n).
        precondition: The product of vectors (p, n) with an approximate inverse of A.
        b: Right sides (p, n), float64.
        share: Residuals asked for (p,), relative to |b|.
        most: Largest number of products with A.
    """
    x, r = torch.zeros_like(b), b
    p, n = b.shape
    images, steps = b.new_zeros((p, most, n)), b.new_zeros((p, most, n))
    goal = share * b.norm(dim=1)
    before = b.norm(dim=1)
    live = before > goal
    source = r
    for k in range(most):
        if not bool(live.any()):
            break
        step = precondition(source)
        image = apply(step)
        old, size = images[:, :k], image.norm(dim=1)
        for _ in range(2):  # Gram and Schmidt twice: once leaves round-off in the basis
            part = (old @ image[:, :, None]).mT
            image = image - (part @ old)[:, 0]
            step = step - (part @ steps[:, :k])[:, 0]
        length = image.norm(dim=1)
        sound = live & (length > 1e-12 * size) & torch.isfinite(length)
        scale = torch.where(sound, 1 / torch.where(sound, length, 1.0), 0.0)[:, None]
        image, step = torch.where(sound[:, None], image * scale, 0.0), torch.where(sound[:, None], step * scale, 0.0)
        images[:, k], steps[:, k] = image, step
        along = (image * r).sum(1, keepdim=True)
        x, r = x + along * step, r - along * image
        now = r.norm(dim=1)
        live = sound & (now > goal)
        source = torch.where((now < FALL * before)[:, None], r, image)
        before = now
    return x

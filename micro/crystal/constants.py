"""Constants of the time integration, which the PyTorch and the compiled version of the crystal law share.

The scheme is TR-BDF2: a trapezoidal stage to the fraction `GAMMA` of the step and a stage of the second-order backward
difference formula to its end, with an embedded third-order result for the estimate of the error.

References:
    Hosea and Shampine (1996), doi:10.1016/0168-9274(95)00115-8.
"""

from math import sqrt

#: Weight of the implicit rate in both stages, and the place of the middle stage.
GAMMA = 2.0 - sqrt(2.0)
DIAGONAL = GAMMA / 2.0
#: Weight of the first and of the middle rate in the result.
WEIGHT = sqrt(2.0) / 4.0
#: Weights of the result minus those of the embedded third-order result, for the rates of start, middle and end.
ERROR_WEIGHTS = (
    WEIGHT - (1.0 - WEIGHT) / 3.0,
    WEIGHT - (3.0 * WEIGHT + 1.0) / 3.0,
    DIAGONAL - DIAGONAL / 3.0,
)

#: Default bound on the error of a step, relative to the Mandel stress of a grain.
TOLERANCE = 8e-3
#: Bound on the error of a twin fraction in a step, relative to the fraction, as a multiple of the tolerance.
TWIN_TOLERANCE = 0.2
#: Fraction added to a twin fraction, and stress (Pa) added to the Mandel stress, where errors are relative to them.
TWIN_REFERENCE = 1e-5
STRESS_REFERENCE = 1e6
#: Newton's iteration has converged when the estimate of its next change is below these multiples of the tolerance: for
#: the stress, and for the twin fractions, on which the race between the variants depends.
NEWTON_TOLERANCE, NEWTON_TWIN_TOLERANCE = 0.3, 0.01
#: The same for the flow that is still missing, as an elastic stress 2 G |D|. Where slip hardly depends on the rate, a
#: small change of the stress is a large change of the flow, and the next step begins with this flow.
FLOW_TOLERANCE = 1.0
#: The tolerance that takes its place where the steps are given, so that the iteration adds nothing to their error.
FIXED_STEP_TOLERANCE = 1e-8
#: Newton iterations allowed in a stage; a stage that needs more has failed, and the step is cut.
NEWTON_ITERATIONS = 12
#: The same where the steps are given and cannot be cut: a few large ones need up to 30.
FIXED_STEP_ITERATIONS = 60
#: Largest slip of a system in a stage that one Newton step may introduce, beyond which the step is shortened.
FREE_SLIP = 0.05
#: The flow of a stage beyond which the iteration uses linear elasticity: |D|^2.
FAR = 0.1
#: Smallest determinant of the equations of the competing twin variants: below, the step is too long to resolve them.
TWIN_DETERMINANT = 0.1
#: Smallest magnitude of a pivot of these equations, which passes through zero for the variant that wins.
TWIN_PIVOT = 1e-3
#: Fraction of the crystal from which on a twin slips. A soft twin slips faster than its parent, so the flow that is
#: lost below it can be more than this share; docs/results/crystal.md says how much was measured.
SLIPPING_FRACTION = 1e-3
#: Factors of the step: after a failed iteration; safety; the bounds of its change after an estimate.
CUT, SAFETY, SHRINK, GROW = 0.25, 0.8, 0.2, 3.0
#: Smallest step relative to the time between two given points.
SMALLEST_STEP = 1e-9
#: Steps of a grain between two given points, beyond which it has failed.
MOST_STEPS = 100_000

#: What became of a crystal between two instants, and what it means.
SOLVED, STEP_TOO_SMALL, INVALID, TOO_MANY_STEPS = 0, 1, 2, 3
REASONS = (
    "",
    "the time step of a grain became too small",
    "the deformation or the state was not finite with det F > 0",
    "a grain took too many steps",
)

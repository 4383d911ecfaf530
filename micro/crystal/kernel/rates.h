/* Rates of the crystals in the lanes, and the linear equations of Newton's iteration that belong to them. */

#include "vector.h"

#ifndef N_SLIP
#error "N_SLIP and N_TWIN, the numbers of systems, must be given."
#endif

/* Material, doubles throughout so that it can be filled from an array; see `compiled.py`. Tensors as in `tensor`. */
typedef struct {
    double slip[N_SLIP][1 + N_TWIN][8], twin[N_TWIN][8];
    double tau_0[N_SLIP], rate_0[N_SLIP], h[N_SLIP], sigma_inf[N_SLIP], r_0[N_SLIP], v[N_SLIP];
    double slip_exponent, twin_exponent, twin_tau_0, twin_rate_0, twin_h, twin_k, G;
    /* Derived: (i, j) of the squares of the slip systems, 1 / tau_0, -h / sigma_inf, rate_0^(-1 / exponent). */
    double square[N_SLIP][15], twin_square[N_TWIN][15], over[N_SLIP], decline[N_SLIP], cap[N_SLIP], twin_cap;
} Law;

/* Constants of the integration, see `constants.py`. */
typedef struct {
    double gamma, diagonal, weight, error[3];
    double tolerance, twin_tolerance, newton_tolerance, newton_twin_tolerance, flow_tolerance;
    double stress_reference, twin_reference;
    double newton_iterations, free_slip, far, twin_determinant, twin_pivot, slipping_fraction;
    double cut, safety, shrink, grow, smallest_step, most_steps, substeps, domains;
} Control;

/* The crystals in the lanes; C = C0 + (t / T) dC in the frame of the crystal. */
typedef struct {
    V B[9], e[N_SLIP], lam[N_TWIN + 1], m[5], h;
    V C0[6], dC[6], t, T;
    V turn[36]; /* components in the frame of the sample to those in the crystal's, row by row */
    /* Twins that slip: their place among the twins as a row of a unit matrix, and their slip systems. */
    V place[N_TWIN + 1][N_TWIN + 1], slot[N_TWIN + 1][N_SLIP][8];
    I set;     /* which twins slip, a bit for each */
    int slots; /* the most of any lane */
} Lanes;

/* The linear equations of a Newton iteration; slip and twins are eliminated. */
typedef struct {
    V A[15];                                   /* L D L^T of the matrix of m, the upper triangle row by row */
    V slope[N_SLIP][1 + N_TWIN], pivot[N_SLIP], hardening[N_SLIP]; /* c sign(f), 1 / (1 + q r'), r' */
    unsigned slips[N_SLIP];                    /* a bit for each domain in which a system slips in some lane */
    V P[N_TWIN + 1], inverse[N_TWIN + 1], kappa, u[5]; /* p / pivot, 1 / pivot, 2k / (1 + 2k sum P), sum P t */
} Linear;

/* Where rates are evaluated: the unknowns, the weight s of the rates, the room for twins, and how many times a rate
 * stands in the equations of slips and twins: twice at the start of a step, where the explicit and the implicit one
 * agree. */
typedef struct {
    const V *m, *e, *lam;
    V s, room;
    double times;
} At;

/* What one evaluation leaves for the step of the iteration. A system that slips in no lane is passed over, as its
 * terms are zero. The queue puts the same grain of neighbouring points into the lanes, which then slip on the same
 * systems. */
typedef struct {
    V D[8], x[N_SLIP], x_twin[N_TWIN + 1];
    I resolved; /* whether the step is short enough for the race of the twin variants */
    V force[N_SLIP][1 + N_TWIN], y[N_SLIP][1 + N_TWIN], r[N_SLIP], rho[N_SLIP];
    V w[1 + N_TWIN]; /* weights of the domains, times s */
    unsigned twins; /* a bit for each twin that grows, or whose fraction is not that of the equations, in some lane */
    I twinning; /* lanes in which twins grow or their fractions are not yet those of the equations */
    V twin_force[N_TWIN + 1], twin_r[N_TWIN + 1], rho_twin[N_TWIN + 1];
    V A[15], right[5];
    Linear linear;
} Point;

#define SLOTS(z) (N_TWIN ? (z)->slots : 0)
#define SIXTH(i, j) ((i) * (9 - (i)) / 2 + (j)) /* place of (i, j), i <= j, in an upper triangle of 5 x 5 */

/* A += left (x) n, of which only the upper triangle is kept. Written out, so that A stays in registers. */
INLINE void add_square(V *A, const V *left, const V *n) {
    A[0] += left[0] * n[0], A[1] += left[0] * n[1], A[2] += left[0] * n[2], A[3] += left[0] * n[3];
    A[4] += left[0] * n[4], A[5] += left[1] * n[1], A[6] += left[1] * n[2], A[7] += left[1] * n[3];
    A[8] += left[1] * n[4], A[9] += left[2] * n[2], A[10] += left[2] * n[3], A[11] += left[2] * n[4];
    A[12] += left[3] * n[3], A[13] += left[3] * n[4], A[14] += left[4] * n[4];
}

INLINE V contract(const V *a, const V *m) {
    return (a[0] * m[0] + a[1] * m[1]) + (a[2] * m[2] + a[3] * m[3]) + a[4] * m[4];
}

/* One slip system in one domain of weight w s: its slip and slope with the force; the slip adds to the flow D. */
INLINE void slip_system(const Law *law, int a, int d, const V *S, V r, V weight, const V *m, Point *p, V *D, V *x,
                        V *q) {
    V f = contract(S, m), y = positive(magnitude(f) - r) * law->over[a], bit = sign_of(f);
    p->force[a][d] = f, p->y[a][d] = y;
    if (!any(y > 0)) {
        p->linear.slope[a][d] = all(0.0);
        return;
    }
    V c = weight * law->rate_0[a];
#ifdef SLIP_SQUARE
    V dx = c * y, slip = dx * y;
    dx *= 2.0 * law->over[a];
#else
    V slip = c * power(y, law->slip_exponent);
    V dx = choose(y > 0, slip * (law->slip_exponent * law->over[a]) / y, all(0.0));
#endif
    V along = signed_as(slip, bit);
    D[0] += along * S[0], D[1] += along * S[1], D[2] += along * S[2], D[3] += along * S[3];
    D[4] += along * S[4], D[5] += along * S[5], D[6] += along * S[6], D[7] += along * S[7];
    *x += slip;
    *q += dx;
    p->linear.slope[a][d] = signed_as(dx, bit);
    p->linear.slips[a] |= 1u << d;
}

/* Slips of all systems in all domains, and the flow D that they make. */
INLINE void slip_rates(const Law *law, const Lanes *z, const At *at, const V *given, Point *restrict p,
                       const int domains) {
    V m[5];
    for (int k = 0; k < 5; k++) m[k] = at->m[k];
    V w0 = all(1.0), w[N_TWIN + 1], total = all(0.0), D[8];
    for (int k = 0; k < 8; k++) D[k] = all(0.0);
    if (domains)
        for (int b = 0; b < N_TWIN; b++) w0 -= at->lam[b];
    w[0] = positive(w0) * at->s;
    for (int k = 0; k < SLOTS(z); k++) {
        V sum = all(0.0);
        for (int b = 0; b < N_TWIN; b++) sum += z->place[k][b] * at->lam[b];
        w[k + 1] = sum * at->s;
    }
    for (int d = 0; d <= SLOTS(z); d++) p->w[d] = w[d];
    for (int a = 0; a < N_SLIP; a++) total += law->v[a] * at->e[a];
    for (int a = 0; a < N_SLIP; a++) {
        V e = at->e[a], decay = law->h[a] != 0 ? decay_of(e * law->decline[a]) : all(1.0);
        V r = law->r_0[a] + law->sigma_inf[a] * (1.0 - decay) + law->v[a] * (total - law->v[a] * e);
        V x = all(0.0), q = all(0.0), S[8], hardening = law->h[a] * decay;
        for (int k = 0; k < 8; k++) S[k] = all(law->slip[a][0][k]);
        p->linear.slips[a] = 0;
        slip_system(law, a, 0, S, r, w[0], m, p, D, &x, &q);
        for (int d = 0; d < SLOTS(z); d++)
            slip_system(law, a, d + 1, z->slot[d][a], r, w[d + 1], m, p, D, &x, &q);
        p->x[a] = x;
        p->linear.hardening[a] = hardening, p->r[a] = r, p->rho[a] = e - given[a] - at->times * x;
        p->linear.pivot[a] = p->linear.slips[a] ? 1.0 / (1.0 + q * hardening) : all(1.0);
    }
    for (int k = 0; k < 8; k++) p->D[k] = D[k];
}

/* Sum over the domains of a slip system of c sign(f) S, five components. */
INLINE void slip_direction(const Law *law, const Lanes *z, const Linear *lin, int a, V *n) {
    for (int k = 0; k < 5; k++) n[k] = lin->slope[a][0] * law->slip[a][0][k];
    for (int d = 0; d < SLOTS(z); d++) {
        V c = lin->slope[a][d + 1];
        const V *S = z->slot[d][a];
        n[0] += c * S[0], n[1] += c * S[1], n[2] += c * S[2], n[3] += c * S[3], n[4] += c * S[4];
    }
}

/* The part of slip in the equations of m: sum over the domains of |c| S S - hindrance n n with n = sum c sign(f) S. */
INLINE void slip_matrix(const Law *law, const Lanes *z, Point *p) {
    V A[15], right[5], left[5], n[5];
    for (int k = 0; k < 15; k++) A[k] = all(0.0);
    for (int k = 0; k < 5; k++) right[k] = all(0.0);
    const Linear *lin = &p->linear;
    for (int a = 0; a < N_SLIP; a++) {
        if (!p->linear.slips[a]) continue;
        V hindrance = lin->hardening[a] * lin->pivot[a], c = lin->slope[a][0];
        V t = hindrance * p->rho[a], u = -hindrance;
        if (!N_TWIN) {
            V q = magnitude(c) * lin->pivot[a];
            t *= c;
            for (int k = 0; k < 5; k++) right[k] += t * law->slip[a][0][k];
            for (int k = 0; k < 15; k++) A[k] += q * law->square[a][k];
            continue;
        }
        for (int k = 0; k < 5; k++) n[k] = c * law->slip[a][0][k];
        c = magnitude(c);
        if (p->linear.slips[a] & 1)
            for (int k = 0; k < 15; k++) A[k] += c * law->square[a][k];
        for (int d = 0; d < SLOTS(z); d++) {
            if (!(p->linear.slips[a] >> (d + 1) & 1)) continue;
            const V *S = z->slot[d][a];
            V bit = sign_of(c = lin->slope[a][d + 1]);
            left[0] = c * S[0], left[1] = c * S[1], left[2] = c * S[2], left[3] = c * S[3], left[4] = c * S[4];
            n[0] += left[0], n[1] += left[1], n[2] += left[2], n[3] += left[3], n[4] += left[4];
            left[0] = signed_as(left[0], bit), left[1] = signed_as(left[1], bit), left[2] = signed_as(left[2], bit);
            left[3] = signed_as(left[3], bit), left[4] = signed_as(left[4], bit);
            add_square(A, left, S);
        }
        right[0] += t * n[0], right[1] += t * n[1], right[2] += t * n[2], right[3] += t * n[3], right[4] += t * n[4];
        left[0] = u * n[0], left[1] = u * n[1], left[2] = u * n[2], left[3] = u * n[3], left[4] = u * n[4];
        add_square(A, left, n);
    }
    for (int k = 0; k < 15; k++) p->A[k] = A[k];
    for (int k = 0; k < 5; k++) p->right[k] = right[k];
}

/* Growth x of the twins and its slope with the force of each; the growth adds to the flow D. */
INLINE void twin_growth(const Law *law, const At *at, const V *given, Point *p, V *slope) {
    V sum = all(0.0), total = all(0.0), D[8], m[5];
    for (int k = 0; k < 5; k++) m[k] = at->m[k];
    for (int b = 0; b < N_TWIN; b++) sum += at->lam[b];
    p->twins = 0;
    for (int b = 0; b < N_TWIN; b++) {
        V f = all(0.0);
        for (int k = 0; k < 5; k++) f += law->twin[b][k] * m[k];
        V r = 2.0 * law->twin_k * sum + (law->twin_h - 2.0 * law->twin_k) * at->lam[b];
        V y = positive(f - r) * (1.0 / law->twin_tau_0), c = at->s * law->twin_rate_0;
        p->twin_force[b] = f, p->twin_r[b] = r;
        p->x_twin[b] = slope[b] = all(0.0);
        I open = at->lam[b] != given[b];
        if (any((y > 0) | open)) p->twins |= 1u << b;
        if (!any(y > 0)) continue;
#ifdef TWIN_SQUARE
        V x = c * y * y;
        slope[b] = c * y * (2.0 / law->twin_tau_0);
#else
        V x = c * power(y, law->twin_exponent);
        slope[b] = choose(y > 0, x * (law->twin_exponent / law->twin_tau_0) / y, all(0.0));
#endif
        p->x_twin[b] = x;
        total += x;
    }
    p->twinning = total > 0;
    if (!any(p->twinning)) return;
    /* What is left of the parent bounds the growth. */
    I full = total > at->room;
    V fraction = choose(full, at->room / total, all(1.0));
    for (int k = 0; k < 8; k++) D[k] = p->D[k];
    for (int b = 0; b < N_TWIN; b++) {
        V x = p->x_twin[b] * fraction;
        p->x_twin[b] = x, slope[b] = choose(full, all(0.0), slope[b]);
        for (int k = 0; k < 8; k++) D[k] += x * law->twin[b][k];
    }
    for (int k = 0; k < 8; k++) p->D[k] = D[k];
}

/* The part of the twins in the equations. A twin that neither grows nor has a residual contributes nothing. */
INLINE void twin_rates(const Law *law, const Control *control, const At *at, const V *given, Point *p) {
    V slope[N_TWIN + 1], sum_P = all(0.0), carried = all(0.0), u[5], A[15], right[5];
    Linear *lin = &p->linear;
    twin_growth(law, at, given, p, slope);
    lin->kappa = all(2.0 * law->twin_k);
    for (int k = 0; k < 15; k++) A[k] = p->A[k];
    for (int k = 0; k < 5; k++) u[k] = all(0.0), right[k] = p->right[k];
    V product = all(1.0), negative = all(0.0);
    for (int b = 0; b < N_TWIN; b++) {
        lin->P[b] = p->rho_twin[b] = all(0.0), lin->inverse[b] = all(1.0);
        if (!(p->twins >> b & 1)) continue;
        V rho = at->lam[b] - given[b] - at->times * p->x_twin[b];
        p->rho_twin[b] = rho, p->twinning |= rho != 0;
        V p_b = slope[b], pivot = 1.0 + p_b * (law->twin_h - 2.0 * law->twin_k);
        /* The pivot of the winner passes through zero, where its share in the sums is not finite. */
        pivot = signed_as(larger(magnitude(pivot), all(control->twin_pivot)), sign_of(pivot));
        V inverse = 1.0 / pivot, P = p_b * inverse;
        product *= pivot;
        negative += choose(pivot < 0, all(1.0), all(0.0));
        sum_P += P;
        carried += rho * inverse;
        V unmet = rho * (1.0 - inverse);
        for (int k = 0; k < 5; k++) {
            u[k] += P * law->twin[b][k];
            right[k] += unmet * law->twin[b][k];
        }
        for (int k = 0; k < 15; k++) A[k] += P * law->twin_square[b][k];
        lin->P[b] = P, lin->inverse[b] = inverse;
    }
    for (int k = 0; k < 5; k++) lin->u[k] = u[k];
    if (!any(p->twinning)) return;
    V own = 1.0 + 2.0 * law->twin_k * sum_P, kappa = 2.0 * law->twin_k / own, left[5];
    /* The race between two variants is resolved where at most one pivot is negative and the determinant positive. */
    p->resolved = (product * own > control->twin_determinant) & (negative < 1.5);
    for (int k = 0; k < 5; k++) {
        left[k] = -kappa * u[k];
        p->right[k] = right[k] + kappa * carried * u[k];
    }
    lin->kappa = kappa;
    add_square(A, left, u);
    for (int k = 0; k < 15; k++) p->A[k] = A[k];
}

/* Slips, twin growth and flow D = s L, and what the Newton iteration needs. `e_given` and `lam_given` are the
 * known parts of the slips and the twin fractions. */
static void evaluate(const Law *law, const Control *control, const Lanes *z, const At *at, const V *e_given,
                     const V *lam_given, Point *p) {
    slip_rates(law, z, at, e_given, p, control->domains > 0);
    slip_matrix(law, z, p);
    p->resolved = at->s == at->s;
    if (N_TWIN) twin_rates(law, control, at, lam_given, p);
}

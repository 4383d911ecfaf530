/* Rates of the crystals in the lanes, and Newton's iteration for an implicit stage of the time integration. */

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
    double tolerance, twin_tolerance, newton_tolerance, stress_reference, twin_reference;
    double newton_iterations, free_slip, far, twin_determinant, twin_pivot, slipping_fraction;
    double cut, safety, shrink, grow, smallest_step, most_steps, substeps, domains;
} Control;

/* The crystals in the lanes; C = C0 + (t / T) dC in the frame of the crystal. */
typedef struct {
    V B[9], e[N_SLIP], lam[N_TWIN + 1], m[5], h;
    V C0[6], dC[6], t, T;
    /* Twins that slip: their place among the twins as a row of a unit matrix, and their slip systems. */
    V place[N_TWIN + 1][N_TWIN + 1], slot[N_TWIN + 1][N_SLIP][8];
    int slots; /* the most of any lane */
} Lanes;

/* The linear equations of a Newton iteration; slip and twins are eliminated. */
typedef struct {
    V A[15];                                   /* L D L^T of the matrix of m, the upper triangle row by row */
    V slope[N_SLIP][1 + N_TWIN], pivot[N_SLIP], hardening[N_SLIP]; /* c sign(f), 1 / (1 + q r'), r' */
    V P[N_TWIN + 1], inverse[N_TWIN + 1], kappa, u[5]; /* p / pivot, 1 / (1 + p (h - 2k)), 2k / (1 + 2k sum P), sum P t */
} Linear;

/* A stage: what is given, the unknowns, and what is kept of the iteration in which a lane has converged. */
typedef struct {
    V B[9], e[N_SLIP], lam[N_TWIN + 1], K[6], trial[5], room, s;
    V m[5], e_new[N_SLIP], lam_new[N_TWIN + 1];
    V D[8], m_calc[5], slip_cap, twin_cap;
    Linear linear;
    I ok;
    long iterations, rounds; /* Newton iterations of all lanes, and of all lanes together */
} Stage;

/* What one evaluation leaves for the step of the iteration. */
typedef struct {
    V D[8], x[N_SLIP], x_twin[N_TWIN + 1];
    I resolved; /* whether the step is short enough for the race of the twin variants */
    V force[N_SLIP][1 + N_TWIN], y[N_SLIP][1 + N_TWIN], r[N_SLIP], rho[N_SLIP];
    V w[1 + N_TWIN]; /* weights of the domains, times s */
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
INLINE void slip_system(const Law *law, int a, int d, const V *S, V r, V weight, const V *m, Point *p, V *D, V *x, V *q,
                        const int linear) {
    V f = contract(S, m), y = positive(magnitude(f) - r) * law->over[a], bit = sign_of(f);
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
    if (linear) {
        p->force[a][d] = f, p->y[a][d] = y;
        p->linear.slope[a][d] = signed_as(dx, bit);
        *q += dx;
    }
}

/* Slips of all systems in all domains, and the flow D that they make. */
INLINE void slip_rates(const Law *law, const Lanes *z, const V *m, const V *e, const V *lam, V s, const V *given,
                       Point *p, const int linear, const int domains) {
    V w0 = all(1.0), w[N_TWIN + 1], total = all(0.0), D[8];
    for (int k = 0; k < 8; k++) D[k] = all(0.0);
    if (domains)
        for (int b = 0; b < N_TWIN; b++) w0 -= lam[b];
    w[0] = positive(w0) * s;
    for (int k = 0; k < SLOTS(z); k++) {
        V sum = all(0.0);
        for (int b = 0; b < N_TWIN; b++) sum += z->place[k][b] * lam[b];
        w[k + 1] = sum * s;
    }
    for (int d = 0; d <= SLOTS(z); d++) p->w[d] = w[d];
    for (int a = 0; a < N_SLIP; a++) total += law->v[a] * e[a];
    for (int a = 0; a < N_SLIP; a++) {
        V decay = decay_of(e[a] * law->decline[a]);
        V r = law->r_0[a] + law->sigma_inf[a] * (1.0 - decay) + law->v[a] * (total - law->v[a] * e[a]);
        V x = all(0.0), q = all(0.0), S[8];
        for (int k = 0; k < 8; k++) S[k] = all(law->slip[a][0][k]);
        slip_system(law, a, 0, S, r, w[0], m, p, D, &x, &q, linear);
        for (int d = 0; d < SLOTS(z); d++)
            slip_system(law, a, d + 1, z->slot[d][a], r, w[d + 1], m, p, D, &x, &q, linear);
        p->x[a] = x;
        if (linear) {
            V hardening = law->h[a] * decay;
            p->linear.hardening[a] = hardening, p->r[a] = r, p->rho[a] = e[a] - given[a] - x;
            p->linear.pivot[a] = 1.0 / (1.0 + q * hardening);
        }
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
        V hindrance = lin->hardening[a] * lin->pivot[a], c = lin->slope[a][0], t = hindrance * p->rho[a], u = -hindrance;
        if (!N_TWIN) {
            V q = magnitude(c) * lin->pivot[a];
            t *= c;
            for (int k = 0; k < 5; k++) right[k] += t * law->slip[a][0][k];
            for (int k = 0; k < 15; k++) A[k] += q * law->square[a][k];
            continue;
        }
        for (int k = 0; k < 5; k++) n[k] = c * law->slip[a][0][k];
        c = magnitude(c);
        for (int k = 0; k < 15; k++) A[k] += c * law->square[a][k];
        for (int d = 0; d < SLOTS(z); d++) {
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

INLINE void twin_rates(const Law *law, const Control *control, const V *m, const V *lam, V s, const V *given, V room,
                       Point *p, const int linear) {
    V sum = all(0.0), total = all(0.0), slope[N_TWIN + 1];
    for (int b = 0; b < N_TWIN; b++) sum += lam[b];
    for (int b = 0; b < N_TWIN; b++) {
        V f = all(0.0);
        for (int k = 0; k < 5; k++) f += law->twin[b][k] * m[k];
        V r = 2.0 * law->twin_k * sum + (law->twin_h - 2.0 * law->twin_k) * lam[b];
        V y = positive(f - r) * (1.0 / law->twin_tau_0), c = s * law->twin_rate_0;
#ifdef TWIN_SQUARE
        V x = c * y * y;
        slope[b] = c * y * (2.0 / law->twin_tau_0);
#else
        V x = c * power(y, law->twin_exponent);
        slope[b] = choose(y > 0, x * (law->twin_exponent / law->twin_tau_0) / y, all(0.0));
#endif
        p->twin_force[b] = f, p->twin_r[b] = r, p->x_twin[b] = x;
        total += x;
    }
    /* What is left of the parent bounds the growth. */
    I full = total > room;
    V fraction = choose(full, room / total, all(1.0));
    V D[8];
    for (int k = 0; k < 8; k++) D[k] = p->D[k];
    for (int b = 0; b < N_TWIN; b++) {
        p->x_twin[b] *= fraction;
        for (int k = 0; k < 8; k++) D[k] += p->x_twin[b] * law->twin[b][k];
    }
    for (int k = 0; k < 8; k++) p->D[k] = D[k];
    if (!linear) return;
    p->twinning = total > 0;
    V sum_P = all(0.0), carried = all(0.0), u[5], A[15], right[5];
    Linear *lin = &p->linear;
    for (int k = 0; k < 15; k++) A[k] = p->A[k];
    for (int k = 0; k < 5; k++) u[k] = all(0.0), right[k] = p->right[k];
    V product = all(1.0), negative = all(0.0);
    for (int b = 0; b < N_TWIN; b++) {
        V rho = lam[b] - given[b] - p->x_twin[b];
        p->rho_twin[b] = rho, p->twinning |= rho != 0;
        V p_b = choose(full, all(0.0), slope[b]), pivot = 1.0 + p_b * (law->twin_h - 2.0 * law->twin_k);
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
    if (!any(p->twinning)) {
        for (int k = 0; k < 5; k++) lin->u[k] = all(0.0);
        lin->kappa = all(2.0 * law->twin_k);
        return;
    }
    V own = 1.0 + 2.0 * law->twin_k * sum_P, kappa = 2.0 * law->twin_k / own, left[5];
    /* The race between two variants is resolved where at most one pivot is negative and the determinant positive. */
    p->resolved = (product * own > control->twin_determinant) & (negative < 1.5);
    for (int k = 0; k < 5; k++) {
        left[k] = -kappa * u[k];
        p->right[k] = right[k] + kappa * carried * u[k];
        lin->u[k] = u[k];
    }
    lin->kappa = kappa;
    add_square(A, left, u);
    for (int k = 0; k < 15; k++) p->A[k] = A[k];
}

/* Slips, twin growth and flow D = s L at (m, e, lam), and, where asked for, what the Newton iteration needs. */
INLINE void evaluate(const Law *law, const Control *control, const Lanes *z, const V *m, const V *e, const V *lam, V s,
                     const V *e_given, const V *lam_given, V room, Point *p, const int linear) {
    slip_rates(law, z, m, e, lam, s, e_given, p, linear, control->domains > 0);
    if (linear) slip_matrix(law, z, p);
    p->resolved = s == s;
    if (N_TWIN) twin_rates(law, control, m, lam, s, lam_given, room, p, linear);
}

/* A -> L D L^T in place, the diagonal inverted. */
INLINE void factorise(V *A) {
    for (int i = 0; i < 5; i++) {
        A[SIXTH(i, i)] = 1.0 / A[SIXTH(i, i)];
        for (int j = i + 1; j < 5; j++) {
            V l = A[SIXTH(i, j)] * A[SIXTH(i, i)];
            for (int k = j; k < 5; k++) A[SIXTH(j, k)] -= l * A[SIXTH(i, k)];
        }
        for (int j = i + 1; j < 5; j++) A[SIXTH(i, j)] *= A[SIXTH(i, i)];
    }
}

INLINE void back_substitute(const V *A, V *x) {
    for (int i = 0; i < 5; i++)
        for (int j = i + 1; j < 5; j++) x[j] -= A[SIXTH(i, j)] * x[i];
    for (int i = 0; i < 5; i++) x[i] *= A[SIXTH(i, i)];
    for (int i = 4; i >= 0; i--)
        for (int j = i + 1; j < 5; j++) x[i] -= A[SIXTH(i, j)] * x[j];
}

/* Adds to the right side of the equations of m what unmet residuals rho of the twin fractions contribute. */
INLINE void twin_residual(const Law *law, const Linear *lin, const V *rho, V *right, double G2) {
    V carried = all(0.0);
    for (int b = 0; b < N_TWIN; b++) {
        V unmet = rho[b] * (1.0 - lin->inverse[b]) * G2;
        carried += rho[b] * lin->inverse[b];
        for (int k = 0; k < 5; k++) right[k] -= unmet * law->twin[b][k];
    }
    for (int k = 0; k < 5; k++) right[k] -= G2 * lin->kappa * carried * lin->u[k];
}

/* Changes of the twin fractions for a change of m and residuals rho. */
INLINE void twin_changes(const Law *law, const Linear *lin, const V *dm, const V *rho, V *dlam) {
    V carried = all(0.0);
    for (int b = 0; b < N_TWIN; b++) carried += rho[b] * lin->inverse[b];
    /* 2k times the change of the sum of the fractions */
    V sum = lin->kappa * (contract(lin->u, dm) - carried);
    for (int b = 0; b < N_TWIN; b++) {
        V f = all(0.0);
        for (int k = 0; k < 5; k++) f += law->twin[b][k] * dm[k];
        dlam[b] = lin->P[b] * (f - sum) - rho[b] * lin->inverse[b];
    }
}

/* (I + D)^-1 and the Mandel stress that follows from it; where D is large, that of linear elasticity. */
INLINE I configuration(const Law *law, const Control *control, const Stage *g, const V *D, V *inverse, V *m_calc) {
    V square = all(0.0), a[9], c[6];
    for (int k = 0; k < 5; k++) square += D[k] * D[k];
    for (int k = 5; k < 8; k++) square += 2.0 * D[k] * D[k];
    I near = square < control->far;
    tensor(D, a);
    for (int k = 0; k < 9; k++) a[k] = (V)(near & (I)a[k]);
    a[0] += 1.0, a[4] += 1.0, a[8] += 1.0;
    V J = adjugate(a, inverse);
    /* J^(-1/3) near one: a series, and two iterations */
    V x = J - 1.0, r = 1.0 - x * (1.0 / 3 - x * (2.0 / 9));
    for (int k = 0; k < 3; k++) r += r * (1.0 - J * r * r * r) * (1.0 / 3);
    V scale = law->G * J * r, over = 1.0 / J;
    for (int k = 0; k < 9; k++) inverse[k] *= over;
    congruence(inverse, g->K, c);
    deviator(c, m_calc);
    for (int k = 0; k < 5; k++)
        m_calc[k] = choose(near, scale * m_calc[k], g->trial[k] - 2.0 * law->G * D[k]);
    return near;
}

/* What limits a Newton step: an overstress y may reach twice its value, or what makes the slip `free_slip` in the stage. */
INLINE V shorter(V fraction, V now, V next, V limit) {
    return choose(next > limit, smaller(fraction, (limit - now) / (next - now)), fraction);
}

/* Where a step of the iteration leads. */
typedef struct {
    V de[N_SLIP], D[8], x_twin[N_TWIN + 1];
    V fraction; /* of the step that leaves every overstress below its limit */
    I flows;    /* whether anything flows before or after */
} Ahead;

/* Changes de of the slips that go with dm, dlam, and the flow after the whole step, in which hardening is linear. */
INLINE void look_ahead(const Law *law, const Control *control, const Lanes *z, const Stage *g, const Point *p,
                       const V *dm, const V *dlam, Ahead *next_point) {
    V fraction = all(1.0), sum = all(0.0), latent = all(0.0);
    V df[N_SLIP][1 + N_TWIN], D[8];
    I moving = all(0.0) > 1.0;
    for (int k = 0; k < 8; k++) D[k] = all(0.0);
    for (int a = 0; a < N_SLIP; a++) {
        V S[5], push;
        for (int k = 0; k < 5; k++) S[k] = all(law->slip[a][0][k]);
        df[a][0] = contract(S, dm);
        push = p->linear.slope[a][0] * df[a][0];
        for (int d = 0; d < SLOTS(z); d++) {
            df[a][d + 1] = contract(z->slot[d][a], dm);
            push += p->linear.slope[a][d + 1] * df[a][d + 1];
        }
        V de = (push - p->rho[a]) * p->linear.pivot[a];
        next_point->de[a] = de;
        latent += law->v[a] * de;
    }
    for (int a = 0; a < N_SLIP; a++) {
        const double over = law->over[a];
        V de = next_point->de[a];
        V r = p->r[a] + p->linear.hardening[a] * de + law->v[a] * (latent - law->v[a] * de);
        for (int d = 0; d <= SLOTS(z); d++) {
            V f = p->force[a][d] + df[a][d], next = (magnitude(f) - r) * over, y = p->y[a][d];
            moving |= larger(next, y) > 0;
            V limit = larger(2.0 * y, g->slip_cap * law->cap[a]);
            if (any(next > limit)) fraction = shorter(fraction, (magnitude(p->force[a][d]) - p->r[a]) * over, next, limit);
            next = positive(next);
#ifdef SLIP_SQUARE
            V x = p->w[d] * law->rate_0[a] * next * next;
#else
            V x = p->w[d] * law->rate_0[a] * power(next, law->slip_exponent);
#endif
            x = signed_as(x, sign_of(f));
            if (d) for (int k = 0; k < 8; k++) D[k] += x * z->slot[d - 1][a][k];
            else for (int k = 0; k < 8; k++) D[k] += x * law->slip[a][0][k];
        }
    }
    V total = all(0.0);
    for (int b = 0; b < N_TWIN; b++) sum += dlam[b];
    for (int b = 0; b < N_TWIN; b++) {
        V df = all(0.0), cap = g->twin_cap * law->twin_cap;
        V dr = 2.0 * law->twin_k * sum + (law->twin_h - 2.0 * law->twin_k) * dlam[b];
        for (int k = 0; k < 5; k++) df += law->twin[b][k] * dm[k];
        V now = (p->twin_force[b] - p->twin_r[b]) * (1.0 / law->twin_tau_0);
        V next = now + (df - dr) * (1.0 / law->twin_tau_0), limit = larger(2.0 * now, cap);
        moving |= larger(next, now) > 0;
        if (any(next > limit)) fraction = shorter(fraction, now, next, limit);
        next = positive(next);
#ifdef TWIN_SQUARE
        V x = g->s * law->twin_rate_0 * next * next;
#else
        V x = g->s * law->twin_rate_0 * power(next, law->twin_exponent);
#endif
        next_point->x_twin[b] = x;
        total += x;
    }
    V part = choose(total > g->room, g->room / total, all(1.0));
    for (int b = 0; b < N_TWIN; b++) {
        V x = next_point->x_twin[b];
        x *= part;
        next_point->x_twin[b] = x;
        for (int k = 0; k < 8; k++) D[k] += x * law->twin[b][k];
    }
    for (int k = 0; k < 8; k++) next_point->D[k] = D[k];
    next_point->flows = moving;
    next_point->fraction = larger(fraction, all(0.01));
}

/* Keeps in `kept` the equations of the lanes that still iterate. */
INLINE void keep(const Lanes *z, Linear *kept, const Linear *now, I live) {
    for (int k = 0; k < 15; k++) kept->A[k] = choose(live, now->A[k], kept->A[k]);
    for (int a = 0; a < N_SLIP; a++) {
        kept->pivot[a] = choose(live, now->pivot[a], kept->pivot[a]);
        kept->hardening[a] = choose(live, now->hardening[a], kept->hardening[a]);
        for (int d = 0; d <= SLOTS(z); d++) kept->slope[a][d] = choose(live, now->slope[a][d], kept->slope[a][d]);
    }
    if (!N_TWIN) return;
    for (int b = 0; b < N_TWIN; b++) {
        kept->P[b] = choose(live, now->P[b], kept->P[b]);
        kept->inverse[b] = choose(live, now->inverse[b], kept->inverse[b]);
    }
    for (int k = 0; k < 5; k++) kept->u[k] = choose(live, now->u[k], kept->u[k]);
    kept->kappa = choose(live, now->kappa, kept->kappa);
}

/* Solves a stage from the Mandel stress g->m; g->ok tells where. After a step of the iteration the flow is evaluated
 * at its end, which with the equations at hand gives an estimate of the next step; where it is small, the stage is solved.
 * `last` tells whether the equations are needed afterwards. */
static void solve_stage(const Law *law, const Control *control, const Lanes *z, Stage *g, I live, const int last) {
    const double tau = control->newton_tolerance * control->tolerance, G2 = 2.0 * law->G;
    Point p;
    Ahead ahead;
    p.twinning = all(0.0) > 1.0;
    g->ok = all(0.0) > 1.0;
    for (int a = 0; a < N_SLIP; a++) g->e_new[a] = g->e[a];
    for (int b = 0; b < N_TWIN; b++) g->lam_new[b] = g->lam[b];
    for (int iteration = 0; iteration < (int)control->newton_iterations && any(live); iteration++) {
        V inverse[9], m_calc[5], dm[5], dlam[N_TWIN + 1], m[5], rest[5], rho[N_TWIN + 1];
        evaluate(law, control, z, g->m, g->e_new, g->lam_new, g->s, g->e, g->lam, g->room, &p, 1);
        configuration(law, control, g, p.D, inverse, m_calc);
        for (int k = 0; k < 15; k++) p.linear.A[k] = p.A[k] * G2;
        for (int i = 0; i < 5; i++) {
            p.linear.A[SIXTH(i, i)] += 1.0;
            dm[i] = m_calc[i] - g->m[i] - G2 * p.right[i];
        }
        factorise(p.linear.A);
        back_substitute(p.linear.A, dm);
        int twins = N_TWIN && any(p.twinning);
        for (int b = 0; b < N_TWIN; b++) dlam[b] = all(0.0);
        if (twins) twin_changes(law, &p.linear, dm, p.rho_twin, dlam);
        look_ahead(law, control, z, g, &p, dm, dlam, &ahead);
        V fraction = ahead.fraction;
        if (last) keep(z, &g->linear, &p.linear, live);
        for (int k = 0; k < 5; k++) m[k] = g->m[k] + fraction * dm[k];
        for (int a = 0; a < N_SLIP; a++) {
            V e = larger(g->e_new[a] + fraction * ahead.de[a], g->e[a]);
            g->e_new[a] = choose(live, e, g->e_new[a]);
        }
        for (int b = 0; b < N_TWIN; b++) {
            V lam = larger(g->lam_new[b] + fraction * dlam[b], g->lam[b]);
            rho[b] = lam - g->lam[b] - ahead.x_twin[b];
            g->lam_new[b] = choose(live, lam, g->lam_new[b]);
        }
        I done = configuration(law, control, g, ahead.D, inverse, m_calc) & (fraction >= 1.0);
        for (int k = 0; k < 5; k++) rest[k] = m_calc[k] - m[k];
        I growing = p.twinning;
        for (int b = 0; b < N_TWIN; b++) growing |= rho[b] != 0;
        twins = N_TWIN && any(growing);
        if (twins) twin_residual(law, &p.linear, rho, rest, G2);
        back_substitute(p.linear.A, rest);
        V bound = tau * (root_of(contract(m, m)) + control->stress_reference);
        done &= contract(rest, rest) <= bound * bound;
        if (twins) {
            twin_changes(law, &p.linear, rest, rho, dlam);
            for (int b = 0; b < N_TWIN; b++)
                done &= magnitude(dlam[b]) <= tau * control->twin_tolerance * (g->lam_new[b] + control->twin_reference);
        }
        done |= ~ahead.flows & (contract(dm, dm) >= 0); /* elastic: the first iteration is exact */
        for (int k = 0; k < 5; k++) {
            g->m[k] = choose(live, m[k], g->m[k]);
            g->m_calc[k] = choose(live, m_calc[k], g->m_calc[k]);
        }
        for (int k = 0; k < 8; k++) g->D[k] = choose(live, ahead.D[k], g->D[k]);
        for (int l = 0; l < LANES; l++) g->iterations -= live[l];
        g->rounds++;
        g->ok |= live & done & p.resolved;
        live &= ~done;
    }
}

/* Newton's iteration for an implicit stage of the time integration. */

#include "rates.h"

/* A stage: what is given, the unknowns, and what is kept of the iteration in which a lane has converged. */
typedef struct {
    V B[9], e[N_SLIP], lam[N_TWIN + 1], K[6], trial[5], room, s;
    V m[5], e_new[N_SLIP], lam_new[N_TWIN + 1];
    V D[8], m_calc[5], slip_cap, twin_cap;
    Point point; /* the last evaluation, with the equations of the iteration in which a lane has converged */
    Linear kept;
    I ok;
    long iterations, rounds; /* Newton iterations of all lanes, and of all lanes together */
} Stage;

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
        if (!any(rho[b] != 0)) continue;
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
        dlam[b] = f;
        if (!any((lin->P[b] != 0) | (rho[b] != 0))) continue;
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

/* What limits a Newton step: an overstress y may reach twice its value, or what makes the slip `free_slip`. */
INLINE V shorter(V fraction, V now, V next, V limit) {
    return choose(next > limit, smaller(fraction, (limit - now) / (next - now)), fraction);
}

/* Where a step of the iteration leads. */
typedef struct {
    V de[N_SLIP], D[8], x_twin[N_TWIN + 1];
    V fraction; /* of the step that leaves every overstress below its limit */
    I flows;    /* whether anything flows before or after */
} Ahead;

/* Changes de of the slips that go with dm, and df of the forces on them; returns the sum of v de. */
INLINE V slip_changes(const Law *law, const Lanes *z, const Point *p, const V *dm, V df[N_SLIP][1 + N_TWIN],
                      V *change) {
    V latent = all(0.0);
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
        change[a] = de;
        latent += law->v[a] * de;
    }
    return latent;
}

/* The slips after a whole step, in which hardening is linear, and their flow D. */
INLINE void slips_ahead(const Law *law, const Lanes *z, const Stage *g, const Point *p, const V *dm, Ahead *ahead) {
    V fraction = all(1.0), df[N_SLIP][1 + N_TWIN], D[8], latent = slip_changes(law, z, p, dm, df, ahead->de);
    I moving = all(0.0) > 1.0;
    for (int k = 0; k < 8; k++) D[k] = all(0.0);
    for (int a = 0; a < N_SLIP; a++) {
        const double over = law->over[a];
        V de = ahead->de[a], cap = g->slip_cap * law->cap[a];
        V r = p->r[a] + p->linear.hardening[a] * de + law->v[a] * (latent - law->v[a] * de);
        for (int d = 0; d <= SLOTS(z); d++) {
            V f = p->force[a][d] + df[a][d], next = (magnitude(f) - r) * over, y = p->y[a][d];
            I flows = larger(next, y) > 0;
            if (!any(flows)) continue;
            moving |= flows;
            V limit = larger(2.0 * y, cap);
            if (any(next > limit))
                fraction = shorter(fraction, (magnitude(p->force[a][d]) - p->r[a]) * over, next, limit);
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
    for (int k = 0; k < 8; k++) ahead->D[k] = D[k];
    ahead->fraction = fraction, ahead->flows = moving;
}

/* The same of the twins: adds to what `slips_ahead` has left. */
INLINE void twins_ahead(const Law *law, const Stage *g, const Point *p, const V *dm, const V *dlam, Ahead *ahead) {
    V fraction = ahead->fraction, sum = all(0.0), total = all(0.0), D[8], cap = g->twin_cap * law->twin_cap;
    I moving = ahead->flows;
    unsigned grow = 0;
    for (int b = 0; b < N_TWIN; b++) sum += dlam[b];
    for (int b = 0; b < N_TWIN; b++) {
        V df = all(0.0), dr = 2.0 * law->twin_k * sum + (law->twin_h - 2.0 * law->twin_k) * dlam[b];
        for (int k = 0; k < 5; k++) df += law->twin[b][k] * dm[k];
        V now = (p->twin_force[b] - p->twin_r[b]) * (1.0 / law->twin_tau_0);
        V next = now + (df - dr) * (1.0 / law->twin_tau_0), limit = larger(2.0 * now, cap);
        I flows = larger(next, now) > 0;
        ahead->x_twin[b] = all(0.0);
        if (!any(flows)) continue;
        grow |= 1u << b, moving |= flows;
        if (any(next > limit)) fraction = shorter(fraction, now, next, limit);
        next = positive(next);
#ifdef TWIN_SQUARE
        V x = g->s * law->twin_rate_0 * next * next;
#else
        V x = g->s * law->twin_rate_0 * power(next, law->twin_exponent);
#endif
        ahead->x_twin[b] = x;
        total += x;
    }
    if (!grow) return;
    V part = choose(total > g->room, g->room / total, all(1.0));
    for (int k = 0; k < 8; k++) D[k] = ahead->D[k];
    for (int b = 0; b < N_TWIN; b++) {
        if (!(grow >> b & 1)) continue;
        V x = ahead->x_twin[b] * part;
        ahead->x_twin[b] = x;
        for (int k = 0; k < 8; k++) D[k] += x * law->twin[b][k];
    }
    for (int k = 0; k < 8; k++) ahead->D[k] = D[k];
    ahead->fraction = fraction, ahead->flows = moving;
}

/* Equations of lanes that have converged come back from `kept`. */
INLINE void restore(const Lanes *z, Linear *now, const Linear *kept, I live) {
    for (int k = 0; k < 15; k++) now->A[k] = choose(live, now->A[k], kept->A[k]);
    for (int a = 0; a < N_SLIP; a++) {
        now->slips[a] |= kept->slips[a];
        now->pivot[a] = choose(live, now->pivot[a], kept->pivot[a]);
        now->hardening[a] = choose(live, now->hardening[a], kept->hardening[a]);
        for (int d = 0; d <= SLOTS(z); d++) now->slope[a][d] = choose(live, now->slope[a][d], kept->slope[a][d]);
    }
    if (!N_TWIN) return;
    for (int b = 0; b < N_TWIN; b++) {
        now->P[b] = choose(live, now->P[b], kept->P[b]);
        now->inverse[b] = choose(live, now->inverse[b], kept->inverse[b]);
    }
    for (int k = 0; k < 5; k++) now->u[k] = choose(live, now->u[k], kept->u[k]);
    now->kappa = choose(live, now->kappa, kept->kappa);
}

/* The linear equations at the point of `p`, factorised, and the change dm, dlam that solves them. */
INLINE void newton_change(const Law *law, const Control *control, const Stage *g, Point *p, V *dm, V *dlam) {
    const double G2 = 2.0 * law->G;
    V inverse[9], m_calc[5];
    configuration(law, control, g, p->D, inverse, m_calc);
    for (int k = 0; k < 15; k++) p->linear.A[k] = p->A[k] * G2;
    for (int i = 0; i < 5; i++) {
        p->linear.A[SIXTH(i, i)] += 1.0;
        dm[i] = m_calc[i] - g->m[i] - G2 * p->right[i];
    }
    factorise(p->linear.A);
    back_substitute(p->linear.A, dm);
    for (int b = 0; b < N_TWIN; b++) dlam[b] = all(0.0);
    if (N_TWIN && p->twins) twin_changes(law, &p->linear, dm, p->rho_twin, dlam);
}

/* Whether the stage is solved at m, where the stress that follows from the flow is m_calc: the estimate of the next
 * change is small, and so is the flow that is missing, as an elastic stress. The one does not follow from the other:
 * where slip hardly depends on the rate, a small change of m is a large change of the flow, and the next step begins
 * with this flow. */
INLINE I converged(const Law *law, const Control *control, const Stage *g, const V *m, const V *m_calc,
                   const V *x_twin) {
    const double tau = control->newton_tolerance * control->tolerance;
    const double flow = control->flow_tolerance * control->tolerance;
    const double twin = control->newton_twin_tolerance * control->tolerance * control->twin_tolerance;
    V rest[5], rho[N_TWIN + 1], dlam[N_TWIN + 1], size = root_of(contract(m, m)) + control->stress_reference;
    I open = g->point.twinning;
    for (int k = 0; k < 5; k++) rest[k] = m_calc[k] - m[k];
    I done = contract(rest, rest) <= (flow * flow) * size * size;
    for (int b = 0; b < N_TWIN; b++) rho[b] = g->lam_new[b] - g->lam[b] - x_twin[b], open |= rho[b] != 0;
    const int twins = N_TWIN && any(open);
    if (twins) twin_residual(law, &g->point.linear, rho, rest, 2.0 * law->G);
    back_substitute(g->point.linear.A, rest);
    done &= contract(rest, rest) <= (tau * tau) * size * size;
    if (!twins) return done;
    twin_changes(law, &g->point.linear, rest, rho, dlam);
    for (int b = 0; b < N_TWIN; b++)
        done &= magnitude(dlam[b]) <= twin * (g->lam_new[b] + control->twin_reference);
    return done;
}

/* Solves a stage from the unknowns in g; g->ok tells where. After a step of the iteration the flow is evaluated at its
 * end, which with the equations at hand gives an estimate of the next step. Where `evaluated`, g->point is that of the
 * start already. The equations of the last iteration of each lane are left in g->point. */
static void solve_stage(const Law *law, const Control *control, const Lanes *z, Stage *g, I live, int evaluated) {
    Point *p = &g->point;
    Ahead ahead;
    const At at = {g->m, g->e_new, g->lam_new, g->s, g->room, 1.0};
    I asked = live;
    g->ok = all(0.0) > 1.0;
    for (int iteration = 0; iteration < (int)control->newton_iterations && any(live); iteration++) {
        V inverse[9], m_calc[5], dm[5], dlam[N_TWIN + 1], m[5];
        const int some_done = any(asked & ~live);
        if (some_done) g->kept = p->linear;
        if (!evaluated || iteration) evaluate(law, control, z, &at, g->e, g->lam, p);
        newton_change(law, control, g, p, dm, dlam);
        slips_ahead(law, z, g, p, dm, &ahead);
        if (N_TWIN) twins_ahead(law, g, p, dm, dlam, &ahead);
        V fraction = larger(ahead.fraction, all(0.01));
        for (int k = 0; k < 5; k++) m[k] = g->m[k] + fraction * dm[k];
        for (int a = 0; a < N_SLIP; a++) {
            V e = larger(g->e_new[a] + fraction * ahead.de[a], g->e[a]);
            g->e_new[a] = choose(live, e, g->e_new[a]);
        }
        for (int b = 0; b < N_TWIN; b++) {
            V lam = larger(g->lam_new[b] + fraction * dlam[b], g->lam[b]);
            g->lam_new[b] = choose(live, lam, g->lam_new[b]);
        }
        I done = configuration(law, control, g, ahead.D, inverse, m_calc) & (fraction >= 1.0);
        done &= converged(law, control, g, m, m_calc, ahead.x_twin);
        done |= ~ahead.flows & (contract(dm, dm) >= 0); /* elastic: the first iteration is exact */
        for (int k = 0; k < 5; k++) {
            g->m[k] = choose(live, m[k], g->m[k]);
            g->m_calc[k] = choose(live, m_calc[k], g->m_calc[k]);
        }
        for (int k = 0; k < 8; k++) g->D[k] = choose(live, ahead.D[k], g->D[k]);
        for (int l = 0; l < LANES; l++) g->iterations -= live[l];
        g->rounds++;
        if (some_done) restore(z, &p->linear, &g->kept, live);
        g->ok |= live & done & p->resolved;
        live &= ~done;
    }
}

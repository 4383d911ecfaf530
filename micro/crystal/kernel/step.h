/* One step of TR-BDF2 for the crystals in the lanes, each with its own size, and the choice of the next size. */

#include "stage.h"

#ifdef SLIP_SQUARE
#define SLIP_IS_SQUARE 1
#else
#define SLIP_IS_SQUARE 0
#endif
#ifdef TWIN_SQUARE
#define TWIN_IS_SQUARE 1
#else
#define TWIN_IS_SQUARE 0
#endif

/* Puts the slip systems of the twins of `set` into the slots of lane l, `used` of which were in use. */
static int fill_slots(const Law *law, Lanes *z, int l, int set, int used) {
    int k = 0;
    for (int b = 0; b < N_TWIN; b++) {
        if (!(set >> b & 1)) continue;
        for (int c = 0; c < N_TWIN; c++) z->place[k][c][l] = b == c;
        for (int a = 0; a < N_SLIP; a++)
            for (int i = 0; i < 8; i++) z->slot[k][a][i][l] = law->slip[a][1 + b][i];
        k++;
    }
    /* A slot that is not used any more feels no force, so that it does not limit the iteration either. */
    for (int unused = k; unused < used; unused++) {
        for (int c = 0; c < N_TWIN; c++) z->place[unused][c][l] = 0.0;
        for (int a = 0; a < N_SLIP; a++)
            for (int i = 0; i < 8; i++) z->slot[unused][a][i][l] = 0.0;
    }
    return k;
}

/* Fills the slots of the lanes in which the set of the twins that slip has changed. */
INLINE void update_slots(const Law *law, const Control *control, Lanes *z) {
    I now = all(0.0) > 1.0;
    if (!N_TWIN || control->domains <= 0) return;
    for (int b = 0; b < N_TWIN; b++) now |= (z->lam[b] > control->slipping_fraction) & (1LL << b);
    if (!any(now != z->set)) return;
    z->slots = 0;
    for (int l = 0; l < LANES; l++) {
        int used = __builtin_popcountll(z->set[l]);
        if (now[l] != z->set[l]) used = fill_slots(law, z, l, (int)now[l], used);
        if (used > z->slots) z->slots = used;
    }
    z->set = now;
}

/* C at the time `at`, the stress without further flow, and room for twins. */
INLINE void prepare(const Law *law, const Lanes *z, Stage *g, V at) {
    V C[6], fraction = at / z->T, sum = all(0.0);
    for (int k = 0; k < 6; k++) C[k] = z->C0[k] + fraction * z->dC[k];
    congruence(g->B, C, g->K);
    V scale = inverse_cube_root(determinant_symmetric(g->K));
    for (int k = 0; k < 6; k++) g->K[k] *= scale;
    deviator(g->K, g->trial);
    for (int k = 0; k < 5; k++) g->trial[k] *= law->G;
    for (int b = 0; b < N_TWIN; b++) sum += g->lam[b];
    g->room = positive(1.0 - sum);
}

/* B at the end of a stage; D becomes the symmetric flow that belongs to the last change of m. */
INLINE void finish(const Law *law, const Control *control, Stage *g, V *B) {
    V inverse[9], unused[5], correction[8], a[9], part[9];
    configuration(law, control, g, g->D, inverse, unused);
    for (int k = 0; k < 5; k++) {
        correction[k] = (g->m[k] - g->m_calc[k]) * (0.5 / law->G);
        g->D[k] -= correction[k];
    }
    for (int k = 5; k < 8; k++) correction[k] = all(0.0);
    tensor(correction, a);
    a[0] += 1.0, a[4] += 1.0, a[8] += 1.0;
    times(inverse, a, part);
    times(g->B, part, B);
}

/* Takes one step of the size `step`: the state at its end is left in `g` and `B`. Returns where it was solved. */
static I attempt(const Law *law, const Control *control, const Lanes *z, V step, I live, Stage *g, V *B, V *error) {
    const double d = control->diagonal, ratio = control->weight / d;
    const double e0 = control->error[0] / d, e2 = control->error[1] / d, e3 = control->error[2] / d;
    V sum = all(0.0), flow[9], change[9], E[5], E_e[N_SLIP], E_lam[N_TWIN + 1], D[5], x[N_SLIP], x_twin[N_TWIN + 1];
    Point *p = &g->point;
    g->s = d * step;
    V slip = control->free_slip / g->s;
    g->slip_cap = SLIP_IS_SQUARE ? root_of(slip) : power(slip, 1.0 / law->slip_exponent);
    g->twin_cap = TWIN_IS_SQUARE ? root_of(slip) : power(slip, 1.0 / law->twin_exponent);
    for (int b = 0; b < N_TWIN; b++) sum += z->lam[b];
    /* The explicit rates are at the same time the first evaluation of the middle stage, which starts where they are. */
    const At start = {z->m, z->e, z->lam, g->s, positive(1.0 - sum), 2.0};
    evaluate(law, control, z, &start, z->e, z->lam, p);

    tensor(p->D, flow);
    times(z->B, flow, change);
    for (int k = 0; k < 9; k++) g->B[k] = z->B[k] - change[k];
    for (int k = 0; k < 5; k++) g->m[k] = z->m[k], D[k] = p->D[k];
    for (int a = 0; a < N_SLIP; a++) g->e_new[a] = z->e[a], x[a] = p->x[a], g->e[a] = z->e[a] + x[a];
    for (int b = 0; b < N_TWIN; b++)
        g->lam_new[b] = z->lam[b], x_twin[b] = p->x_twin[b], g->lam[b] = z->lam[b] + x_twin[b];
    prepare(law, z, g, z->t + control->gamma * step);
    solve_stage(law, control, z, g, live, 1);
    I ok = g->ok;
    finish(law, control, g, B);

    for (int k = 0; k < 5; k++) {
        E[k] = e0 * D[k] + e2 * g->D[k];
        g->m[k] = z->m[k] + (g->m[k] - z->m[k]) * (1.0 / control->gamma);
    }
    for (int k = 0; k < 9; k++) g->B[k] = z->B[k] + ratio * (B[k] - g->B[k] - change[k]);
    for (int a = 0; a < N_SLIP; a++) {
        V middle = g->e_new[a] - g->e[a];
        E_e[a] = e0 * x[a] + e2 * middle;
        g->e[a] = g->e_new[a] = z->e[a] + ratio * (x[a] + middle);
    }
    for (int b = 0; b < N_TWIN; b++) {
        V middle = g->lam_new[b] - g->lam[b];
        E_lam[b] = e0 * x_twin[b] + e2 * middle;
        g->lam[b] = g->lam_new[b] = z->lam[b] + ratio * (x_twin[b] + middle);
    }
    prepare(law, z, g, z->t + step);
    solve_stage(law, control, z, g, live & ok, 0);
    ok &= g->ok;
    finish(law, control, g, B);

    /* The estimate, as a residual of the last Newton iteration. */
    const Linear *lin = &p->linear;
    V dm[5], dlam[N_TWIN + 1], carried = all(0.0);
    for (int k = 0; k < 5; k++) dm[k] = -(E[k] + e3 * g->D[k]);
    for (int a = 0; a < N_SLIP; a++) {
        if (!lin->slips[a]) continue;
        E_e[a] += e3 * (g->e_new[a] - g->e[a]);
        V n[5], hindrance = lin->hardening[a] * lin->pivot[a] * E_e[a];
        slip_direction(law, z, lin, a, n);
        for (int k = 0; k < 5; k++) dm[k] += hindrance * n[k];
    }
    for (int b = 0; b < N_TWIN; b++) {
        E_lam[b] = -E_lam[b] - e3 * (g->lam_new[b] - g->lam[b]);
        V unmet = E_lam[b] * (1.0 - lin->inverse[b]);
        for (int k = 0; k < 5; k++) dm[k] -= unmet * law->twin[b][k];
        carried += E_lam[b] * lin->inverse[b];
    }
    if (N_TWIN)
        for (int k = 0; k < 5; k++) dm[k] -= lin->kappa * carried * lin->u[k];
    for (int k = 0; k < 5; k++) dm[k] *= 2.0 * law->G;
    back_substitute(lin->A, dm);
    V size = contract(g->m, g->m), change2 = contract(dm, dm), worst = all(0.0);
    worst = root_of(change2) / (control->tolerance * (root_of(size) + control->stress_reference));
    if (N_TWIN) {
        twin_changes(law, lin, dm, E_lam, dlam);
        for (int b = 0; b < N_TWIN; b++) {
            V bound = control->tolerance * control->twin_tolerance * (g->lam_new[b] + control->twin_reference);
            worst = larger(worst, magnitude(dlam[b]) / bound);
        }
    }
    *error = worst;
    return ok & (worst >= 0); /* not where it is not a number */
}

/* One step of every crystal: on return z is at its end where the step was accepted. Returns the lanes that failed. */
static I advance(const Law *law, const Control *control, Lanes *z, I live, Stage *g, I *rejected) {
    V B[9], error, remaining = z->T - z->t, sum = all(0.0), before = all(0.0);
    I last, shortened = remaining != remaining;
    V step;
    if (control->substeps > 0) {
        step = z->T / control->substeps;
        last = remaining < 1.5 * step;
        step = choose(last, remaining, step);
    } else {
        last = (z->h <= 0) | (z->h >= remaining * (1.0 - 1e-6)); /* no rest of the size of rounding */
        I half = ~last & (z->h > 0.5 * remaining);
        step = choose(last, remaining, choose(half, 0.5 * remaining, z->h));
        shortened = (z->h > step);
    }
    I ok = attempt(law, control, z, step, live, g, B, &error);
    V growth = control->safety * inverse_cube_root(larger(error, all(1e-12)));
    I accept = live & ok, failed;
    if (control->substeps > 0) {
        failed = live & ~ok;
    } else {
        accept &= error <= 1.0;
        V factor = smaller(all(control->safety), larger(growth, all(control->shrink)));
        V cut = choose(ok, factor, all(control->cut)) * step;
        V next = step * smaller(larger(growth, all(control->shrink)), all(control->grow));
        next = choose(shortened, larger(z->h, next), next);
        failed = live & ~accept & (cut < control->smallest_step * z->T);
        z->h = choose(accept, next, choose(live, cut, z->h));
    }
    *rejected = live & ~accept;
    V scale = inverse_cube_root(determinant(B));
    for (int k = 0; k < 9; k++) z->B[k] = choose(accept, B[k] * scale, z->B[k]);
    for (int a = 0; a < N_SLIP; a++) z->e[a] = choose(accept, g->e_new[a], z->e[a]);
    for (int k = 0; k < 5; k++) z->m[k] = choose(accept, g->m[k], z->m[k]);
    for (int b = 0; b < N_TWIN; b++) before += z->lam[b], sum += g->lam_new[b];
    V part = choose(sum > 1.0, positive(1.0 - before) / larger(sum - before, all(1e-300)), all(1.0));
    for (int b = 0; b < N_TWIN; b++) {
        V lam = choose(sum > 1.0, z->lam[b] + (g->lam_new[b] - z->lam[b]) * part, g->lam_new[b]);
        z->lam[b] = choose(accept, lam, z->lam[b]);
    }
    z->t = choose(accept, choose(last, z->T, z->t + step), z->t);
    return failed;
}
